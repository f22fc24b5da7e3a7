"""The side of a system that hears and makes sound: semantic tokenizer, codec, acoustic model. No LM is needed.

    parts = SpeechParts.from_pretrained("runs/mine")       # semantic_tokenizer/ codec/ acoustic/
    codes = parts.semantic_tokenizer().encode([load_audio("hello.wav")])
    parts.synthesize(codes, voice="hello.wav")[0]          # said again from its codes: the ceiling of any LM on them

A checkpoint has these parts beside its LM (`SpeechSystem.parts`). Before there is an LM they tell what a language
loses by becoming tokens (`speechllm resynthesize`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import torch

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.errors import CheckpointError, TaskError
from speechllm.hub import load_parts
from speechllm.tokenizers.semantic import SemanticTokenizer

AUDIO_TYPES = (str, Path, bytes, np.ndarray, Mapping, Audio)
"The forms that one audio input may have (`AudioSource`)."
Voice: TypeAlias = AudioSource | Sequence[AudioSource] | None
"One voice for all, a list with one for each input, or none: then a voice is drawn."


@dataclass(frozen=True, eq=False)
class SpeechParts:
    """The parts, each of which may be missing; asking for what needs a missing one is an error."""

    tokenizer: SemanticTokenizer | None
    "Audio to semantic codes."
    codec: Any | None = None
    "Acoustic codes to sound, and back."
    acoustic: Any | None = None
    "Semantic to acoustic codes: SoundStorm or AudioLM."

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load semantic_tokenizer/, codec/ and acoustic/ of a folder, as far as they are there.

        Raises:
            CheckpointError: the folder has none of them, they do not belong together, or their files are not safe.
        """
        return cls(*load_parts(folder, device=device))

    @property
    def can_speak(self) -> bool:
        """True if there is what turns semantic codes into sound."""
        return self.codec is not None and self.acoustic is not None

    def semantic_tokenizer(self) -> SemanticTokenizer:
        """Return what turns audio into semantic codes.

        Raises:
            CheckpointError: there is none.
        """
        if self.tokenizer is None:
            raise CheckpointError("this checkpoint has no semantic_tokenizer/, so it cannot read audio")
        return self.tokenizer

    def sound_parts(self) -> tuple[Any, Any]:
        """Return the acoustic model and the codec.

        Raises:
            CheckpointError: there are none.
        """
        if not self.can_speak:
            raise CheckpointError(
                "this checkpoint cannot make sound: it lacks codec/ and acoustic/; "
                "save it with save_checkpoint(..., codec=, acoustic=)"
            )
        return self.acoustic, self.codec

    def synthesize(self, codes: Sequence[np.ndarray], *, voice: Voice = None, seed: int = 0) -> list[Audio]:
        """Turn semantic codes [T] into speech, without a watermark and without asking for consent.

        A building block for measurements (what does the acoustic side lose?); `SpeechSystem.run` is the way to speak.
        """
        from speechllm.generation.cascade import synthesize

        acoustic, codec = self.sound_parts()
        return synthesize(list(codes), acoustic, codec, voice=self.voice_prompts(voice, len(codes)), seed=seed)

    def voice_prompts(self, voice: Voice, count: int) -> Any:
        """Return one encoded prompt, or a list of `count`; None stays None.

        Raises:
            TaskError: the list has another length.
            CheckpointError: a voice cannot be read.
        """
        from speechllm.generation.voice import encode_voice

        if voice is None:
            return None
        acoustic, codec = self.sound_parts()
        tokenizer = self.semantic_tokenizer()
        if isinstance(voice, AUDIO_TYPES):
            return encode_voice(load_audio(voice), tokenizer, codec, acoustic)
        check_voices(voice, count)
        return [encode_voice(load_audio(one), tokenizer, codec, acoustic) for one in voice]


def check_voices(voices: Sequence[AudioSource], count: int) -> None:
    """Raise TaskError unless there is one voice for each of `count` inputs."""
    if len(voices) != count:
        raise TaskError(f"{len(voices)} voices came with {count} inputs; give one voice, or one for each")
