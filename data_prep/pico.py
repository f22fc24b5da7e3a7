"""An offline parallel speech corpus: sentences of a grammar, spoken by SVOX Pico in up to five languages.

    for record in records(languages=("en", "fr"), num_sentences=1400): ...
    Record(id="train-00000-0-en-fr", split="train", language="en", text="the bank is next to the park",
           audio=b"fLaC...", speaker="pico03", translation=Translation("fr", "la banque est à côté du parc", ...))

Pico has one voice per language (two for English). A pseudo-speaker is a pitch and a speed (and an English
accent), the same in all languages, so that speech-to-speech pairs keep their speaker. Splits: `train`,
`validation` and `test` share no sentence, in any language; `test_speakers` are the sentences of `test` in
pitches and speeds outside the training range. A record has one source side; train both directions with
`TokenRow.fields(reverse=True)`.

Everything is a function of the arguments: the same call gives the same bytes.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_prep.grammar import Sentence, sentences, split
from data_prep.pico_pool import SpeechRequest, speak_all
from speechllm.data.cards import CorpusCard
from speechllm.data.records import Record, Split, Translation
from speechllm.errors import DataError
from speechllm.tasks import language_code

VOICES: dict[str, tuple[str, ...]] = {
    "en": ("en-US", "en-GB"),
    "fr": ("fr-FR",),
    "de": ("de-DE",),
    "es": ("es-ES",),
    "it": ("it-IT",),
}
"Pico's voices by language; the speaker's accent chooses where there are two."
PITCH_RANGE, SPEED_RANGE = (0.82, 1.22), (0.84, 1.1)
"Where training speakers lie, as factors of the voice's own pitch and speed."


@dataclass(frozen=True)
class PseudoSpeaker:
    """One way to speak that is the same in every language."""

    name: str
    pitch: float
    speed: float
    accent: int = 0
    "Which of the voices of a language, where it has several."

    def request(self, text: str, language: str) -> SpeechRequest:
        """Return what Pico must be asked for."""
        voices = VOICES[language]
        return SpeechRequest(text, voices[self.accent % len(voices)], self.pitch, self.speed)


HELD_OUT_SPEAKERS = (
    PseudoSpeaker("pico-low-slow", 0.73, 0.81, 0),
    PseudoSpeaker("pico-high-fast", 1.36, 1.26, 1),
    PseudoSpeaker("pico-low-fast", 0.75, 1.25, 1),
    PseudoSpeaker("pico-high-slow", 1.38, 0.82, 0),
)
"Outside of both training ranges, and still easy to understand."


def training_speakers(num: int) -> tuple[PseudoSpeaker, ...]:
    """Return `num` pseudo-speakers spread evenly over the training ranges of pitch and speed."""
    if num < 1:
        raise DataError(f"num_speakers is {num}, expected at least 1")
    speakers = []
    for i in range(num):
        # Steps of 1 / g and 1 / g**2, g = 1.3247 (the plastic number), fill a square evenly for any num.
        pitch, speed = (0.5 + i / 1.324718) % 1, (0.5 + i / 1.324718**2) % 1
        speakers.append(
            PseudoSpeaker(f"pico{i:02d}", _between(PITCH_RANGE, pitch), _between(SPEED_RANGE, speed), accent=i % 2)
        )
    return tuple(speakers)


def records(
    languages: Sequence[str] = ("en", "fr"),
    num_sentences: int = 1400,
    num_validation: int = 150,
    num_test: int = 150,
    num_speakers: int = 12,
    takes: int = 1,
    seed: int = 0,
    num_workers: int | None = None,
) -> Iterator[Record]:
    """Yield the records of the corpus: train, validation, test, test_speakers.

    Args:
        languages: two or more; every pair of them, in this order, becomes a record of its own.
        num_sentences: training sentences.
        num_validation: sentences of `validation`.
        num_test: sentences of `test`, and again of `test_speakers`.
        num_speakers: training pseudo-speakers.
        takes: how many of them speak each training sentence.
        seed: of the choice of sentences and of who speaks them.
        num_workers: synthesis processes; the number of cores if None. It does not change the result.

    Raises:
        DataError: an unknown language, or more sentences than the grammar has.
        MissingDependencyError: py-nanotts or num2words is not installed.
    """
    codes = tuple(dict.fromkeys(language_code(language) for language in languages))
    if len(codes) < 2:
        raise DataError(f"languages are {tuple(languages)}, expected two different ones or more, for example en and fr")
    speakers = training_speakers(num_speakers)
    if not 1 <= takes <= num_speakers:
        raise DataError(f"takes is {takes}, expected 1 to num_speakers = {num_speakers}: no speaker says a thing twice")
    parts = split(sentences(codes, num_sentences + num_validation + num_test, seed), num_validation, num_test)
    rng = random.Random(seed)
    utterances = [
        *_utterances("train", parts.train, speakers, takes, rng),
        *_utterances("validation", parts.validation, speakers, 1, rng),
        *_utterances("test", parts.test, speakers, 1, rng),
        *_utterances("test_speakers", parts.test, HELD_OUT_SPEAKERS, 1, rng),
    ]
    requests = (u.speaker.request(text, code) for u in utterances for code, text in zip(codes, u.texts, strict=True))
    spoken = speak_all(requests, num_workers)
    for utterance in utterances:
        yield from _records(utterance, codes, list(itertools.islice(spoken, len(codes))))


def card() -> CorpusCard:
    """Return the facts of the corpus."""
    return CorpusCard(
        name="pico",
        title="Pico-spoken grammar",
        summary="Sentences of a small grammar in five languages, spoken by SVOX Pico on this machine: no download.",
        homepage="https://pypi.org/project/py-nanotts/",
        licence="Apache-2.0",
        licence_note="Of SVOX Pico; the sentences are this package's own",
        languages=tuple(sorted(VOICES)),
        tasks=("ASR", "AST", "S2ST", "TTS", "MT"),
        layout="none: it is made when it is read",
        example="languages='[en, fr]' num_sentences=1400",
        problems=(
            "One synthesiser's voices and some hundred words: it shows that every part works, no more",
            "Its translations were not checked by native speakers",
        ),
    )


@dataclass(frozen=True)
class _Utterance:
    """A sentence in all languages, said by one speaker."""

    id: str
    split: Split
    texts: tuple[str, ...]
    speaker: PseudoSpeaker


def _utterances(
    name: Split, items: Sequence[Sentence], speakers: Sequence[PseudoSpeaker], takes: int, rng: random.Random
) -> Iterator[_Utterance]:
    for i, sentence in enumerate(items):
        for take, speaker in enumerate(rng.sample(list(speakers), takes)):
            yield _Utterance(f"{name}-{i:05d}-{take}", name, sentence.texts, speaker)


def _records(utterance: _Utterance, codes: Sequence[str], audios: Sequence[bytes]) -> Iterator[Record]:
    sides = list(zip(codes, utterance.texts, audios, strict=True))
    name = utterance.speaker.name
    for (code, text, audio), (other, other_text, other_audio) in itertools.combinations(sides, 2):
        yield Record(
            id=f"{utterance.id}-{code}-{other}",
            split=utterance.split,
            language=code,
            text=text,
            audio=audio,
            speaker=name,
            label_source="synthetic",
            translation=Translation(other, other_text, other_audio, name, "synthetic"),
        )


def _between(limits: tuple[float, float], fraction: float) -> float:
    """Return a factor inside `limits`, evenly on a logarithmic scale."""
    low, high = limits
    return round(low * (high / low) ** fraction, 3)
