"""The voice prompt: three seconds of somebody's speech as semantic and acoustic codes.

    voice = encode_voice(load_audio("me.wav"), semantic_tokenizer, codec, acoustic)
    voice.semantic_codes.shape, voice.acoustic_codes.shape        # (38,), (4, 76) at 12.5 and 25 frames a second

Shorter speech is repeated until it fills the prompt, longer speech is cut. (AudioPaLM,
arXiv:2306.12925, section 3.3.) Speech that is to be continued must end where it ends: `encode_start`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch

from speechllm.audio import Audio
from speechllm.errors import AudioError
from speechllm.models.acoustic import AcousticModel
from speechllm.tokenizers.codec import Codec

PROMPT_SECONDS = 3.0


@runtime_checkable
class SemanticEncoder(Protocol):
    """What is needed of a semantic tokenizer here."""

    def encode(self, audios: Sequence[Audio]) -> list[np.ndarray]:
        """Return codes int64 [T] for each audio."""
        ...


@dataclass(frozen=True, eq=False)
class VoicePrompt:
    """Codes of one stretch of speech, int64: semantic [P] and acoustic [K, P * frames_per_condition]."""

    semantic_codes: np.ndarray
    acoustic_codes: np.ndarray

    def tiled(self, num_codes: int, frames_per_condition: int) -> Self:
        """Return a prompt of exactly `num_codes` semantic codes: repeated from its start, or cut."""
        P = min(len(self.semantic_codes), self.acoustic_codes.shape[1] // frames_per_condition)
        if P == 0:
            raise AudioError("the voice prompt holds no whole semantic code; give at least a tenth of a second")
        copies = -(-num_codes // P)
        semantic = np.tile(self.semantic_codes[:P], copies)[:num_codes]
        acoustic = np.tile(self.acoustic_codes[:, : P * frames_per_condition], copies)
        return type(self)(semantic, acoustic[:, : num_codes * frames_per_condition])

    def last(self, num_codes: int, frames_per_condition: int) -> Self:
        """Return the last `num_codes` semantic codes (or all, if there are fewer) with their frames."""
        start = max(0, len(self.semantic_codes) - num_codes)
        return type(self)(self.semantic_codes[start:], self.acoustic_codes[:, start * frames_per_condition :])


def prompt_length(frame_rate: float, frames_per_condition: int, seconds: float = PROMPT_SECONDS) -> int:
    """Return how many semantic codes a prompt of `seconds` holds; `frame_rate` is the codec's."""
    return max(1, round(seconds * frame_rate / frames_per_condition))


def encode_voice(
    audio: Audio,
    semantic_tokenizer: SemanticEncoder,
    codec: Codec,
    acoustic: AcousticModel,
    *,
    seconds: float = PROMPT_SECONDS,
) -> VoicePrompt:
    """Return the first `seconds` of `audio` as a prompt, repeated when the audio is shorter.

    Raises:
        AudioError: the audio is empty or holds less than one semantic code.
    """
    prompt = _encode(audio.cropped(0.0, seconds), semantic_tokenizer, codec, acoustic)
    repeat = acoustic.config.frames_per_condition
    # The last code may cover a partial frame; what the codec has not got is left out by `tiled`.
    return prompt.tiled(prompt_length(codec.frame_rate, repeat, seconds), repeat)


def encode_start(
    audio: Audio,
    semantic_tokenizer: SemanticEncoder,
    codec: Codec,
    acoustic: AcousticModel,
    *,
    seconds: float = PROMPT_SECONDS,
) -> VoicePrompt:
    """Return the first `seconds` of `audio` as what is to be continued: whole codes alone, and nothing repeated.

    Raises:
        AudioError: the audio is empty or holds less than one semantic code.
    """
    cropped, repeat = audio.cropped(0.0, seconds), acoustic.config.frames_per_condition
    prompt = _encode(cropped, semantic_tokenizer, codec, acoustic)
    # Tokenizer and codec fill up their last frame with silence.
    num_whole = int(cropped.duration_seconds * codec.frame_rate / repeat + 1e-6)
    if num_whole == 0:
        raise AudioError("the start holds no whole semantic code; give at least a tenth of a second")
    return VoicePrompt(prompt.semantic_codes[:num_whole], prompt.acoustic_codes[:, : num_whole * repeat])


def _encode(audio: Audio, semantic_tokenizer: SemanticEncoder, codec: Codec, acoustic: AcousticModel) -> VoicePrompt:
    (semantic,) = semantic_tokenizer.encode([audio])
    with torch.no_grad():
        waveform = torch.from_numpy(audio.resampled(codec.sample_rate).samples)
        codes = codec.encode(waveform[None])[0, : acoustic.config.num_codebooks].cpu().numpy()
    return VoicePrompt(semantic, codes)
