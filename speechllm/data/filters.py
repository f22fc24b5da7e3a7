"""Filters: why a record should not be learnt from. Each says what is wrong with a record, or nothing.

    filters = make_filters(["duration=0.5:30", "pace=3:25", "language", "duplicates", "speakers", "cer=30"], judge_of)
    filters[0].reasons(records)                   # [None, "fr audio lasts 41.2 s, expected 0.5 to 30 s", None]

| spec | drops a record |
|---|---|
| `duration=0.5:30` | if the speech of either side is shorter or longer, in seconds |
| `pace=3:25` | if either side has fewer or more characters of text per second of speech |
| `cer=30` | if what a recogniser hears on either side differs from the text in more percent of the characters |
| `language=0.5` | if the text of either side is in another language, with at least that probability (py3langid) |
| `duplicates` | if the same texts and audio, byte for byte, came before, or are held out |
| `speakers` | for training whose speaker is also in a held-out split |

A side without speech or without text passes what would need them. `data/filtering.py` runs filters over a corpus.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from speechllm.audio import AudioSource
from speechllm.data.records import Record, Translation
from speechllm.errors import ConfigError, MissingDependencyError
from speechllm.metrics.normalise import make_normaliser
from speechllm.metrics.text import CER
from speechllm.registry import suggest

Side: TypeAlias = Record | Translation
HELD_OUT = ("validation", "dev", "test", "tst")
"How splits begin that are not trained on."


class NotJudged(Enum):
    """What a filter says of a record that it lets pass because it cannot judge it."""

    NOT_JUDGED = "not judged"


NOT_JUDGED = NotJudged.NOT_JUDGED
Reason: TypeAlias = str | NotJudged | None
"What is wrong with a record; None if nothing."


@runtime_checkable
class Filter(Protocol):
    """One kind of reason to drop records."""

    spec: str
    "What it was made from: name, or name=value."

    def reasons(self, records: Sequence[Record]) -> list[Reason]:
        """Return what is wrong with each record."""
        ...


@runtime_checkable
class WholeCorpusFilter(Protocol):
    """What a filter has besides if one record is judged by others."""

    def survey(self, record: Record) -> None:
        """See a record of the corpus, before any is judged."""
        ...

    def remember(self, record: Record) -> None:
        """Know a record that an earlier run has let pass."""
        ...


@runtime_checkable
class Judge(Protocol):
    """A recogniser that writes down what it hears."""

    def transcribe(self, audios: Sequence[AudioSource], language: str) -> list[str | None]:
        """Return what is said in each audio; None where that could not be found out."""
        ...


JudgeOf: TypeAlias = Callable[[str], Judge | None]
"From an ISO code to the judge of that language; None if there is none."


class DurationFilter:
    """Speech within limits."""

    def __init__(self, value: str) -> None:
        self.spec = f"duration={value}"
        self.low, self.high = _limits("duration", value)

    def reasons(self, records: Sequence[Record]) -> list[Reason]:
        """Return the duration that lies outside; see `Filter`."""
        return [_first(record, self._reason) for record in records]

    def _reason(self, side: Side) -> str | None:
        seconds = _seconds(side)
        if seconds is None or self.low <= seconds <= self.high:
            return None
        return f"{side.language} audio lasts {seconds:.1f} s, expected {self.low:g} to {self.high:g} s"


class PaceFilter:
    """Characters of text per second of speech within limits: against cut audio, cut text, and noise."""

    def __init__(self, value: str) -> None:
        self.spec = f"pace={value}"
        self.low, self.high = _limits("pace", value)

    def reasons(self, records: Sequence[Record]) -> list[Reason]:
        """Return the pace that lies outside; see `Filter`."""
        return [_first(record, self._reason) for record in records]

    def _reason(self, side: Side) -> str | None:
        seconds = _seconds(side)
        if not seconds or not side.text:
            return None
        pace = len(" ".join(side.text.split())) / seconds
        if self.low <= pace <= self.high:
            return None
        return f"{side.language} has {pace:.1f} characters a second, expected {self.low:g} to {self.high:g}"


class CerFilter:
    """Text that is what a recogniser hears. Languages without a judge pass and are counted."""

    def __init__(self, value: str, judge_of: JudgeOf) -> None:
        self.spec = f"cer={value}"
        self.highest = _number("cer", value)
        self._judge_of = judge_of

    def reasons(self, records: Sequence[Record]) -> list[Reason]:
        """Return the error rate that is too high; each language of the batch is heard at once. See `Filter`."""
        found: list[Reason] = [None] * len(records)
        by_language: dict[str, list[tuple[int, Side]]] = {}
        for place, record in enumerate(records):
            for side in _sides(record):
                if side.audio is not None and side.text:
                    by_language.setdefault(side.language, []).append((place, side))
        for language, sides in by_language.items():
            judge = self._judge_of(language)
            if judge is None:
                for place, _ in sides:
                    found[place] = found[place] or NOT_JUDGED
                continue
            heard = judge.transcribe([side.audio for _, side in sides if side.audio is not None], language)
            for (place, side), text in zip(sides, heard, strict=True):
                found[place] = _worse(found[place], self._reason(side, text))
        return found

    def _reason(self, side: Side, heard: str | None) -> str | None:
        normalise = make_normaliser("basic", side.language)
        expected = normalise(side.text)
        if not expected:
            return None
        if heard is None:
            return f"{side.language} has a text, and nothing could be heard"
        rate = CER.corpus([(expected, normalise(heard))])
        return None if rate <= self.highest else f"{side.language} CER {rate:.0f}, expected at most {self.highest:g}"


class LanguageFilter:
    """Text in the language that the record says. Languages that py3langid does not know pass and are counted."""

    def __init__(self, value: str = "0.5") -> None:
        self.spec = f"language={value}"
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise MissingDependencyError("py3langid", "corpora", "telling languages apart") from error
        self.lowest = _number("language", value)
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._known = set(self._identifier.labels)

    def reasons(self, records: Sequence[Record]) -> list[Reason]:
        """Return the language that a text is in; see `Filter`."""
        return [_first(record, self._reason) for record in records]

    def _reason(self, side: Side) -> Reason:
        if not side.text:
            return None
        if side.language not in self._known:
            return NOT_JUDGED
        language, probability = self._identifier.classify(side.text)
        if language == side.language or probability < self.lowest:
            return None
        return f"{side.language} text looks like {language} (probability {probability:.2f})"


class DuplicateFilter:
    """No record twice, and none for training that is held out; 16 bytes of memory a record."""

    def __init__(self) -> None:
        self.spec = "duplicates"
        self._held_out: set[bytes] = set()
        self._seen: set[bytes] = set()

    def survey(self, record: Record) -> None:
        """Know what is held out."""
        if is_held_out(record.split):
            self._held_out.add(_content(record))

    def reasons(self, records: Sequence[Record]) -> list[Reason]:
        """Return why a record is one too many; see `Filter`."""
        return [self._reason(record) for record in records]

    def _reason(self, record: Record) -> str | None:
        content = _content(record)
        if content in self._seen:
            return "the same texts and audio came before"
        if content in self._held_out and not is_held_out(record.split):
            return "the same texts and audio are held out"
        self._seen.add(content)
        return None

    def remember(self, record: Record) -> None:
        """Know a record of an earlier run."""
        self._seen.add(_content(record))


class SpeakerFilter:
    """Nobody who is heard in a held-out split is heard in training. Records without a speaker pass and are counted."""

    def __init__(self) -> None:
        self.spec = "speakers"
        self._held_out: dict[str, str] = {}

    def survey(self, record: Record) -> None:
        """Know who is held out; of a pair the source side counts, as one synthetic voice may speak all the other."""
        if record.speaker and is_held_out(record.split):
            self._held_out.setdefault(record.speaker, record.split)

    def remember(self, record: Record) -> None:
        """Learn nothing: who is held out is known by the survey."""

    def reasons(self, records: Sequence[Record]) -> list[Reason]:
        """Return who is in two splits; see `Filter`."""
        return [self._reason(record) for record in records]

    def _reason(self, record: Record) -> Reason:
        if is_held_out(record.split):
            return None
        if not record.speaker:
            return NOT_JUDGED
        split = self._held_out.get(record.speaker)
        return None if split is None else f"speaker {record.speaker} is also in {split}"


def make_filters(specs: Sequence[str], judge_of: JudgeOf | None = None) -> list[Filter]:
    """Return filters for specs such as "duration=0.5:30", in their order; `cer` needs `judge_of`.

    Raises:
        ConfigError: a spec is unknown, comes twice or has no fitting value, or nobody judges.
        MissingDependencyError: a filter needs a package that is not installed.
    """
    filters = [_make(spec, judge_of) for spec in specs]
    names = [filter_name(filter.spec) for filter in filters]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"filter {name} is given twice; give it once")
    return filters


def filter_name(spec: str) -> str:
    """Return the name in a spec: "duration=0.5:30" -> "duration"."""
    return spec.partition("=")[0]


def is_held_out(split: str) -> bool:
    """Return whether a split is for validation or test, by its name."""
    return split.startswith(HELD_OUT)


def _make(spec: str, judge_of: JudgeOf | None) -> Filter:
    name, _, value = spec.partition("=")
    match name:
        case "duration":
            return DurationFilter(value)
        case "pace":
            return PaceFilter(value)
        case "cer":
            if judge_of is None:
                raise ConfigError("the filter cer needs a recogniser to judge by, and none is given")
            return CerFilter(value, judge_of)
        case "language":
            return LanguageFilter(value or "0.5")
        case "duplicates" | "speakers" if value:
            raise ConfigError(f"the filter {name} has no value, given: {spec}")
        case "duplicates":
            return DuplicateFilter()
        case "speakers":
            return SpeakerFilter()
    known = ("duration", "pace", "cer", "language", "duplicates", "speakers")
    raise ConfigError(f"unknown filter {name!r}{suggest(name, known)} (known: {', '.join(known)})")


def _limits(name: str, value: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in value.split(":"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high:
        raise ConfigError(f"filter {name}={value}, expected two numbers, lowest:highest, for example {name}=0.5:30")
    return low, high


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not number >= 0:
        raise ConfigError(f"filter {name}={value}, expected a number of 0 or more, for example {name}=0.5")
    return number


def _sides(record: Record) -> Iterator[Side]:
    yield record
    if record.translation is not None:
        yield record.translation


def _first(record: Record, reason: Callable[[Side], Reason]) -> Reason:
    """Return what is wrong with either side, of the first that has something."""
    return reduce(_worse, (reason(side) for side in _sides(record)), None)


def _worse(one: Reason, other: Reason) -> Reason:
    """Return a reason to drop before a doubt before nothing; of two alike the first."""
    return other if one is None or (one is NOT_JUDGED and other is not None) else one


def _seconds(side: Side) -> float | None:
    """Return the duration by the file's header; None where there is no audio that can be read."""
    import soundfile

    try:
        if side.audio is None:
            return None
        info = soundfile.info(io.BytesIO(side.audio) if isinstance(side.audio, bytes) else str(side.audio))
    except (soundfile.LibsndfileError, OSError):
        return None
    return info.frames / info.samplerate


def _content(record: Record) -> bytes:
    """Return a digest of texts, languages and the bytes of the audio on both sides."""
    digest = sha256()
    for side in _sides(record):
        for part in (side.language.encode(), side.text.encode(), _bytes(side.audio)):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()[:16]


def _bytes(audio: bytes | Path | None) -> bytes:
    if not isinstance(audio, Path):
        return audio or b""
    try:
        return audio.read_bytes()
    except OSError:
        # What is not there is told apart by its name; `prepare_corpus` reports it.
        return str(audio).encode()
