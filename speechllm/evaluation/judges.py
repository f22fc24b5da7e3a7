"""Judges: recognisers that write down what generated speech says, so that it can be scored.

    judges = make_judges(JudgeConfig(english="moonshine", whisper="openai/whisper-base"))
    judges.for_language("en").transcribe([audio], "en")       # ["good morning"]
    judges.for_language("fr").name                            # "whisper-base"

A judge should be another model than the one whose features became the tokens: `shares_tokens` says if it
is not, and the report repeats it. A language without a judge is reported as not judged, never as zero.
"""

import importlib.metadata
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.errors import AudioError, ConfigError, MissingDependencyError
from speechllm.pipelines.long_audio import split_at_silence
from speechllm.tasks import language_code, language_name

SAMPLE_RATE = 16_000
MIN_SECONDS = 0.1
WHISPER_SECONDS = 30.0
"Whisper hears this much at a time."


@runtime_checkable
class Judge(Protocol):
    """A recogniser."""

    name: str
    "Stands in signatures and reports."

    def speaks(self, language: str) -> bool:
        """Return whether it knows the language (an ISO code)."""
        ...

    def transcribe(self, audios: Sequence[AudioSource], language: str) -> list[str | None]:
        """Return what is said in each audio; None where that could not be found out (empty, broken, too short)."""
        ...


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Which recognisers judge generated speech."""

    english: Literal["moonshine", "whisper", "both", "none"] = "moonshine"
    """Judge for English. Moonshine tiny comes whole with the `eval` extra and has made no tokens. `both`: Moonshine,
    and Whisper as a second opinion, whose scores carry its name."""
    whisper: str | None = None
    "Whisper checkpoint (folder or Hub id) that judges the other languages; None: they are not judged."
    device: str = "cpu"
    "Where Whisper runs."


@dataclass(frozen=True)
class Judges:
    """The judge of each language."""

    english: Judge | None = None
    others: Judge | None = None
    second: Judge | None = None
    "Hears English once more."

    def for_language(self, language: str) -> Judge | None:
        """Return the judge for a language, or None."""
        judge = self.english if language_code(language) == "en" else self.others
        return judge if judge is not None and judge.speaks(language_code(language)) else None

    def all_for(self, language: str) -> list[Judge]:
        """Return the judge for a language, and behind it the second one, if there are any."""
        first = self.for_language(language)
        if first is None:
            return []
        return [first, self.second] if self.second is not None and language_code(language) == "en" else [first]

    def why_none(self, language: str) -> str:
        """Return the reason why a language has no judge."""
        if language_code(language) == "en":
            return "not judged: English has no judge; set judge.english"
        if self.others is None:
            return f"not judged: no recogniser for {language_name(language)} is at hand; set judge.whisper"
        return f"not judged: {self.others.name} does not know {language_name(language)}"


def make_judges(config: JudgeConfig) -> Judges:
    """Load the judges of a config.

    Raises:
        ConfigError: English is to be judged by a Whisper that is not named.
        MissingDependencyError: Moonshine is asked for and not installed.
    """
    if config.english in ("whisper", "both") and not config.whisper:
        raise ConfigError(
            f"judge.english is {config.english!r} and judge.whisper is empty; name the checkpoint in judge.whisper"
        )
    whisper = WhisperJudge(config.whisper, device=config.device) if config.whisper else None
    match config.english:
        case "moonshine":
            return Judges(MoonshineJudge(), whisper)
        case "whisper":
            return Judges(whisper, whisper)
        case "both":
            return Judges(MoonshineJudge(), whisper, second=whisper)
        case "none":
            return Judges(None, whisper)


def shares_tokens(judge: Judge, checkpoint: Any) -> bool:
    """Return whether the judge is of the model family whose features a checkpoint's semantic codes come from.

    Such scores are circular: what the tokens miss, the judge may miss as well.
    """
    tokenizer = getattr(getattr(checkpoint, "processor", None), "semantic_tokenizer", None)
    source = getattr(getattr(getattr(tokenizer, "feature_extractor", None), "config", None), "source", "")
    family = judge.name.split("-")[0].lower()
    return bool(source) and family in str(source).lower()


class MoonshineJudge:
    """Moonshine tiny (arXiv:2410.15608), English, from the PyPI package that carries its weights."""

    name = "moonshine-tiny-en"

    def __init__(self) -> None:
        try:
            from moonshine_voice.moonshine_api import ModelArch
            from moonshine_voice.transcriber import Transcriber
            from moonshine_voice.utils import get_model_path
        except ImportError as error:
            raise MissingDependencyError("moonshine-voice", "eval", "judging English speech") from error
        self._transcriber = Transcriber(get_model_path("tiny-en"), ModelArch.TINY)
        self._lock = threading.Lock()
        self.name = f"moonshine-tiny-en-{importlib.metadata.version('moonshine-voice')}"

    def speaks(self, language: str) -> bool:
        """Return True for English."""
        return language == "en"

    def transcribe(self, audios: Sequence[AudioSource], language: str) -> list[str | None]:
        """Return what is said; see `Judge`."""
        return [self._one(audio) for audio in audios]

    def _one(self, source: AudioSource) -> str | None:
        audio = _heard(source)
        if audio is None:
            return None
        with self._lock:
            transcript = self._transcriber.transcribe_without_streaming(audio.samples.tolist(), SAMPLE_RATE)
        return " ".join(line.text for line in transcript.lines).strip()


class WhisperJudge:
    """Any Whisper checkpoint, greedy, with the language given: it transcribes and never translates."""

    def __init__(self, source: str, *, device: str = "cpu", batch_size: int = 8):
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.name = _short_name(source)
        self._processor: Any = WhisperProcessor.from_pretrained(source)
        # float32: checkpoints are often float16, which a CPU cannot use here
        model = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
        self._model: Any = model.eval()
        self._model.to(device)
        self._model.generation_config.max_length = None  # the limit below counts, and two limits are warned about
        self._device, self._batch_size = device, batch_size
        known = getattr(self._model.generation_config, "lang_to_id", None) or {}
        self._languages = {code.strip("<|>") for code in known}

    def speaks(self, language: str) -> bool:
        """Return whether the checkpoint has the language; an English-only checkpoint lists none and has English."""
        return language in self._languages if self._languages else language == "en"

    def transcribe(self, audios: Sequence[AudioSource], language: str) -> list[str | None]:
        """Return what is said; audio beyond 30 s is cut at pauses. See `Judge`."""
        heard = [_heard(audio) for audio in audios]
        pieces = [
            (i, piece.samples)
            for i, audio in enumerate(heard)
            if audio is not None
            for piece in split_at_silence(audio, WHISPER_SECONDS)
        ]
        texts: list[list[str]] = [[] for _ in heard]
        for start in range(0, len(pieces), self._batch_size):
            batch = pieces[start : start + self._batch_size]
            said = self._generate([samples for _, samples in batch], language)
            for (i, _), text in zip(batch, said, strict=True):
                texts[i].append(text)
        return [
            None if audio is None else " ".join(filter(None, found)) for audio, found in zip(heard, texts, strict=True)
        ]

    def _generate(self, samples: list[np.ndarray], language: str) -> list[str]:
        import torch

        inputs = self._processor(
            samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True
        ).to(self._device)
        options = {"language": language, "task": "transcribe"} if self._languages else {}
        longest = max(len(s) for s in samples) / SAMPLE_RATE
        with torch.inference_mode():
            ids = self._model.generate(
                inputs.input_features,
                attention_mask=inputs.attention_mask,
                do_sample=False,
                num_beams=1,
                # nobody says more than about ten tokens a second: a guard against endless repetition
                max_new_tokens=min(440, 16 + int(10 * longest)),
                **options,
            )
        return [text.strip() for text in self._processor.batch_decode(ids, skip_special_tokens=True)]


def _heard(source: AudioSource) -> Audio | None:
    """Return the audio at 16 kHz without silence at its ends, None if nothing is left."""
    try:
        audio = load_audio(source, SAMPLE_RATE)
    except AudioError:
        return None
    # digital silence at the start makes Moonshine write "You"
    loud = np.flatnonzero(np.abs(audio.samples) > 1e-3 * max(float(np.abs(audio.samples).max()), 1e-3))
    if len(loud) == 0:
        return None
    margin = SAMPLE_RATE // 20
    samples = audio.samples[max(0, int(loud[0]) - margin) : int(loud[-1]) + margin]
    return Audio(samples, SAMPLE_RATE) if len(samples) >= MIN_SECONDS * SAMPLE_RATE else None


def _short_name(source: str) -> str:
    name = Path(source).name.lower()
    return name if "whisper" in name else f"whisper-{name}"
