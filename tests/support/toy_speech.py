"""A toy world in which speech is a tone whose length tells the sentence, so that everything is known."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.segments import TextSegment
from speechllm.tasks import TaskTag

WORDS = {
    "en": ["the red house", "a small dog", "my old car", "two green apples", "good morning to you", "no more rain now"],
    "fr": ["la maison rouge", "un petit chien", "ma vieille voiture", "deux pommes", "bonjour à vous", "plus de pluie"],
}  # fmt: skip
STEP = 400


def tone(language: str, number: int) -> Audio:
    """Return the sentence: one second, and more by its number; the pitch tells the language."""
    t = np.arange(16_000 + STEP * number) / 16_000
    pitch = 220 if language == "en" else 440
    return Audio((0.3 * np.sin(2 * np.pi * pitch * t)).astype(np.float32), 16_000)


def number_of(audio: AudioSource) -> int:
    return round((load_audio(audio).num_samples - 16_000) / STEP)


@dataclass
class ToyJudge:
    """Hears every tone right; writes None for what has no sentence."""

    language: str
    name: str = "toy-judge"
    calls: list[int] = field(default_factory=list)

    def speaks(self, language: str) -> bool:
        return language == self.language

    def transcribe(self, audios: Sequence[AudioSource], language: str) -> list[str | None]:
        self.calls.append(len(audios))
        sentences = WORDS[language]
        return [sentences[n] if 0 <= (n := number_of(audio)) < len(sentences) else None for audio in audios]


class ToyCodec:
    sample_rate, frame_rate, num_codebooks, codebook_size, bitrate_kbps = 16_000, 16_000.0, 1, 2001, 16.0
    fingerprint = "toy"

    def encode(self, waveforms: Float[Tensor, "B S"]) -> Int[Tensor, "B 1 S"]:
        return (waveforms * 1000).round().long()[:, None] + 1000

    def decode(self, codes: Int[Tensor, "B 1 S"]) -> Float[Tensor, "B S"]:
        return (codes[:, 0] - 1000) / 1000

    def to(self, device: str) -> Any:
        return self


class ToySystem:
    """Right on all even sentences; on odd ones it drops the last word, and makes no sound."""

    def __init__(self, can_speak: bool = True):
        tokenizer = SimpleNamespace(encode=lambda audios: [np.array([number_of(a)]) for a in audios])
        processor = SimpleNamespace(semantic_tokenizer=tokenizer)
        self.checkpoint = SimpleNamespace(processor=processor, codec=ToyCodec(), model=torch.nn.Linear(2, 2))
        self.can_speak = can_speak
        self.calls: list[tuple[str, int, bool]] = []

    def encode(self, audios: Any) -> list[Any]:
        return list(audios)

    def run(
        self, tag: TaskTag, inputs: Any, *, voice: Any = None, consent: bool = False, watermark: bool = True,
        seed: int = 0, decoding: Any = None,
    ) -> list[Any]:  # fmt: skip
        self.calls.append((str(tag), len(inputs), consent))
        return [self._one(tag, source) for source in inputs]

    def _one(self, tag: TaskTag, source: AudioSource) -> Any:
        number = WORDS[tag.source_language].index(source) if isinstance(source, str) else number_of(source)
        texts, audio = {}, None
        for name in tag.targets:
            language = tag.output_language(name)
            sentence = WORDS[language][number]
            if name in ("transcript", "translation"):
                texts[name] = sentence if number % 2 == 0 else " ".join(sentence.split()[:-1])
            elif self.can_speak and number % 2 == 0:
                audio = tone(language, number)
        decoded = SimpleNamespace(ids=np.zeros(5, np.int64), segments=[TextSegment("x")], stop_reason="eos", score=0.0)
        return SimpleNamespace(tag=tag, texts=texts, audio=audio, decoded=(decoded,))

    def knows(self, tag: Any) -> bool:
        return True

    def synthesize(self, codes: Any, *, voice: Any = None, seed: int = 0) -> list[Audio]:
        return [tone("en", int(c[0])) for c in codes]
