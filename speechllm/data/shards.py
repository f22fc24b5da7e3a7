"""Parquet shards with a manifest: atomic, checked, and continued after a kill at any point.

    corpus/
      manifest.json            kind, fingerprint, and per shard: file, split, rows, sha256, what failed
      train-00000.parquet      rows of the first `items_per_shard` items of split "train"
      train-00001.parquet
      test-00000.parquet

A shard holds what became of a fixed stretch of the source: items k*n to (k+1)*n of its split. A finished
shard is one that the manifest lists, so a run that was killed simply starts over: it passes over the items
of finished shards without converting them, and ends with the very bytes that an undisturbed run writes. The
hash of the items stands in the manifest, so that a folder is never continued from another source.

Converting is apart from writing: `make_shard` is a function of its items, for any process on any machine, and one
`ShardWriter` alone touches the folder. `write_shards` does both in turn; in `ray_tokenize.py` many workers make shards.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from speechllm.errors import DataError

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
SAVES_PER_MANIFEST = 1000
"""The manifest is saved whenever it has grown by a 1000th: after every shard of the first 1000. One of 100,000 that is
saved after every shard takes longer to write than they do; as it is, a kill costs at most a 1000th of what is done."""
ROWS_PER_BATCH = 64
"What is read of a shard at once: rows of a corpus hold sound."

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """An item that did not make it into a shard, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class ShardEntry:
    """What the manifest says of one shard."""

    file: str
    split: str
    rows: int
    sha256: str
    "Of the file's bytes."
    source_sha256: str
    "Of the keys of the items it was made from."
    duration_seconds: dict[str, float] = field(default_factory=dict)
    "Speech in it, by language."
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The table of contents of a folder of shards."""

    kind: str
    "What the rows are: records or tokens."
    fingerprint: str
    "Of what the rows depend on besides the source: the sample rate, or the tokenizer."
    items_per_shard: int
    details: dict[str, Any]
    "Facts for readers, for example the size of the codebook."
    complete: bool
    shards: tuple[ShardEntry, ...] = ()

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows by split, in the order of first appearance."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            counts[shard.split] = counts.get(shard.split, 0) + shard.rows
        return counts

    @property
    def duration_seconds(self) -> dict[str, float]:
        """Speech by language."""
        seconds: dict[str, float] = {}
        for shard in self.shards:
            for language, value in shard.duration_seconds.items():
                seconds[language] = seconds.get(language, 0.0) + value
        return seconds

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All items that failed, in the order of the shards."""
        return tuple(failure for shard in self.shards for failure in shard.failures)


@dataclass(frozen=True)
class Converted:
    """What the items of one shard became: rows for parquet, and what failed."""

    rows: list[dict[str, Any]]
    duration_seconds: dict[str, float] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class MadeShard:
    """A shard that is not on disk yet."""

    entry: ShardEntry
    content: bytes
    "Of the parquet file."


@dataclass(frozen=True, kw_only=True)
class ShardLayout(Generic[T]):
    """How items of one kind become shards."""

    kind: str
    schema: pa.Schema
    fingerprint: str
    items_per_shard: int
    details: dict[str, Any] = field(default_factory=dict)
    split_of: Callable[[T], str]
    key_of: Callable[[T], str]
    "A text that tells items apart; it goes into the hash that recognises the source."
    convert: Callable[[Sequence[T]], Converted]

    def __post_init__(self) -> None:
        if self.items_per_shard < 1:
            raise DataError(f"items_per_shard is {self.items_per_shard}, expected at least 1")

    def source_sha256(self, items: Iterable[T]) -> str:
        """Return the hash by which the items of a shard are recognised."""
        return _hash_keys(self.key_of(item) for item in items)


def shard_name(split: str, index: int) -> str:
    """Return the file of the shard `index` of a split."""
    return f"{split}-{index:05d}.parquet"


def make_shard(items: Sequence[T], name: str, split: str, layout: ShardLayout[T]) -> MadeShard:
    """Convert the items of one shard; the same bytes wherever it is done."""
    converted = layout.convert(items)
    content = _parquet(converted.rows, layout.schema)
    seconds = {language: round(value, 6) for language, value in sorted(converted.duration_seconds.items())}
    digest, source = hashlib.sha256(content).hexdigest(), layout.source_sha256(items)
    return MadeShard(ShardEntry(name, split, len(converted.rows), digest, source, seconds, converted.failures), content)


