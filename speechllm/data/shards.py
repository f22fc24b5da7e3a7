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
    if layout.items_per_shard < 1:
        raise DataError(f"items_per_shard is {layout.items_per_shard}, expected at least 1")
    folder = Path(folder)
    writer = _Writer(folder, layout)
    waiting: dict[str, list[T]] = {}
    done = 0
    for item in items:
        shard = waiting.setdefault(layout.split_of(item), [])
        shard.append(item)
        if len(shard) == layout.items_per_shard:
            writer.finish(layout.split_of(item), shard)
            done += len(shard)
            shard.clear()
            _report(progress, done)
    for split, shard in waiting.items():
        if shard:
            writer.finish(split, shard)
            done += len(shard)
            _report(progress, done)
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
    if split is not None and split not in manifest.num_rows:
        raise DataError(f"{folder} has no split {split!r}; it has {', '.join(manifest.num_rows) or 'none'}")
    for shard in manifest.shards:
        if split in (None, shard.split):
            path = Path(folder) / shard.file
            _verify(path, shard.sha256)
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=64):
                    yield from batch.to_pylist()


class _Writer(Generic[T]):
    """Keeps the manifest on disk in step with the shards on disk."""

    def __init__(self, folder: Path, layout: ShardLayout[T]):
        self.folder, self.layout = folder, layout
        self.found: dict[str, ShardEntry] = {}
        self.finished: dict[str, ShardEntry] = {}
        self.num_in_split: dict[str, int] = {}
        _attempt(lambda: folder.mkdir(parents=True, exist_ok=True), folder)
        existing = _load_manifest(folder)
        self.was_complete = existing is not None and existing.complete
        if existing is not None:
            self._require_same(existing)
            self.found = {shard.file: shard for shard in existing.shards}

    def finish(self, split: str, items: Sequence[T]) -> None:
        index = self.num_in_split.get(split, 0)
        self.num_in_split[split] = index + 1
        name = f"{split}-{index:05d}.parquet"
        source = _hash_keys(self.layout.key_of(item) for item in items)
        kept = self.found.get(name)
        if kept is not None:
            if kept.source_sha256 != source:
                raise DataError(
                    f"{self.folder / name} was made from other records; choose another folder, or delete this one"
                )
            self.finished[name] = kept
            return
        if self.was_complete:
            raise DataError(
                f"{self.folder} is finished and does not hold all of these records; choose another folder, or delete it"
            )
        converted = self.layout.convert(items)
        content = _parquet(converted.rows, self.layout.schema)
        _write_atomically(self.folder / name, content)
        seconds = {language: round(value, 6) for language, value in sorted(converted.duration_seconds.items())}
        self.finished[name] = ShardEntry(
            name, split, len(converted.rows), hashlib.sha256(content).hexdigest(), source, seconds, converted.failures
        )
        self._save(complete=False)

    def close(self) -> Manifest:
        if left := sorted(set(self.found) - set(self.finished)):
            raise DataError(
                f"{self.folder / left[0]} was made from records that are not there any more; "
                "choose another folder, or delete this one"
            )
        return self._save(complete=True)

    def _save(self, complete: bool) -> Manifest:
        # A shard that an earlier run finished stays listed until its turn comes: a second kill loses nothing.
        shards = self.found | self.finished
        # In the order of the source, splits as they first appear; what an earlier run left comes last.
        order = {name: i for i, name in enumerate([*self.finished, *self.found])}
        splits = list(dict.fromkeys(shards[name].split for name in order))
        names = sorted(order, key=lambda name: (splits.index(shards[name].split), name))
        manifest = self._manifest(complete, tuple(shards[name] for name in names))
        content = {"format_version": FORMAT_VERSION} | asdict(manifest)
        _write_atomically(self.folder / MANIFEST_FILE, (json.dumps(content, indent=1) + "\n").encode())
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


def _report(progress: Callable[[int], None] | None, done: int) -> None:
    if progress is not None:
        progress(done)
