"""From prepared records to token shards: every utterance as semantic codes, computed once.

    report = tokenize_corpus("corpus/", tokenizer, "tokens/", batch_size=16)
    for row in read_tokens("tokens/", "train", expected_fingerprint=tokenizer.fingerprint):
        row.text, row.codes                                  # "good morning", array([17, 4, ...])
        tag.example(row.fields())                            # an Example, in the direction of the record
        tag.example(row.fields(reverse=True))                # the other way round

The manifest carries the tokenizer's fingerprint, so that codes never meet a tokenizer that did not make them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from speechllm.audio import Audio, load_audio
from speechllm.data.prepare import read_corpus
from speechllm.data.records import LabelSource, Record
from speechllm.data.shards import Converted, ShardLayout, read_manifest, read_shards, write_shards
from speechllm.errors import DataError
from speechllm.tasks import Field

KIND = "tokens"
_SIDE = [
    ("language", pa.string()),
    ("text", pa.string()),
    ("speaker", pa.string()),
    ("label_source", pa.string()),
    ("duration_seconds", pa.float64()),
    ("codes", pa.list_(pa.int32())),
]
SCHEMA = pa.schema(
    [("id", pa.string()), ("split", pa.string()), *_SIDE, *((f"translation_{name}", kind) for name, kind in _SIDE)]
)
"The columns; `codes` is null where a side has no audio, `translation_language` where there is no parallel side."


@runtime_checkable
class Tokenizer(Protocol):
    """What is needed of a semantic tokenizer here."""

    @property
    def fingerprint(self) -> str:
        """Hash of config and weights."""
        ...

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        ...

    @property
    def sample_rate(self) -> int:
        """Rate of the audio that it reads, in Hz."""
        ...

    @property
    def frame_rate(self) -> float:
        """Codes per second."""
        ...

    def encode(self, audios: Sequence[Audio]) -> list[np.ndarray]:
        """Return the codes int64 [T] of each audio, the same for any batching."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRow:
    """One record with codes in the place of audio."""

    id: str
    split: str
    language: str
    text: str = ""
    speaker: str = ""
    label_source: LabelSource = "human"
    duration_seconds: float = 0.0
    codes: np.ndarray | None = None
    "int64 [T]; None if the side has no audio."
    translation_language: str | None = None
    "None if there is no parallel side."
    translation_text: str = ""
    translation_speaker: str = ""
    translation_label_source: LabelSource = "human"
    translation_duration_seconds: float = 0.0
    translation_codes: np.ndarray | None = None

    def fields(self, reverse: bool = False) -> dict[Field, str | np.ndarray]:
        """Return what there is of the four fields of a task; `reverse` makes the parallel side the source."""
        here, there = (self.codes, self.text), (self.translation_codes, self.translation_text)
        if reverse:
            here, there = there, here
        content: dict[Field, str | np.ndarray | None] = {
            "audio": here[0],
            "transcript": here[1],
            "translated_audio": there[0],
            "translation": there[1],
        }
        return {field: value for field, value in content.items() if value is not None and len(value) > 0}

    def languages(self, reverse: bool = False) -> tuple[str | None, str | None]:
        """Return (source language, target language), ISO codes; the other way round with `reverse`."""
        pair = (self.language, self.translation_language)
        return (pair[1], pair[0]) if reverse else pair


@dataclass(frozen=True)
class TokenReport:
    """What is in a folder of token shards."""

    folder: Path
    fingerprint: str
    codebook_size: int
    frame_rate: float
    num_rows: dict[str, int]
    "By split."
    hours: dict[str, float]
    "Speech by language."

    def __str__(self) -> str:
        """Return the report in one line."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.num_rows.items())
        hours = ", ".join(f"{language} {value:.2f} h" for language, value in self.hours.items())
        return f"{self.folder}: {splits} rows; {hours}; {self.codebook_size} codes at {self.frame_rate:g} Hz"


def tokenize_corpus(
    corpus_folder: str | Path,
    tokenizer: Tokenizer,
    out_folder: str | Path,
    *,
    batch_size: int = 16,
    records_per_shard: int = 256,
    progress: Callable[[int], None] | None = None,
) -> TokenReport:
    """Write the codes of a prepared corpus as shards, or go on where a killed run stopped.

    Args:
        corpus_folder: written by `prepare_corpus`.
        tokenizer: its codes may not depend on how audio is batched.
        out_folder: made if it is missing.
        batch_size: utterances encoded together.
        records_per_shard: records of one file; their audio is in memory at once.
        progress: called with the number of records done so far.

    Raises:
        DataError: the corpus is not finished or broken, or the folder belongs to another tokenizer or corpus.
    """
    layout = token_layout(tokenizer, batch_size=batch_size, records_per_shard=records_per_shard)
    write_shards(read_corpus(corpus_folder), out_folder, layout, progress)
    return token_report(out_folder)


def token_layout(tokenizer: Tokenizer, *, batch_size: int, records_per_shard: int) -> ShardLayout[Record]:
    """Return how records become shards of codes.

    Raises:
        DataError: the batch size is below 1.
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}, expected at least 1")
    return ShardLayout[Record](
        kind=KIND,
        schema=SCHEMA,
        fingerprint=tokenizer.fingerprint,
        items_per_shard=records_per_shard,
        details={"codebook_size": tokenizer.codebook_size, "frame_rate": float(tokenizer.frame_rate)},
        split_of=lambda record: record.split,
        key_of=lambda record: record.digest,
        convert=lambda records: _convert(records, tokenizer, batch_size),
    )