def write_shards(
    items: Iterable[T], folder: str | Path, layout: ShardLayout[T], progress: Callable[[int], None] | None = None
) -> Manifest:
    """Write `items` as shards into `folder`, or finish what a killed run has begun there.

    Args:
        items: the same items in the same order on every call.
        folder: made if it is missing.
        layout: how items become rows.
        progress: called with the number of items done so far, after every shard.

    Raises:
        DataError: the folder holds something else, or cannot be written; finished shards stay.
    """
    writer = ShardWriter(folder, layout)
    waiting: dict[str, list[T]] = {}
    num_in_split: dict[str, int] = {}
    done = 0

    def finish(split: str) -> None:
        nonlocal done
        shard = waiting[split]
        name = shard_name(split, num_in_split.get(split, 0))
        if writer.source_of(name) is not None:
            writer.keep(name, layout.source_sha256(shard))
        else:
            writer.add(make_shard(shard, name, split, layout))
        num_in_split[split] = num_in_split.get(split, 0) + 1
        done += len(shard)
        shard.clear()
        if progress is not None:
            progress(done)

    for item in items:
        split = layout.split_of(item)
        waiting.setdefault(split, []).append(item)
        if len(waiting[split]) == layout.items_per_shard:
            finish(split)
    for split in [split for split, shard in waiting.items() if shard]:
        finish(split)
    return writer.close()


def read_manifest(folder: str | Path, kind: str, expected_fingerprint: str | None = None) -> Manifest:
    """Read and check the manifest of a finished folder.

    Raises:
        DataError: there is none, it is of another kind, version or fingerprint, or the folder is not finished.
    """
    manifest = _load_manifest(Path(folder))
    if manifest is None:
        raise DataError(f"{folder} is no folder of {kind}: it has no {MANIFEST_FILE}")
    if manifest.kind != kind:
        raise DataError(f"{folder} holds {manifest.kind}, expected {kind}")
    if expected_fingerprint is not None and manifest.fingerprint != expected_fingerprint:
        raise DataError(
            f"{folder} was made with fingerprint {manifest.fingerprint}, expected {expected_fingerprint}; "
            f"make the {kind} again with what you use now"
        )
    if not manifest.complete:
        raise DataError(
            f"{folder} is not finished ({len(manifest.shards)} shards); run the same command again to go on"
        )
    return manifest


