"""Scores of generated speech: what a judge hears, beside its ceilings, and whose voice it is.

For each item four versions are judged, by the same judge and against the same text:

    generated | original speech | codec copy of the original | resynthesis of the original's semantic codes

The resynthesis has the voice prompts, the seed and the watermark of the generated speech: only the codes differ.
"""

import dataclasses
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch

from speechllm.audio import Audio, AudioSource, load_audio
from speechllm.errors import AudioError
from speechllm.evaluation.items import Item
from speechllm.evaluation.judges import Judge
from speechllm.evaluation.results import CODEC_COPY, MODEL, ORIGINAL, OTHERS, RESYNTHESIS
from speechllm.metrics.bootstrap import BootstrapConfig
from speechllm.metrics.normalise import make_normaliser
from speechllm.metrics.score import Score
from speechllm.metrics.speaker import SpeakerEmbedder, speaker_similarity
from speechllm.metrics.text import asr_bleu, error_rates_for
from speechllm.safety import embed_watermark
from speechllm.tasks import Field


@runtime_checkable
class System(Protocol):
    """What is evaluated; `pipelines.system.SpeechSystem` is one."""

    checkpoint: Any

    @property
    def can_speak(self) -> bool:
        """True if it can make sound."""
        ...

    def knows(self, tag: Any) -> bool:
        """Return whether it may be asked for a task; see `SpeechSystem.knows`."""
        ...

    def encode(self, audios: Any) -> list[Any]:
        """Turn recordings into inputs for `run`; see `SpeechSystem.encode`."""
        ...

    def run(
        self, tag: Any, inputs: Any, *, voice: Any = None, consent: bool = False, watermark: bool = True, seed: int = 0,
        decoding: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Do a task on inputs; see `SpeechSystem.run`."""
        ...

    def synthesize(self, codes: Any, *, voice: Any = None, seed: int = 0) -> list[Audio]:
        """Turn semantic codes into speech."""
        ...


@dataclass(frozen=True, eq=False)
class Voice:
    """A recording to speak like; `key` names it as `Item.audio_key` does."""

    key: str
    source: AudioSource

    @classmethod
    def of(cls, item: Item, name: Field) -> Self:
        """Return the voice of the recording in a field of an item."""
        return cls(item.audio_key(name), item.audios[name])


@dataclass
class Versions:
    """Makes and keeps the ceilings' audio and what judges heard: each recording is done once for all tasks.

    Resynthesis is done once for each voice.
    """

    system: System
    with_resynthesis: bool
    seed: int
    audios: dict[tuple[str, str], Audio | None] = field(default_factory=dict)
    heard: dict[tuple[str, str, str, str], str | None] = field(default_factory=dict)
    "By recording, version, voice ('' but for resynthesis) and judge."

    def names(self) -> list[str]:
        """Return the versions that can be made with this checkpoint."""
        names = [ORIGINAL]
        if self.system.can_speak:
            names.append(CODEC_COPY)
            if self.with_resynthesis and self.system.checkpoint.processor.semantic_tokenizer is not None:
                names.append(RESYNTHESIS)
        return names

    def audio(self, item: Item, name: Field, version: str) -> Audio | None:
        """Return the recording in a field or its codec copy; None if there is no recording."""
        if not item.has(name):
            return None
        key = (item.audio_key(name), version)
        if key not in self.audios:
            audio = load_audio(item.audios[name])
            self.audios[key] = codec_copy(audio, self.system.checkpoint.codec) if version == CODEC_COPY else audio
        return self.audios[key]

    def transcripts(
        self, items: Sequence[Item], name: Field, version: str, judge: Judge, language: str,
        voices: Sequence[Voice] | None = None,
    ) -> list[str | None]:  # fmt: skip
        """Return what the judge hears in one version of each item's recording; None if there is no recording.

        A recording in which nothing can be heard is None, a version made of it is "": as with generated speech.
        `voices` are those of resynthesis; None: a voice is drawn.
        """
        voices = voices if version == RESYNTHESIS else None
        keys = [
            (item.audio_key(name), version, voices[i].key if voices else "", judge.name) for i, item in enumerate(items)
        ]
        self.heard |= {key: None for key, item in zip(keys, items, strict=True) if not item.has(name)}
        missing = [i for i, key in enumerate(keys) if key not in self.heard]
        sources = [items[i] for i in missing]
        if version == RESYNTHESIS:
            audios = self._resynthesise(sources, name, [voices[i].source for i in missing] if voices else None)
        else:
            audios = [self.audio(item, name, version) for item in sources]
        judged = [(i, audio) for i, audio in zip(missing, audios, strict=True) if played(audio) is not None]
        texts = judge.transcribe([audio for _, audio in judged if audio is not None], language)
        self.heard |= {keys[i]: None if version == ORIGINAL else "" for i in missing}
        self.heard |= {keys[i]: text for (i, _), text in zip(judged, texts, strict=True) if text is not None}
        return [self.heard[key] for key in keys]

    def _resynthesise(
        self, items: Sequence[Item], name: Field, voices: Sequence[AudioSource] | None
    ) -> list[Audio]:  # fmt: skip
        """Return the recordings' semantic codes as speech, all in one call."""
        if not items:
            return []
        originals = [load_audio(item.audios[name]) for item in items]
        codes = self.system.checkpoint.processor.semantic_tokenizer.encode(originals)
        made = self.system.synthesize(codes, voice=voices, seed=self.seed)
        return [embed_watermark(audio) if audio.num_samples else audio for audio in made]


class RememberingEmbedder:
    """A speaker embedder that embeds each `Audio` object once, and forgets it with the object."""

    def __init__(self, embedder: SpeakerEmbedder):
        self._embedder = embedder
        self.name, self.signature = embedder.name, embedder.signature
        self._known: weakref.WeakKeyDictionary[Audio, np.ndarray] = weakref.WeakKeyDictionary()

    def embed(self, audio: Audio) -> np.ndarray:
        """Return the embedding [D]."""
        if audio not in self._known:
            self._known[audio] = self._embedder.embed(audio)
        return self._known[audio]


def codec_copy(audio: Audio, codec: Any) -> Audio:
    """Return the audio after encoding and decoding: the best that anything can sound through this codec."""
    samples = torch.from_numpy(audio.resampled(codec.sample_rate).samples)
    with torch.inference_mode():
        decoded = codec.decode(codec.encode(samples[None]))[0]
    return Audio(decoded.float().cpu().numpy()[: len(samples)], codec.sample_rate)


def speech_scores(
    references: Sequence[str], heard: Sequence[str | None], language: str, judge: str, is_translation: bool,
    bootstrap: BootstrapConfig,
) -> list[Score]:  # fmt: skip
    """Return CER and (where words are parted) WER, for translations ASR-BLEU first, of what a judge heard."""
    spoken = make_normaliser("spoken", language)
    metrics = reversed(error_rates_for(language))
    scores = [m.score(references, heard, normaliser=spoken, bootstrap=bootstrap) for m in metrics]
    scores = [dataclasses.replace(s, signature=f"{s.signature}|asr:{judge}") for s in scores]
    if is_translation:
        scores.insert(0, asr_bleu(references, heard, language=language, asr=judge, bootstrap=bootstrap))
    return scores


def choose_voices(items: Sequence[Item], name: Field) -> list[Voice] | None:
    """Return a voice prompt for each item: another recording in `name`, of the same speaker if there is one.

    None if there are fewer than two recordings.
    """
    recorded = [item for item in items if item.has(name)]
    if len(recorded) < 2:
        return None
    voices = []
    for i, item in enumerate(items):
        others = [o for o in recorded[i + 1 :] + recorded[: i + 1] if o is not item]
        same = [o for o in others if o.speakers.get(name) and o.speakers.get(name) == item.speakers.get(name)]
        voices.append(Voice.of((same or others)[0], name))
    return voices


def similarity_scores(
    embedder: SpeakerEmbedder,
    generated: Sequence[Audio | None],
    prompts: Sequence[AudioSource],
    pool: Sequence[Item],
    name: Field,
    versions: Versions,
    bootstrap: BootstrapConfig,
) -> dict[str, Score]:
    """Return the similarity of generated speech to its prompt, with ceiling and floor.

    The ceiling is the codec copy of another recording of the prompt's speaker, the floor a recording of somebody else.
    `pool` holds the recordings, in the field `name`, from which prompts, ceiling and floor are taken.
    """
    owners = [next((o for o in pool if o.audios.get(name) is prompt), None) for prompt in prompts]
    kept = [None if owner is None else versions.audio(owner, name, ORIGINAL) for owner in owners]
    voices = [load_audio(prompt) if audio is None else audio for prompt, audio in zip(prompts, kept, strict=True)]
    scores = {MODEL: speaker_similarity(embedder, generated, voices, bootstrap=bootstrap)}
    for system, same in ((CODEC_COPY, True), (OTHERS, False)):
        others = [_another(owner, pool, name, same) for owner in owners]
        version = CODEC_COPY if system == CODEC_COPY else ORIGINAL
        audios = [None if other is None else versions.audio(other, name, version) for other in others]
        scores[system] = speaker_similarity(embedder, audios, voices, bootstrap=bootstrap)
    return scores


def _another(owner: Item | None, pool: Sequence[Item], name: Field, same_speaker: bool) -> Item | None:
    if owner is None or not owner.speakers.get(name):
        return None
    speaker = owner.speakers[name]
    fitting = [o for o in pool if o is not owner and o.has(name) and o.speakers.get(name)]
    return next((o for o in fitting if (o.speakers[name] == speaker) == same_speaker), None)


def duration_of(source: AudioSource) -> float:
    """Return the seconds of a recording, 0 if it cannot be read."""
    try:
        return load_audio(source).duration_seconds
    except AudioError:
        return 0.0


def played(audio: Audio | None) -> Audio | None:
    """Return the audio if there is anything to hear."""
    return audio if audio is not None and audio.num_samples and bool(np.isfinite(audio.samples).all()) else None