def read_tokens(
    folder: str | Path, split: str | None = None, *, expected_fingerprint: str | None = None
) -> Iterator[TokenRow]:
    """Stream the rows of one split, or of all of them.

    Raises:
        DataError: the folder is no finished folder of tokens, was made by another tokenizer than
            `expected_fingerprint`, has no such split, or a file in it was changed.
    """
    manifest = read_manifest(folder, KIND, expected_fingerprint)
    codebook_size = manifest.details["codebook_size"]
    for row in read_shards(folder, manifest, split):
        for name in ("codes", "translation_codes"):
            if row[name] is not None:
                row[name] = _checked(np.asarray(row[name], dtype=np.int64), codebook_size, row["id"], folder)
        yield TokenRow(**{name: value for name, value in row.items() if value is not None})


def check_codes(batch: pa.RecordBatch, codebook_size: int, source: str | Path) -> None:
    """Check the codes of many rows at once.

    Raises:
        DataError: one is not in the codebook.
    """
    for name in ("codes", "translation_codes"):
        codes = batch.column(name)
        flat = codes.flatten().to_numpy()
        if len(flat) and not 0 <= flat.min() <= flat.max() < codebook_size:
            for row, key in zip(codes, batch.column("id"), strict=True):
                if row.is_valid:
                    _checked(row.values.to_numpy(), codebook_size, key.as_py(), source)


def token_report(folder: str | Path) -> TokenReport:
    """Return what `tokenize_corpus` returned when it made the folder."""
    manifest = read_manifest(folder, KIND)
    hours = {language: seconds / 3600 for language, seconds in manifest.duration_seconds.items()}
    details = manifest.details
    return TokenReport(
        Path(folder), manifest.fingerprint, details["codebook_size"], details["frame_rate"], manifest.num_rows, hours
    )


def _convert(records: Sequence[Record], tokenizer: Tokenizer, batch_size: int) -> Converted:
    rows = [_text_row(record) for record in records]
    jobs: list[tuple[dict[str, Any], str, Audio]] = []
    for row, record in zip(rows, records, strict=True):
        for prefix, side in (("", record), ("translation_", record.translation)):
            if side is not None and side.audio is not None:
                jobs.append((row, prefix, load_audio(side.audio, tokenizer.sample_rate)))
    # Utterances of like length side by side: a tokenizer that pads then pads least. Codes do not depend on it.
    jobs.sort(key=lambda job: job[2].num_samples)
    seconds: dict[str, float] = {}
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        for (row, prefix, audio), codes in zip(batch, tokenizer.encode([job[2] for job in batch]), strict=True):
            row[f"{prefix}codes"] = _checked(np.asarray(codes), tokenizer.codebook_size, row["id"], "the tokenizer")
            row[f"{prefix}duration_seconds"] = audio.duration_seconds
            language = row[f"{prefix}language"]
            seconds[language] = seconds.get(language, 0.0) + audio.duration_seconds
    return Converted(rows, seconds)


def _text_row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"id": record.id, "split": record.split}
    for prefix, side in (("", record), ("translation_", record.translation)):
        for name in ("language", "text", "speaker", "label_source"):
            row[prefix + name] = None if side is None else getattr(side, name)
    return row


def _checked(codes: np.ndarray, codebook_size: int, name: str, source: str | Path) -> np.ndarray:
    if len(codes) and not 0 <= codes.min() <= codes.max() < codebook_size:
        raise DataError(
            f"row {name!r} from {source} has codes from {codes.min()} to {codes.max()}, expected 0 to "
            f"{codebook_size - 1}; tokenise the corpus again"
        )
    return codes