def read_shards(folder: str | Path, manifest: Manifest, split: str | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of one split (or of all), a few at a time; each file is checked before its first row.

    Raises:
        DataError: there is no such split, or a file is missing or was changed.
    """
    for shard in shards_of(folder, manifest, split):
        yield from read_shard(folder, shard)


def shards_of(folder: str | Path, manifest: Manifest, split: str | None = None) -> list[ShardEntry]:
    """Return the shards of one split (or of all).

    Raises:
        DataError: there is no such split.
    """
    if split is not None and split not in manifest.num_rows:
        raise DataError(f"{folder} has no split {split!r}; it has {', '.join(manifest.num_rows) or 'none'}")
    return [shard for shard in manifest.shards if split in (None, shard.split)]


def read_shard(folder: str | Path, shard: ShardEntry) -> Iterator[dict[str, Any]]:
    """Stream the rows of one shard, a few at a time.

    Raises:
        DataError: the file is missing or was changed.
    """
    for batch in shard_batches(folder, shard):
        yield from batch.to_pylist()


def shard_batches(folder: str | Path, shard: ShardEntry) -> Iterator[pa.RecordBatch]:
    """Stream the rows of one shard as Arrow, a few in each batch.

    Raises:
        DataError: the file is missing or was changed.
    """
    path = Path(folder) / shard.file
    _verify(path, shard.sha256)
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=ROWS_PER_BATCH)


class ShardWriter(Generic[T]):
    """Writes shards that others make, in any order, and keeps the manifest in step with what is on disk.

    writer = ShardWriter(folder, layout)
    for each shard of the source:
        if writer.source_of(name) is not None:          # an earlier run made it: of these very items?
            writer.keep(name, layout.source_sha256(items))
        else:
            writer.add(make_shard(items, name, split, layout))
    manifest = writer.close()
    """

    def __init__(self, folder: str | Path, layout: ShardLayout[T], splits: Sequence[str] = ()):
        """`splits` is their order in the manifest, where shards do not come in the order of the source."""
        self.folder, self.layout, self.splits = Path(folder), layout, splits
        self._found: dict[str, ShardEntry] = {}
        self._finished: dict[str, ShardEntry] = {}
        self._num_saved = 0
        existing = _load_manifest(self.folder)
        self._was_complete = existing is not None and existing.complete
        if existing is not None:
            self._require_same(existing)
            self._found = {shard.file: shard for shard in existing.shards}

    def source_of(self, name: str) -> str | None:
        """Return the hash of the items of a shard that an earlier run finished, None where it has to be made.

        Raises:
            DataError: it has to be made, but the folder is finished without it.
        """
        kept = self._found.get(name)
        if kept is None and self._was_complete:
            raise DataError(
                f"{self.folder} is finished and does not hold all of these records; choose another folder, or delete it"
            )
        return None if kept is None else kept.source_sha256

    def keep(self, name: str, source_sha256: str) -> None:
        """Take over a shard of an earlier run.

        Raises:
            DataError: it was made from other items.
        """
        if self._found[name].source_sha256 != source_sha256:
            raise DataError(
                f"{self.folder / name} was made from other records; choose another folder, or delete this one"
            )
        self._finished[name] = self._found[name]

    def add(self, shard: MadeShard) -> None:
        """Write a shard, whole or not at all, and list it."""
        _write_atomically(self.folder / shard.entry.file, shard.content)
        self._finished[shard.entry.file] = shard.entry
        if (len(self._finished) - self._num_saved) * SAVES_PER_MANIFEST >= len(self._finished):
            self._save(complete=False)

    def close(self) -> Manifest:
        """Declare the folder finished.

        Raises:
            DataError: an earlier run made a shard whose items are gone.
        """
        if left := sorted(set(self._found) - set(self._finished)):
            raise DataError(
                f"{self.folder / left[0]} was made from records that are not there any more; "
                "choose another folder, or delete this one"
            )
        return self._save(complete=True)

    def _save(self, complete: bool) -> Manifest:
        # A shard that an earlier run finished stays listed until its turn comes: a second kill loses nothing.
        shards = self._found | self._finished
        # In the order of the source, splits as they first appear; what an earlier run left comes last.
        names = dict.fromkeys([*self._finished, *self._found])
        splits = {split: i for i, split in enumerate(dict.fromkeys([*self.splits, *(shards[n].split for n in names)]))}
        # By length first: beyond 100,000 shards of a split their numbers have more than five digits.
        names = sorted(names, key=lambda name: (splits[shards[name].split], len(name), name))
        manifest = self._manifest(complete, tuple(shards[name] for name in names))
        content = {"format_version": FORMAT_VERSION} | asdict(manifest)
        _write_atomically(self.folder / MANIFEST_FILE, (json.dumps(content, indent=1) + "\n").encode())
        self._num_saved = len(self._finished)
        return manifest

    def _manifest(self, complete: bool, shards: tuple[ShardEntry, ...]) -> Manifest:
        layout = self.layout
        return Manifest(layout.kind, layout.fingerprint, layout.items_per_shard, layout.details, complete, shards)

    def _require_same(self, existing: Manifest) -> None:
        for name in ("kind", "fingerprint", "items_per_shard"):
            found, wanted = getattr(existing, name), getattr(self.layout, name)
            if found != wanted:
                raise DataError(
                    f"{self.folder} was begun with {name} {found}, this run has {wanted}; "
                    "choose another folder, or delete this one"
                )


def _load_manifest(folder: Path) -> Manifest | None:
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}, this release reads {FORMAT_VERSION}; make the folder again"
        )
    try:
        shards = tuple(_entry(shard) for shard in content.pop("shards"))
        return Manifest(**content, shards=shards)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is no manifest of shards: {error}") from error


def _entry(content: dict[str, Any]) -> ShardEntry:
    failures = tuple(Failure(**failure) for failure in content.pop("failures"))
    return ShardEntry(**content, failures=failures)


def _verify(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"shard {path} cannot be read: {error.strerror}; make it again") from error
    if found != expected:
        raise DataError(f"shard {path} has checksum {found}, expected {expected}: it was changed or cut; make it again")


def _parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=schema)
    # No dictionaries: audio does not repeat, and trying costs more than zstd does.
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def _write_atomically(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")

    def write() -> None:
        try:
            # Not before there is something to write: a source that fails at its first record leaves no folder behind.
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    _attempt(write, path)


def _attempt(action: Callable[[], None], path: Path) -> None:
    try:
        action()
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; make room or choose a folder that can be written, "
            "then run again: finished shards are kept"
        ) from error


def _hash_keys(keys: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for key in keys:
        content = key.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()
