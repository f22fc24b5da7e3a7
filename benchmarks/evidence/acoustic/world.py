"""What the measurements share: models of a seed, English sentences with their voices, a judge and an ear for voices.

    world = World.load(seed=0, budget=budget, folders=folders)
    items = world.items("test", 50)                           # English sentences, each with a prompt of its speaker
    audios = world.speak(world.soundstorm, codes, voices)     # the same for AudioLM
    series = world.ears.errors(texts, audios)                 # rows (errors, characters), None where nothing is heard

A series has one row for each item, (part, whole), whose sums give the value: CER, a mean similarity, a rate.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import torch

from benchmarks.evidence.acoustic.plan import PROMPT_SECONDS, Budget, Folders
from benchmarks.measure import write_text
from speechllm.audio import Audio, load_audio
from speechllm.data.prepare import read_corpus
from speechllm.errors import AudioError
from speechllm.evaluation.judges import Judge, MoonshineJudge
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.generation.cascade import decode_codes
from speechllm.generation.voice import VoicePrompt, encode_voice
from speechllm.metrics.normalise import make_normaliser
from speechllm.metrics.speaker import MelPitchEmbedder, SpeakerEmbedder
from speechllm.metrics.text import CER
from speechllm.models.acoustic import AcousticModel
from speechllm.models.audiolm import AudioLM
from speechllm.models.soundstorm import SoundStorm
from speechllm.tokenizers.codec import Codec, load_codec
from speechllm.tokenizers.semantic import SemanticTokenizer

LANGUAGE = "en"
"The judge's."
Series: TypeAlias = list[tuple[float, float] | None]
"A (part, whole) of each item; None where it could not be measured."


@dataclass(frozen=True, eq=False)
class Item:
    """A spoken sentence."""

    text: str
    speaker: str
    audio: Audio
    voice: Audio
    "Other sentences of the same speaker, `PROMPT_SECONDS` of them."


class Ears:
    """A judge of words and an embedder of voices."""

    def __init__(self, judge: Judge, embedder: SpeakerEmbedder):
        self.judge, self.embedder = judge, embedder
        self._normalise = make_normaliser("spoken", LANGUAGE)

    def errors(self, texts: Sequence[str], audios: Sequence[Audio]) -> Series:
        """Return (errors, characters) of what the judge hears."""
        return self.errors_of(texts, self.judge.transcribe(audios, LANGUAGE))

    def errors_of(self, texts: Sequence[str], heard: Sequence[str | None]) -> Series:
        """Return (errors, characters) of transcripts."""
        return [
            None if found is None else _pair(CER.statistics(self._normalise(text), self._normalise(found)))
            for text, found in zip(texts, heard, strict=True)
        ]

    def similarities(self, audios: Sequence[Audio], voices: Sequence[Audio]) -> Series:
        """Return (cosine, 1) of each audio with its voice."""
        return [self._similarity(audio, voice) for audio, voice in zip(audios, voices, strict=True)]

    def _similarity(self, audio: Audio, voice: Audio) -> tuple[float, float] | None:
        try:
            return float(self.embedder.embed(audio) @ self.embedder.embed(voice)), 1.0
        except AudioError:
            return None


@dataclass(frozen=True, eq=False)
class World:
    """The models of a seed and what they are measured with."""

    seed: int
    budget: Budget
    folders: Folders
    tokenizer: SemanticTokenizer
    codec: Codec
    soundstorm: SoundStorm
    audiolm: AudioLM
    plain: AudioLM | None
    "A coarse stage without our additions, of the first levels alone."
    ears: Ears

    @classmethod
    def load(cls, seed: int, budget: Budget, folders: Folders) -> Self:
        """Load the models of a seed."""
        return cls(
            seed, budget, folders,
            SemanticTokenizer.from_pretrained(folders.semantic),
            load_codec(folders.codec(seed)),
            SoundStorm.from_pretrained(folders.soundstorm(seed)),
            AudioLM.from_pretrained(folders.audiolm(seed)),
            AudioLM.from_pretrained(folders.plain(seed)) if seed < budget.num_plain else None,
            Ears(MoonshineJudge(), MelPitchEmbedder()),
        )  # fmt: skip

    @property
    def models(self) -> dict[str, AcousticModel]:
        """Both acoustic models."""
        return {"AudioLM": self.audiolm, "SoundStorm": self.soundstorm}

    def items(self, split: str, count: int) -> list[Item]:
        """Return up to `count` English sentences of a split, spread over its speakers."""
        spoken = by_speaker(self.folders.corpus, split)
        turns = [
            (place, speaker) for speaker, sentences in spoken.items() for place in range(len(sentences))
        ]  # the first sentence of every speaker, then the second
        found = []
        for place, speaker in sorted(turns)[:count]:
            text, audio = spoken[speaker][place]
            # Whatever comes after it in the speaker's list, in a circle, and never the sentence itself.
            others = [*spoken[speaker][place + 1 :], *spoken[speaker][:place]] or [(text, audio)]
            voice = end_to_end([other for _, other in others], PROMPT_SECONDS)
            found.append(Item(text, speaker, audio, voice))
        return found

    def prompt(self, model: AcousticModel, voice: Audio) -> VoicePrompt:
        """Return a voice prompt for a model."""
        return encode_voice(voice, self.tokenizer, self.codec, model, seconds=PROMPT_SECONDS)

    def acoustic_of(self, audio: Audio) -> np.ndarray:
        """Return acoustic codes [K, T] of a recording."""
        with torch.no_grad():
            codes = self.codec.encode(torch.from_numpy(audio.resampled(self.codec.sample_rate).samples)[None])
        return codes[0].numpy()

    def copy(self, audio: Audio, num_levels: int | None = None) -> Audio:
        """Return what the codec keeps, of all its levels or of the first."""
        return self.decode([self.acoustic_of(audio)[:num_levels]])[0]

    def acoustic(
        self, model: AcousticModel, codes: Sequence[np.ndarray], voices: Sequence[VoicePrompt | None]
    ) -> list[np.ndarray]:
        """Return semantic codes as acoustic ones."""
        return acoustic_codes(model, codes, voices, AcousticDecoding(), seed=self.seed)

    def speak(
        self, model: AcousticModel, codes: Sequence[np.ndarray], voices: Sequence[VoicePrompt | None]
    ) -> list[Audio]:
        """Return semantic codes as sound."""
        return self.decode(self.acoustic(model, codes, voices))

    def decode(self, codes: Sequence[np.ndarray]) -> list[Audio]:
        """Return acoustic codes as sound. None of it leaves this experiment: it carries no watermark."""
        return decode_codes(codes, self.codec)


def by_speaker(corpus: Path, split: str) -> dict[str, list[tuple[str, Audio]]]:
    """Return the English (text, audio) of each speaker of a split."""
    found: dict[str, list[tuple[str, Audio]]] = {}
    for record in read_corpus(corpus, split):
        for side in (record, record.translation):
            if side is not None and side.language == LANGUAGE and side.audio is not None:
                found.setdefault(side.speaker or "", []).append((side.text, load_audio(side.audio)))
    return dict(sorted(found.items()))


def training_texts(folders: Folders) -> set[str]:
    """Return every sentence that anything was trained on."""
    return {
        text
        for record in read_corpus(folders.corpus, "train")
        for text in (record.text, record.translation.text if record.translation else record.text)
    }


def end_to_end(audios: Sequence[Audio], seconds: float) -> Audio:
    """Return audios one after another, from the start again if they are short, cut to `seconds`."""
    joined = np.concatenate([audio.samples for audio in audios])
    wanted = round(seconds * audios[0].sample_rate)
    copies = -(-wanted // len(joined))
    return Audio(np.tile(joined, copies)[:wanted], audios[0].sample_rate)


def save_series(path: Path, series: Mapping[str, Series], **notes: object) -> None:
    """Write a measurement, whole or not at all."""
    write_text(path, json.dumps({"series": series, "notes": notes}))


def _pair(values: np.ndarray) -> tuple[float, float]:
    part, whole = values.tolist()
    return part, whole
