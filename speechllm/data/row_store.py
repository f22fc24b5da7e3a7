"""Rows in any order without holding them: token shards and plain text as one memory-mapped Arrow file.

    store = open_tokens("tokens/", "train", expected_fingerprint=tokenizer.fingerprint)
    store.num_rows                                   # 29,366,000
    store.row(batch=3, place=17)                     # a TokenRow; the pages that it lies on are all that is read

Shards are compressed, to be stored and shared; a mixture reads them in shuffled order. So they are checked and unpacked
once, into `cache_folder()`, under a name made of their checksums: other shards are another file, and what a kill left
half-written is never taken for one. Processes map the file, so on one machine they share what of it is in memory, and
the system takes it back when memory is short. A file that no run needs may be deleted: it is made again.
(Memory-mapped Arrow is how Hugging Face `datasets` keeps tables. Batches are read one by one here: a table would hold
the addresses of all of them.)
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from huggingface_hub import constants

from speechllm.data.plain_text import read_plain_text, text_files
from speechllm.data.shards import read_manifest, shard_batches, shards_of
from speechllm.data.tokenize import KIND, SCHEMA, TokenRow, check_codes
from speechllm.errors import DataError

ROWS_PER_BATCH = 1024
"What is written together; reading a row costs the same whatever it is."
CACHE_VARIABLE = "SPEECHLLM_CACHE"
_LAYOUT = 1
"Raised when the files change, so that those of an older release are not taken."


_INDEX = {name: index for index, name in enumerate(SCHEMA.names)}


class RowStore:
    """Rows in batches of Arrow, in a file or (small ones) in memory."""

    def __init__(self, source: Path | pa.Buffer):
        self.source = source

    @classmethod
    def of(cls, rows: Iterable[TokenRow]) -> "RowStore":
        """Return a store in memory."""
        sink = pa.BufferOutputStream()
        _write(_batches(rows), sink)
        return cls(sink.getvalue())

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file out: another process opens its own."""
        return {"source": self.source}

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return self._reader.num_record_batches

    @cached_property
    def num_rows(self) -> int:
        """How many rows there are in all."""
        return sum(batch.num_rows for batch in self.batches())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches in order, columns as in `tokenize.SCHEMA`."""
        return (self._reader.get_batch(index) for index in range(self.num_batches))

    def row(self, batch: int, place: int, columns: Sequence[str] = SCHEMA.names) -> TokenRow:
        """Return the row at `place` of a batch; what is not in `columns` is as if it were not there."""
        return _row(self._reader.get_batch(batch), place, columns)

    def rows(self) -> Iterator[TokenRow]:
        """Yield all rows in order."""
        return (_row(batch, place, SCHEMA.names) for batch in self.batches() for place in range(batch.num_rows))

    @cached_property
    def _reader(self) -> pa.RecordBatchFileReader:
        file = pa.memory_map(str(self.source)) if isinstance(self.source, Path) else pa.BufferReader(self.source)
        return pa.ipc.open_file(file)


def open_tokens(folder: str | Path, split: str, *, expected_fingerprint: str | None = None) -> RowStore:
    """Return the rows of a split of token shards.

    Raises:
        DataError: see `read_tokens`; or the cache cannot be written.
    """
    manifest = read_manifest(folder, KIND, expected_fingerprint)
    shards = shards_of(folder, manifest, split)
    size = manifest.details["codebook_size"]

    def checked() -> Iterator[pa.RecordBatch]:
        for shard in shards:
            for batch in shard_batches(folder, shard):
                check_codes(batch, size, folder)
                yield batch

    return _stored(["tokens", size, *(shard.sha256 for shard in shards)], checked)


def open_plain_text(source: str | Path, split: str) -> RowStore:
    """Return the rows of a file, or of a folder of files, of text.

    Raises:
        DataError: see `read_plain_text`; or the cache cannot be written.
    """
    files = [(path.name, _sha256(path)) for path in text_files(source)]
    return _stored(["text", split, files], lambda: _batches(read_plain_text(source, split)))


def cache_folder() -> Path:
    """Return where unpacked rows are kept: `$SPEECHLLM_CACHE`, or `speechllm` in the cache folder of Hugging Face."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path(constants.HF_HOME) / "speechllm") / "rows"


def _stored(key: list[Any], batches: Callable[[], Iterable[pa.RecordBatch]]) -> RowStore:
    """Return the store under a key, written now if there is none; of several processes one writes."""
    name = hashlib.sha256(json.dumps([_LAYOUT, *key]).encode()).hexdigest()[:32]
    path = cache_folder() / f"{name}.arrow"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                partial = path.with_suffix(".partial")
                with partial.open("wb") as sink:
                    _write(batches(), sink)
                    sink.flush()
                    os.fsync(sink.fileno())
                os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"cannot unpack rows to {path.parent}: {error.strerror or error}; make room there, or set "
            f"{CACHE_VARIABLE} to a folder that can be written"
        ) from error
    return RowStore(path)


def _write(batches: Iterable[pa.RecordBatch], sink: Any) -> None:
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            if sum(part.num_rows for part in waiting) >= ROWS_PER_BATCH:
                writer.write_table(pa.Table.from_batches(waiting).combine_chunks())
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting).combine_chunks())


def _batches(rows: Iterable[TokenRow]) -> Iterator[pa.RecordBatch]:
    rows = iter(rows)
    while taken := [vars(row) for row in islice(rows, ROWS_PER_BATCH)]:
        yield pa.RecordBatch.from_pylist(taken, schema=SCHEMA)


def _row(batch: pa.RecordBatch, place: int, columns: Sequence[str]) -> TokenRow:
    values: dict[str, Any] = {}
    for name in columns:
        value = batch.column(_INDEX[name])[place]
        if value.is_valid:
            is_codes = isinstance(value, pa.ListScalar)
            values[name] = value.values.to_numpy().astype(np.int64) if is_codes else value.as_py()
    return TokenRow(**values)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read text from {path}: {error.strerror}") from error
