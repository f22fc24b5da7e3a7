"""Filters run over a corpus on its way into shards: every decision is written down, so that none is made twice.

    corpus, report = prepare_filtered(lambda: mls.records("mls_french", "fr"), "runs/mls",
                                      make_filters(["duration=0.5:30", "duplicates"]))
    print(report)                    # 258,213 seen = 254,020 kept + 4,193 dropped (duration 4,100, duplicates 93); ...

    runs/mls/filter_decisions.jsonl      ["fr-1_2_3", "0e5f..."]      ["fr-1_2_4", "77aa...", "duration", "lasts 41 s"]
    runs/mls/filter_report.json          the counts, and examples of each reason

Records pass the filters in batches, in their order; a filter sees what the ones before it have kept. The decisions of a
batch are appended at once, so a run that was killed goes on behind the last whole batch: what was decided before is
read from the file, without decoding or recognising anything again, and shards come out as of an undisturbed run.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, TextIO

from speechllm.data.filters import NOT_JUDGED, Filter, WholeCorpusFilter, filter_name
from speechllm.data.prepare import CorpusReport, prepare_corpus
from speechllm.data.records import Record
from speechllm.errors import DataError

DECISIONS_FILE, REPORT_FILE = "filter_decisions.jsonl", "filter_report.json"
BATCH = 16
"Records that a filter sees at once."
NUM_EXAMPLES = 5


@dataclass
class Dropped:
    """What one filter has dropped."""

    spec: str
    "The filter, as it was asked for."
    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    "Id and reason of the first few."
    num_not_judged: int = 0
    "Records that passed because the filter could not judge them: no recogniser, no speaker, an unknown language."


@dataclass
class FilterReport:
    """Counts that add up: seen = kept + dropped, kept = stored + unusable."""

    seen: int = 0
    kept: int = 0
    dropped: list[Dropped] = field(default_factory=list)
    "By filter, in their order."
    stored: int = 0
    unusable: int = 0
    "Kept by the filters, and left out because the audio cannot be read."

    def __str__(self) -> str:
        """Return the report in one line."""
        parts = ", ".join(f"{part.spec} {part.count:,}" for part in self.dropped) or "no filters"
        unsure = ", ".join(f"{part.spec} {part.num_not_judged:,}" for part in self.dropped if part.num_not_judged)
        total = sum(part.count for part in self.dropped)
        return (
            f"{self.seen:,} seen = {self.kept:,} kept + {total:,} dropped ({parts}); "
            f"{self.kept:,} kept = {self.stored:,} stored + {self.unusable:,} unusable"
            + (f"; passed without a judgement: {unsure}" if unsure else "")
        )


def prepare_filtered(
    source: Callable[[], Iterable[Record]],
    folder: str | Path,
    filters: Sequence[Filter],
    *,
    records_per_shard: int = 256,
    sample_rate: int = 16_000,
    on_error: Literal["skip", "raise"] = "skip",
    progress: Callable[[int], None] | None = None,
) -> tuple[CorpusReport, FilterReport]:
    """Store the records that all filters keep, as `prepare_corpus` does, and write what was dropped beside them.

    Args:
        source: gives the same records in the same order on every call. It is called once more where a filter must know
            all of the corpus first (`duplicates`, `speakers`).
        folder: made if it is missing.
        filters: in the order in which they are asked; the cheap ones first.
        records_per_shard: see `prepare_corpus`, as for the following.
        sample_rate: of the stored audio, in Hz.
        on_error: leave records with unusable audio out, or stop at the first.
        progress: called with the number of records stored so far.

    Raises:
        DataError: the folder was begun with other filters or records, or as in `prepare_corpus`.
    """
    folder = Path(folder)
    report = FilterReport(dropped=[Dropped(filter.spec) for filter in filters])
    kept = _kept(source, _Decisions(folder, [filter.spec for filter in filters]), filters, report)
    corpus = prepare_corpus(
        kept,
        folder,
        records_per_shard=records_per_shard,
        sample_rate=sample_rate,
        on_error=on_error,
        progress=progress,
    )
    report.stored, report.unusable = sum(corpus.num_records.values()), len(corpus.failures)
    assert report.kept == report.stored + report.unusable, "prepare_corpus accounts for every record"
    _write(folder / REPORT_FILE, json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n")
    return corpus, report


def read_filter_report(folder: str | Path) -> FilterReport:
    """Return what `prepare_filtered` has written beside the shards.

    Raises:
        DataError: there is no report, or it is none of ours.
    """
    path = Path(folder) / REPORT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        dropped = [
            Dropped(**part | {"examples": [(id, reason) for id, reason in part["examples"]]})
            for part in content.pop("dropped")
        ]
        return FilterReport(**content, dropped=dropped)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is no report of filters: {error}") from error


@dataclass(frozen=True)
class _Verdict:
    """What was decided of one record."""

    id: str
    digest: str
    dropped_by: str | None = None
    "Name of a filter."
    reason: str = ""
    not_judged_by: Sequence[str] = ()
    "Names of filters that could not judge it."

    @property
    def line(self) -> str:
        content = [self.id, self.digest, self.dropped_by, self.reason, self.not_judged_by]
        # What is usual is left out.
        while not content[-1]:
            content.pop()
        return json.dumps(content, ensure_ascii=False) + "\n"


class _Decisions:
    """The file of decisions: what earlier runs have written, then what this one adds."""

    def __init__(self, folder: Path, specs: Sequence[str]) -> None:
        self.path = folder / DECISIONS_FILE
        self._header = json.dumps({"filters": list(specs), "batch": BATCH}) + "\n"
        self.is_finished = False
        self._start()

    def earlier(self) -> Iterator[_Verdict]:
        """Yield the decisions of earlier runs."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                content = json.loads(line)
                if isinstance(content, list):
                    yield _Verdict(*content)

    def appending(self) -> TextIO:
        """Open the file to add decisions."""
        return self.path.open("a", encoding="utf-8")

    def _start(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                if any(self.path.parent.glob("*.parquet")):
                    raise DataError(
                        f"{self.path.parent} was begun without filters; choose another folder, or delete it"
                    )
                _write(self.path, self._header)
            self._keep_whole_batches()
        except OSError as error:
            raise DataError(
                f"cannot write {self.path}: {error.strerror}; choose a folder that can be written"
            ) from error

    def _keep_whole_batches(self) -> None:
        """Cut off what a killed run left of a batch, so that batches are the same as in an undisturbed run."""
        with self.path.open("rb+") as file:
            header = file.readline().decode()
            if header != self._header:
                raise DataError(
                    f"{self.path.parent} was begun with other filters: {header.strip()}; give the same, choose another "
                    "folder, or delete this one"
                )
            whole, last = file.tell(), b""
            while batch := list(itertools.islice(file, BATCH)):
                last = batch[-1]
                if len(batch) < BATCH or not last.endswith(b"\n"):
                    break
                whole = file.tell()
            self.is_finished = last.startswith(b"{") and last.endswith(b"}\n")
            if not self.is_finished:
                file.truncate(whole)


def _kept(
    source: Callable[[], Iterable[Record]], decisions: _Decisions, filters: Sequence[Filter], report: FilterReport
) -> Iterator[Record]:
    """Yield the records that pass, counting all of them in `report`."""
    records = iter(source())
    yield from _replayed(records, decisions, filters, report)
    if decisions.is_finished:
        if (extra := next(records, None)) is not None:
            raise _other_records(decisions, extra.id)
        return
    _survey(source, filters)
    with decisions.appending() as file:
        while batch := list(itertools.islice(records, BATCH)):
            verdicts = _judge(batch, filters)
            # Before any of them reaches a shard: what stands there was decided once and for all.
            file.writelines(verdict.line for verdict in verdicts)
            file.flush()
            for record, verdict in zip(batch, verdicts, strict=True):
                _count(report, verdict)
                if verdict.dropped_by is None:
                    yield record
        file.write(json.dumps({"end": report.seen}) + "\n")


def _replayed(
    records: Iterator[Record], decisions: _Decisions, filters: Sequence[Filter], report: FilterReport
) -> Iterator[Record]:
    for verdict in decisions.earlier():
        record = next(records, None)
        if record is None or (record.id, record.digest[:16]) != (verdict.id, verdict.digest):
            raise _other_records(decisions, verdict.id)
        for filter in filters:
            if filter_name(filter.spec) == verdict.dropped_by:
                break
            if isinstance(filter, WholeCorpusFilter):
                filter.remember(record)
        _count(report, verdict)
        if verdict.dropped_by is None:
            yield record


def _survey(source: Callable[[], Iterable[Record]], filters: Sequence[Filter]) -> None:
    curious = [filter for filter in filters if isinstance(filter, WholeCorpusFilter)]
    if curious:
        for record in source():
            for filter in curious:
                filter.survey(record)


def _judge(batch: Sequence[Record], filters: Sequence[Filter]) -> list[_Verdict]:
    verdicts = [_Verdict(record.id, record.digest[:16]) for record in batch]
    for filter in filters:
        name = filter_name(filter.spec)
        left = [place for place, verdict in enumerate(verdicts) if verdict.dropped_by is None]
        for place, reason in zip(left, filter.reasons([batch[place] for place in left]), strict=True):
            if reason is NOT_JUDGED:
                verdicts[place] = replace(verdicts[place], not_judged_by=(*verdicts[place].not_judged_by, name))
            elif reason is not None:
                verdicts[place] = replace(verdicts[place], dropped_by=name, reason=reason)
    return verdicts


def _count(report: FilterReport, verdict: _Verdict) -> None:
    report.seen += 1
    report.kept += verdict.dropped_by is None
    for part in report.dropped:
        name = filter_name(part.spec)
        part.num_not_judged += name in verdict.not_judged_by
        if name == verdict.dropped_by:
            part.count += 1
            if len(part.examples) < NUM_EXAMPLES:
                part.examples.append((verdict.id, verdict.reason))


def _other_records(decisions: _Decisions, id: str) -> DataError:
    return DataError(
        f"{decisions.path.parent} was begun with other records (at {id!r}); choose another folder, or delete this one"
    )


def _write(path: Path, content: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror}") from error
