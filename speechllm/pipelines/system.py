"""A loaded checkpoint that does tasks. The CLI, the transformers pipelines and the evaluator all go through it.

    system = SpeechSystem.from_pretrained("runs/quickstart/checkpoint")
    system.transcribe(["hello.wav"], language="en")[0].text
    system.translate(["hello.wav"], source="en", target="fr", speech=True)[0].audio
    system.speak(["bonjour"], language="fr", voice="me.wav", consent=True)[0].audio
    system.run("[ASR AST English French]", ["hello.wav"])[0].texts    # {"transcript": ..., "translation": ...}

Speech goes: semantic codes from the LM, acoustic codes (SoundStorm or AudioLM), waveform, watermark.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import torch

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.errors import TaskError, UntrainedError
from speechllm.generation.candidates import decode_best, recognition_tag
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.hub import Checkpoint, load_checkpoint
from speechllm.pipelines.long_audio import find_utterances
from speechllm.pipelines.output import TaskOutput, join
from speechllm.pipelines.pauses import PauseFinder, VadName, pause_finder
from speechllm.pipelines.speech_parts import AUDIO_TYPES, SpeechParts, Voice, check_voices
from speechllm.safety import embed_watermark, require_consent
from speechllm.segments import CodeSegment
from speechllm.tasks import TaskTag
from speechllm.tokenizers.semantic import SemanticTokenizer

MAX_PIECE_SECONDS = 20.0
"Longer audio is cut at pauses, where the checkpoint does not say how long the speech was that it was trained on."
LEAST_PIECE_SECONDS = 2.0
"... and however short that was: a word needs room between its pauses."
SPOKEN_TRANSLATIONS = ("ASR AST S2ST", "AST S2ST", "S2ST")
"Ways to translate speech into speech, the best one first: a text written before it steadies the speech."
TEXT_TRANSLATIONS = ("AST", "ASR AST")
"Ways to translate speech into text."
Input: TypeAlias = "AudioSource | EncodedSpeech"
"What a task reads: text, audio in any form, or audio that is encoded already."
LENGTH_SLACK = 1.25
"Times the longest speech of training: slow speakers say the same sentences, and a cut in speech costs more than that."
CONTEXT_SHARE = 0.4
"At most this share of the model's context is given to input audio: the answer needs room too."


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedSpeech:
    """One recording as semantic codes: encode once, run many tasks (`SpeechSystem.encode`)."""

    pieces: tuple[CodeSegment, ...]
    "One, or several where long audio was cut in its pauses; long pauses are left out."
    spans: tuple[tuple[float, float], ...] = ()
    "Start and end of each piece in seconds."


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """What the LM reads for one input."""

    ids: tuple[np.ndarray, ...]
    "int64 [T] for each piece of the input."
    spans: tuple[tuple[float, float], ...] = ()
    "Start and end of each piece of audio in seconds."


class SpeechSystem:
    """Runs tasks on a checkpoint. Inputs are lists; so are outputs, in the same order."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        decoding: DecodingConfig | None = None,
        allow_untrained: bool = False,
        vad: VadName = "energy",
    ):
        """Take a checkpoint; `from_pretrained` says what the options are."""
        self.checkpoint, self.allow_untrained = checkpoint, allow_untrained
        self.vad: VadName = vad
        self.find_pauses = pause_finder(vad)
        self.processor = checkpoint.processor
        self.decoding = decoding or DecodingConfig()
        self.decoder = LMDecoder(checkpoint.model, checkpoint.processor)
        self.parts = SpeechParts(self.processor.semantic_tokenizer, checkpoint.codec, checkpoint.acoustic)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        decoding: DecodingConfig | None = None,
        allow_untrained: bool = False,
        vad: VadName = "energy",
    ) -> Self:
        """Load a checkpoint folder or Hub repository.

        Args:
            source: see `load_checkpoint`, as for `device`, `dtype`, `revision` and `token`.
            device: where it computes.
            dtype: of the LM.
            revision: of a repository.
            token: of the Hub.
            decoding: what holds where a call says nothing else.
            allow_untrained: also do what the model was not trained for, as well as it happens to.
            vad: how pauses in long audio are found: by energy, or by Silero VAD, for noisy recordings
                (`pipelines/pauses.py`).
        """
        checkpoint = load_checkpoint(source, device=device, dtype=dtype, revision=revision, token=token)
        return cls(checkpoint, decoding=decoding, allow_untrained=allow_untrained, vad=vad)

    @property
    def can_speak(self) -> bool:
        """True if the checkpoint holds what turns semantic codes into sound."""
        return self.parts.can_speak

    def knows(self, tag: TaskTag) -> bool:
        """Return whether the model may be asked for this: it was trained for it, or nobody wrote down for what."""
        trained = self.checkpoint.trained
        return self.allow_untrained or trained is None or trained.covers(tag)

    def require_trained(self, tag: TaskTag) -> TaskTag:
        """Return the tag.

        Raises:
            UntrainedError: the model was not trained for it.
        """
        if not self.knows(tag):
            assert self.checkpoint.trained is not None, "then everything is allowed"
            raise UntrainedError(self.checkpoint.trained.why_not(tag))
        return tag

    def trained_tag(self, ways: Sequence[str], source: str, target: str | None = None) -> TaskTag:
        """Return the first of several ways to do a thing that the model was trained for.

        Args:
            ways: task names, the best one first: "AST", "ASR AST".
            source: language of the input.
            target: language to translate into.

        Raises:
            UntrainedError: it was trained for none of them.
        """
        tags = [TaskTag.of(names, source, target) for names in ways]
        return next((tag for tag in tags if self.knows(tag)), None) or self.require_trained(tags[0])

    def transcribe(
        self, audios: Sequence[AudioSource], *, language: str = "en", decoding: DecodingConfig | None = None
    ) -> list[TaskOutput]:
        """Write what is said."""
        return self.run(TaskTag.of("ASR", language), audios, decoding=decoding)

    def translate(
        self,
        inputs: Sequence[AudioSource],
        *,
        source: str,
        target: str,
        text: bool = False,
        speech: bool = False,
        voice: Voice = None,
        consent: bool = False,
        decoding: DecodingConfig | None = None,
    ) -> list[TaskOutput]:
        """Translate speech or text into text, and with `speech` into (watermarked) speech too.

        Speech becomes speech in one chain ASR AST S2ST, or a shorter one if the model was trained for that only; of
        direct S2ST there is no text.

        Args:
            inputs: audio, or texts with `text`.
            source: language of the inputs.
            target: language to translate into.
            text: the inputs are texts.
            speech: also speak the translation: one chain for speech, MT and then TTS for text. What the model
                translated into nothing stays without sound.
            voice: see `run`.
            consent: see `run`.
            decoding: see `run`.
        """
        ways = ("MT",) if text else SPOKEN_TRANSLATIONS if speech else TEXT_TRANSLATIONS
        tag = self.trained_tag(ways, source, target)
        if speech:
            self.sound_parts()
            if text:
                self.require_trained(TaskTag.of("TTS", target))
        outputs = self.run(tag, inputs, voice=voice, consent=consent, decoding=decoding)
        if not (speech and text):
            return outputs
        sayable = [i for i, output in enumerate(outputs) if output.text.strip()]
        if voice is not None and not isinstance(voice, AUDIO_TYPES):
            check_voices(voice, len(inputs))
            voice = [voice[i] for i in sayable]
        texts = [outputs[i].text for i in sayable]
        spoken = self.speak(texts, language=target, voice=voice, consent=consent, decoding=decoding)
        for i, said in zip(sayable, spoken, strict=True):
            outputs[i] = dataclasses.replace(outputs[i], audio=said.audio, is_watermarked=said.is_watermarked)
        return outputs

    def speak(
        self,
        texts: Sequence[str],
        *,
        language: str = "en",
        voice: Voice = None,
        consent: bool = False,
        watermark: bool = True,
        seed: int | None = None,
        decoding: DecodingConfig | None = None,
    ) -> list[TaskOutput]:
        """Say texts. See `run` for voice, consent, watermark and seed."""
        self.sound_parts()
        return self.run(
            TaskTag.of("TTS", language), texts, voice=voice, consent=consent, watermark=watermark, seed=seed,
            decoding=decoding,
        )  # fmt: skip

    def encode(self, audios: Sequence[AudioSource], *, piece_seconds: float | None = None) -> list[EncodedSpeech]:
        """Turn audio of any length into what `run` takes in its place, so that several tasks share the work.

        Args:
            audios: audio in any form.
            piece_seconds: longer audio is cut at pauses into pieces of at most this, or of what the model's context
                holds; None: `longest_piece_seconds`.
        """
        _check_list(audios)
        longest = min(piece_seconds or self.longest_piece_seconds, self._seconds_that_fit)
        pieces = [_pieces(load_audio(audio), longest, self.find_pauses) for audio in audios]
        segments = iter(self.processor.audio_segments(piece for found in pieces for piece, _ in found))
        return [EncodedSpeech(tuple(next(segments) for _ in found), tuple(s for _, s in found)) for found in pieces]

    def run(
        self,
        tag: TaskTag | str,
        inputs: Sequence[Input],
        *,
        voice: Voice = None,
        consent: bool = False,
        watermark: bool = True,
        seed: int | None = None,
        decoding: DecodingConfig | None = None,
        sound: bool = True,
    ) -> list[TaskOutput]:
        """Do one task on a list of inputs.

        Args:
            tag: the task, for example "[ASR AST English French]".
            inputs: texts for MT and TTS; else audio in any form, of any length (it is cut at pauses), or encoded.
            voice: some seconds of a voice to speak with, or a list with one voice for each input.
            consent: the statement that the speakers of `voice` agreed to its use.
            watermark: mark generated speech.
            seed: for sampling, of ids and of acoustic codes; in place of the one in `decoding`.
            decoding: in place of the system's own.
            sound: False: speech stays semantic codes.

        Raises:
            TaskError: an input is empty or of the wrong kind.
            UntrainedError: the model was not trained for the task, or not in this language.
            ConsentError: a voice without consent.
            CheckpointError: the checkpoint has no part for what is asked.
        """
        tag = TaskTag.parse(tag) if isinstance(tag, str) else tag
        if voice is not None:
            require_consent(consent, str(voice) if isinstance(voice, str | Path) else "the voice prompt")
        decoding = decoding or self.decoding
        if seed is not None:
            decoding = dataclasses.replace(decoding, seed=seed)
        prompts = self.prompts(tag, inputs)
        ids = [piece for p in prompts for piece in p.ids]
        if decoding.candidates is not None and self._hears_itself(tag):
            decoded = decode_best(self.decoder, tag, ids, [str(text) for text in inputs], decoding)
        else:
            decoded = self.decoder.decode(ids, [tag.output_modalities] * len(ids), decoding)
        written = iter(decoded)
        outputs = [join(tag, [next(written) for _ in p.ids], p.spans) for p in prompts]
        if not sound or "audio" not in tag.output_modalities or not self.can_speak:
            return outputs
        return self._with_speech(outputs, voice, watermark, decoding.seed)

    def prompts(self, tag: TaskTag, inputs: Sequence[Input]) -> list[Prompt]:
        """Return what the LM reads for each input of a task.

        Raises:
            TaskError: an input is empty or of the wrong kind.
            UntrainedError: the model was not trained for the task, or not in this language.
            CheckpointError: the checkpoint cannot read audio.
        """
        self.require_trained(tag)
        _check_list(inputs)
        if tag.source == "transcript":
            texts = [_checked_text(tag, number, text) for number, text in enumerate(inputs)]
            return [Prompt((ids,)) for ids in self.processor(tag, texts)]
        raw = [audio for audio in inputs if not isinstance(audio, EncodedSpeech)]
        new = iter(self.encode(raw) if raw else [])
        encoded = [audio if isinstance(audio, EncodedSpeech) else next(new) for audio in inputs]
        return [
            Prompt(tuple(self.processor.encode_prompt(tag.prompt(p.codes)) for p in speech.pieces), speech.spans)
            for speech in encoded
        ]

    @property
    def longest_piece_seconds(self) -> float:
        """Longest audio that is one piece: a little more than in training, if that is known; `encode` and `run` cut it.

        A model loses words of what is far longer than all that it has read.
        """
        trained = self.checkpoint.trained
        seconds = trained.longest_seconds if trained is not None else None
        longest = MAX_PIECE_SECONDS if seconds is None else max(LENGTH_SLACK * seconds, LEAST_PIECE_SECONDS)
        return min(longest, self._seconds_that_fit)

    @property
    def _seconds_that_fit(self) -> float:
        limit = self.decoder.max_positions
        return math.inf if limit is None else CONTEXT_SHARE * limit / self.decoder.frame_rate

    def _hears_itself(self, tag: TaskTag) -> bool:
        """Return whether candidates can be ranked: the text to be spoken is known, and the model can recognise it."""
        ear = recognition_tag(tag)
        return ear is not None and self.knows(ear)

    def _with_speech(
        self, outputs: list[TaskOutput], voice: Voice, watermark: bool, seed: int
    ) -> list[TaskOutput]:  # fmt: skip
        codes = [output.codes for output in outputs]
        audios = self.synthesize([np.zeros(0, np.int64) if c is None else c for c in codes], voice=voice, seed=seed)
        spoken = []
        for output, audio in zip(outputs, audios, strict=True):
            if audio.num_samples == 0:
                spoken.append(output)
            else:
                said = embed_watermark(audio) if watermark else audio
                spoken.append(dataclasses.replace(output, audio=said, is_watermarked=watermark))
        return spoken

    def synthesize(self, codes: Sequence[np.ndarray], *, voice: Voice = None, seed: int = 0) -> list[Audio]:
        """See `SpeechParts.synthesize`: semantic codes to speech, for measurements; `run` is the way to speak."""
        return self.parts.synthesize(codes, voice=voice, seed=seed)

    def voice_prompts(self, voice: Voice, count: int) -> Any:
        """See `SpeechParts.voice_prompts`: what a voice becomes before it is used."""
        return self.parts.voice_prompts(voice, count)

    def sound_parts(self) -> tuple[Any, Any]:
        """Return the acoustic model and the codec; CheckpointError if the checkpoint cannot speak."""
        return self.parts.sound_parts()

    def semantic_tokenizer(self) -> SemanticTokenizer:
        """Return what turns audio into semantic codes; CheckpointError if the checkpoint has none."""
        return self.parts.semantic_tokenizer()


def _pieces(audio: Audio, longest: float, find_pauses: PauseFinder) -> list[tuple[Audio, tuple[float, float]]]:
    """Return the utterances of a recording, each with its start and end in seconds."""
    rate = audio.sample_rate
    return [
        (Audio(audio.samples[start:stop], rate), (start / rate, stop / rate))
        for start, stop in find_utterances(audio, longest, find_pauses=find_pauses)
    ]


def _checked_text(tag: TaskTag, number: int, text: Input) -> str:
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{tag}: input {number} is {text!r}, expected a text")
    return text


def _check_list(inputs: Sequence[Input]) -> None:
    if isinstance(inputs, AUDIO_TYPES):
        raise TaskError(f"inputs are one {type(inputs).__name__}, expected a list of them")
