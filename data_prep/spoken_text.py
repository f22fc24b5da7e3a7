"""Open text, spoken by SVOX Pico: any text file, or parallel files with one sentence a line, becomes a corpus.

    for record in records({"en": "train.en.gz", "fr": "train.fr.gz"}, num_sentences=2000, max_words=11): ...
    Record(id="train-00000-en-fr", split="train", language="en", text="a boy sits on a bench", audio=b"fLaC...",
           speaker="pico03", translation=Translation("fr", "un garçon est assis sur un banc", ...))

Where data_prep.pico speaks a closed grammar, this speaks what people wrote: captions, books, subtitles, with the same
pseudo-speakers. The voice reads each line as it stands; the label is its spoken form (lower case, numbers as words,
no punctuation), or with `plain=False` the line itself. No sentence stands in two splits, in any language;
`test_speakers` are the sentences of `test` by speakers outside the training range.

The text is the caller's own and so is its licence: Multi30k, for one, is for research use. Everything is a function
of the files and the arguments: the same call gives the same bytes.
"""

import gzip
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.pico import HELD_OUT_SPEAKERS, VOICES, PseudoSpeaker, training_speakers
from data_prep.pico_pool import speak_all
from data_prep.spoken_form import spoken_form
from speechllm.data.records import Record, Split, Translation
from speechllm.errors import DataError
from speechllm.tasks import language_code


def records(
    sources: Mapping[str, str | Path],
    num_sentences: int = 2000,
    num_held_out: int = 100,
    min_words: int = 2,
    max_words: int = 20,
    num_speakers: int = 12,
    seed: int = 0,
    plain: bool = True,
) -> Iterator[Record]:
    """Yield the records of the corpus: train, validation, test, test_speakers.

    Args:
        sources: file (plain or .gz, UTF-8, one sentence a line) by language. Several are parallel: line n of each says
            the same; every pair of them, in this order, becomes a record. One alone gives records without translation.
        num_sentences: training sentences.
        num_held_out: sentences of `validation`, of `test`, and again of `test_speakers`.
        min_words: shortest sentence that is used, in any language.
        max_words: longest sentence that is used, in every language.
        num_speakers: training pseudo-speakers.
        seed: of the choice of sentences and of who speaks them.
        plain: labels in spoken form. Otherwise as written, runs of blanks made one.

    Raises:
        DataError: a file cannot be read, files are not parallel, a language has no voice, or the text is too little.
        MissingDependencyError: py-nanotts or num2words is not installed.
    """
    files = {language_code(language): Path(path) for language, path in sources.items()}
    for code in files:
        if code not in VOICES:
            raise DataError(f"Pico has no voice for {code!r}; it speaks {', '.join(VOICES)}")
    rng = random.Random(seed)
    lines = _choose(files, num_sentences + 2 * num_held_out, (min_words, max_words), rng)
    test, rest = lines[:num_held_out], lines[num_held_out:]
    speakers = training_speakers(num_speakers)
    utterances = [
        *_utterances("train", rest[num_held_out:], speakers, rng),
        *_utterances("validation", rest[:num_held_out], speakers, rng),
        *_utterances("test", test, speakers, rng),
        *_utterances("test_speakers", test, HELD_OUT_SPEAKERS, rng),
    ]
    codes = tuple(files)
    requests = (u.speaker.request(text, code) for u in utterances for code, text in zip(codes, u.texts, strict=True))
    spoken = speak_all(requests)
    for utterance in utterances:
        yield from _records(utterance, codes, list(itertools.islice(spoken, len(codes))), plain)


@dataclass(frozen=True)
class _Utterance:
    """A sentence as written in each language, said by one speaker."""

    id: str
    split: Split
    texts: tuple[str, ...]
    speaker: PseudoSpeaker


def _choose(files: Mapping[str, Path], num: int, limits: tuple[int, int], rng: random.Random) -> list[tuple[str, ...]]:
    """Return `num` lines whose spoken forms differ from one another in every language, in random order."""
    parallel = read_parallel(files)
    rng.shuffle(parallel)
    low, high = limits
    seen: list[set[str]] = [set() for _ in files]
    chosen: list[tuple[str, ...]] = []
    for texts in parallel:
        spoken = [spoken_form(text, code) for text, code in zip(texts, files, strict=True)]
        fits = all(low <= len(text.split()) <= high for text in spoken)
        if fits and not any(text in known for text, known in zip(spoken, seen, strict=True)):
            for text, known in zip(spoken, seen, strict=True):
                known.add(text)
            chosen.append(texts)
            if len(chosen) == num:
                return chosen
    raise DataError(
        f"the text has {len(chosen)} different sentences of {low} to {high} words, {num} are asked for; "
        "lower num_sentences, widen min_words and max_words, or give more text"
    )


def read_parallel(files: Mapping[str, Path]) -> list[tuple[str, ...]]:
    """Return the lines of files that are parallel: a text of each, in their order.

    Raises:
        DataError: there is no file, one cannot be read, or they have not equally many lines.
    """
    if not files:
        raise DataError("sources is empty, expected a file by language, for example {en: train.en.gz}")
    columns = [read_lines(path) for path in files.values()]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{path} {len(column)}" for path, column in zip(files.values(), columns, strict=True))
        raise DataError(f"parallel files must have equally many lines, one sentence each; given: {counts}")
    return list(zip(*columns, strict=True))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, plain or .gz, runs of blanks made one.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        # Not splitlines(): it also splits at separators inside a line, and parallel files would lose step.
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {error}; expected UTF-8 text, plain or .gz, one sentence a line"
        ) from error
    return [" ".join(line.split()) for line in lines]


def _utterances(
    name: Split, lines: Sequence[tuple[str, ...]], speakers: Sequence[PseudoSpeaker], rng: random.Random
) -> Iterator[_Utterance]:
    for i, texts in enumerate(lines):
        yield _Utterance(f"{name}-{i:05d}", name, texts, rng.choice(list(speakers)))


def _records(utterance: _Utterance, codes: Sequence[str], audios: Sequence[bytes], plain: bool) -> Iterator[Record]:
    name, split = utterance.speaker.name, utterance.split
    texts = [spoken_form(text, code) if plain else text for text, code in zip(utterance.texts, codes, strict=True)]
    sides = list(zip(codes, texts, audios, strict=True))
    if len(sides) == 1:
        ((code, text, audio),) = sides
        yield Record(f"{utterance.id}-{code}", split, code, text, audio, name, "synthetic")
    for (code, text, audio), (other, other_text, other_audio) in itertools.combinations(sides, 2):
        translation = Translation(other, other_text, other_audio, name, "synthetic")
        id = f"{utterance.id}-{code}-{other}"
        yield Record(id, split, code, text, audio, name, "synthetic", translation)
