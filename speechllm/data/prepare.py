"""Records on disk: parquet shards with every utterance as 16-bit FLAC at one sample rate.

    report = prepare_corpus(records, "corpus/", records_per_shard=256)
    report.num_records, report.hours, report.failures
    for record in read_corpus("corpus/", "train"): ...

The files are plain parquet with the columns of a Record; `audio` and `translation_audio` are structs of
bytes and path, which `datasets` takes as they are or cast with `Audio(decode=False)`. A record whose audio
cannot be used is left out, counted, and reported with the reason.
"""

import io
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import soundfile

from speechllm.audio import AudioSource, encode_flac, load_audio
from speechllm.data.records import Record, Translation
from speechllm.data.shards import Converted, Failure, Manifest, ShardLayout, read_manifest, read_shards, write_shards
from speechllm.errors import AudioError, DataError

KIND = "records"
_AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SIDE = [("language", pa.string()), ("text", pa.string()), ("audio", _AUDIO), ("speaker", pa.string())]
_SIDE += [("label_source", pa.string())]
SCHEMA = pa.schema(
    [("id", pa.string()), ("split", pa.string()), *_SIDE, *((f"translation_{name}", kind) for name, kind in _SIDE)]
)
"The columns; `translation_language` is null where a record has no parallel side."


@dataclass(frozen=True)
class CorpusReport:
    """What is in a prepared corpus."""

    folder: Path
    num_records: dict[str, int]
    "By split."
    hours: dict[str, float]
    "Speech by language."
    failures: tuple[Failure, ...]
    "Records that were left out, with the reason."

    def __str__(self) -> str:
        """Return the report in one line."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.num_records.items())
        hours = ", ".join(f"{language} {value:.2f} h" for language, value in self.hours.items())
        return f"{self.folder}: {splits} records; {hours}; {len(self.failures)} left out"


def prepare_corpus(
    records: Iterable[Record],
    folder: str | Path,
    *,
    records_per_shard: int = 256,
    sample_rate: int = 16_000,
    on_error: Literal["skip", "raise"] = "skip",
    progress: Callable[[int], None] | None = None,
) -> CorpusReport:
    """Store records as shards, or go on where a killed run stopped; the result is the same to the bit.

    Args:
        records: the same records in the same order on every call.
        folder: made if it is missing.
        records_per_shard: records of one file; they are in memory at once.
        sample_rate: of the stored audio, in Hz.
        on_error: leave records with unusable audio out and report them, or stop at the first.
        progress: called with the number of records done so far.

    Raises:
        DataError: an id comes twice, the folder holds another corpus or cannot be written, or, with "raise", audio
            cannot be used.
    """
    layout = ShardLayout[Record](
        kind=KIND,
        schema=SCHEMA,
        fingerprint=f"flac-{sample_rate}",
        items_per_shard=records_per_shard,
        details={"sample_rate": sample_rate},
        split_of=lambda record: record.split,
        key_of=lambda record: record.digest,
        convert=lambda shard: _convert(shard, sample_rate, on_error),
    )
    return _report(Path(folder), write_shards(_distinct(records), folder, layout, progress))


def read_corpus(folder: str | Path, split: str | None = None) -> Iterator[Record]:
    """Stream the records of one split, or of all of them.

    Raises:
        DataError: the folder is no finished corpus, has no such split, or a file in it was changed.
    """
    manifest = read_manifest(folder, KIND)
    for row in read_shards(folder, manifest, split):
        yield record_of(row)


def record_of(row: dict[str, Any]) -> Record:
    """Return the record of a row of a corpus."""
    translation = None
    if row["translation_language"] is not None:
        translation = Translation(**_side(row, "translation_"))
    return Record(id=row["id"], split=row["split"], **_side(row, ""), translation=translation)


def corpus_report(folder: str | Path) -> CorpusReport:
    """Return what `prepare_corpus` returned when it made the folder."""
    return _report(Path(folder), read_manifest(folder, KIND))


def _report(folder: Path, manifest: Manifest) -> CorpusReport:
    hours = {language: seconds / 3600 for language, seconds in manifest.duration_seconds.items()}
    return CorpusReport(folder, manifest.num_rows, hours, manifest.failures)


def _distinct(records: Iterable[Record]) -> Iterator[Record]:
    # The ids of a large corpus are gigabytes: they go into a database whose file ends with it.
    with closing(sqlite3.connect("", check_same_thread=False)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        for record in records:
            try:
                database.execute("INSERT INTO seen VALUES (?)", (record.id,))
            except sqlite3.IntegrityError:
                raise DataError(f"record id {record.id!r} comes twice; give each record an id of its own") from None
            yield record


def _convert(records: Sequence[Record], sample_rate: int, on_error: str) -> Converted:
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    seconds: dict[str, float] = {}
    for record in records:
        try:
            row, durations = _row(record, sample_rate)
        except AudioError as error:
            if on_error == "raise":
                raise DataError(f"record {record.id!r}: {error}") from error
            failures.append(Failure(record.id, str(error)))
            continue
        rows.append(row)
        for language, duration in durations:
            seconds[language] = seconds.get(language, 0.0) + duration
    return Converted(rows, seconds, tuple(failures))


def _row(record: Record, sample_rate: int) -> tuple[dict[str, Any], list[tuple[str, float]]]:
    row: dict[str, Any] = {"id": record.id, "split": record.split}
    durations: list[tuple[str, float]] = []
    for prefix, side in (("", record), ("translation_", record.translation)):
        for name in ("language", "text", "speaker", "label_source"):
            row[prefix + name] = None if side is None else getattr(side, name)
        row[f"{prefix}audio"] = None
        if side is not None and side.audio is not None:
            content, duration = _flac(side.audio, sample_rate)
            row[f"{prefix}audio"] = {
                "bytes": content,
                "path": f"{record.id}{'-' + side.language if prefix else ''}.flac",
            }
            durations.append((side.language, duration))
    return row, durations


def _flac(source: AudioSource, sample_rate: int) -> tuple[bytes, float]:
    """Return FLAC bytes and duration; what is FLAC of the right kind already stays as it is."""
    audio = load_audio(source)
    duration = audio.duration_seconds
    if isinstance(source, bytes) and source[:4] == b"fLaC":
        info = soundfile.info(io.BytesIO(source))
        if (info.samplerate, info.channels, info.subtype) == (sample_rate, 1, "PCM_16"):
            return source, duration
    return encode_flac(load_audio(audio, sample_rate)), duration


def _side(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    side = {name: row[prefix + name] for name in ("language", "text", "speaker", "label_source")}
    audio = row[f"{prefix}audio"]
    return side | {"audio": None if audio is None else audio["bytes"]}
