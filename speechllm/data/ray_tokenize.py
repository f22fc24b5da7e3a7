"""Tokenise a corpus with many workers on a Ray cluster: the bytes of `tokenize_corpus`, sooner.

    load = functools.partial(load_tokenizer, "semantic_tokenizer")      # takes a device, returns the tokenizer
    report = tokenize_on_ray("corpus/", load, "tokens/", RayConfig(num_workers=8, gpus_per_worker=1), device="cuda")

A shard of codes is a function of a stretch of the corpus and of the tokenizer. So each worker, with a tokenizer of its
own, reads stretches and returns finished shards as bytes; codes are small (some 100 kB for an hour of speech). The
process that called writes them, alone, and keeps the manifest. Hence a worker may die at any point and leave nothing
behind, and a call that is killed goes on like that of the local engine: either engine continues what the other began.

The corpus and the tokenizer have to lie where every worker finds them under the same path: on this machine, or on a
file system that all machines share. All should be of one kind: see `SemanticTokenizer.fingerprint`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from speechllm.data.prepare import KIND as RECORDS
from speechllm.data.prepare import record_of
from speechllm.data.ray_pool import RayConfig, RayPool
from speechllm.data.records import Record
from speechllm.data.shards import (
    MadeShard,
    Manifest,
    ShardEntry,
    ShardLayout,
    ShardWriter,
    make_shard,
    read_manifest,
    shard_batches,
    shard_name,
)
from speechllm.data.tokenize import Tokenizer, TokenReport, token_layout, token_report
from speechllm.errors import DataError

LoadTokenizer: TypeAlias = Callable[[str], Tokenizer]
"Takes a device, returns the tokenizer on it; called in this process (`cpu`) and in every worker."


@dataclass(frozen=True)
class Stretch:
    """The rows of a corpus that become one shard of tokens."""

    name: str
    split: str
    parts: tuple[tuple[ShardEntry, int, int], ...]
    "Shards of the corpus, each with its first row and the one behind the last."
    is_made: bool = False
    "Whether an earlier run made the shard; then only its source is looked at."

    @property
    def num_rows(self) -> int:
        """Records in it."""
        return sum(stop - start for _, start, stop in self.parts)

    def __str__(self) -> str:
        """Return what it is called when something goes wrong."""
        return f"{self.name} (from {', '.join(entry.file for entry, _, _ in self.parts)})"


@dataclass(frozen=True)
class TokenWork:
    """What a worker has to know; called there, it returns the function from a stretch to a shard."""

    corpus_folder: Path
    load_tokenizer: LoadTokenizer
    device: str
    fingerprint: str
    batch_size: int
    records_per_shard: int

    def __call__(self) -> Callable[[Stretch], MadeShard | str]:
        """Load the tokenizer.

        Raises:
            DataError: it is another one here.
        """
        tokenizer = self.load_tokenizer(self.device)
        if tokenizer.fingerprint != self.fingerprint:
            raise DataError(
                f"a worker found a tokenizer with fingerprint {tokenizer.fingerprint}, expected {self.fingerprint}; "
                "every machine needs the same one under the same path"
            )
        layout = token_layout(tokenizer, batch_size=self.batch_size, records_per_shard=self.records_per_shard)
        reader = ShardReader(self.corpus_folder)
        return lambda stretch: make_stretch(reader, layout, stretch)


def tokenize_on_ray(
    corpus_folder: str | Path,
    load_tokenizer: LoadTokenizer,
    out_folder: str | Path,
    config: RayConfig,
    *,
    device: str = "cpu",
    batch_size: int = 16,
    records_per_shard: int = 256,
    progress: Callable[[int], None] | None = None,
) -> TokenReport:
    """Write the codes of a prepared corpus as shards, or go on where a killed run (of any engine) stopped.

    Args:
        corpus_folder: written by `prepare_corpus`, readable by every worker.
        load_tokenizer: returns the tokenizer on a device.
        out_folder: made if it is missing; only this process writes there.
        config: workers, and where the cluster is.
        device: where the workers' speech encoders run.
        batch_size: utterances encoded together.
        records_per_shard: records of one file; their audio is in a worker's memory at once.
        progress: called with the number of records done so far.

    Raises:
        DataError: as `tokenize_corpus`, or a stretch has killed several workers.
        MissingDependencyError: Ray is not installed.
    """
    tokenizer = load_tokenizer("cpu")
    layout = token_layout(tokenizer, batch_size=batch_size, records_per_shard=records_per_shard)
    corpus = Path(corpus_folder).absolute()
    work = TokenWork(corpus, load_tokenizer, device, tokenizer.fingerprint, batch_size, records_per_shard)
    manifest = read_manifest(corpus, RECORDS)
    writer = ShardWriter(out_folder, layout, splits=list(manifest.num_rows))
    stretches = [
        dataclasses.replace(stretch, is_made=writer.source_of(stretch.name) is not None)
        for stretch in plan_stretches(manifest, records_per_shard)
    ]
    done = 0
    with RayPool(work, config) as pool:
        for stretch, made in pool.map(stretches):
            if isinstance(made, str):
                writer.keep(stretch.name, made)
            else:
                writer.add(made)
            done += stretch.num_rows
            if progress is not None:
                progress(done)
    writer.close()
    return token_report(out_folder)


def plan_stretches(manifest: Manifest, rows_per_stretch: int) -> list[Stretch]:
    """Cut each split of a corpus into stretches of so many rows, the last of a split shorter, across its shards.

    Corpus shards of 4, 3 and 4 rows, cut by 5:  [0000: 0-4, 0001: 0-1] [0001: 1-3, 0002: 0-3] [0002: 3-4]
    """
    stretches = []
    for split in manifest.num_rows:
        entries = [entry for entry in manifest.shards if entry.split == split]
        parts = _cut(entries, rows_per_stretch)
        stretches += [Stretch(shard_name(split, i), split, part) for i, part in enumerate(parts)]
    return stretches


def _cut(entries: Sequence[ShardEntry], size: int) -> Iterator[tuple[tuple[ShardEntry, int, int], ...]]:
    parts: list[tuple[ShardEntry, int, int]] = []
    room = size
    for entry in entries:
        start = 0
        while start < entry.rows:
            stop = min(entry.rows, start + room)
            # What failed in the corpus may be a long list, and the workers do not look at it.
            parts.append((dataclasses.replace(entry, failures=()), start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield tuple(parts)
                parts, room = [], size
    if parts:
        yield tuple(parts)


class ShardReader:
    """Reads parts of shards. Keeps the last shard, as it was checked: the next stretch is mostly of the same one."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._last: tuple[str, pa.Table] | None = None

    def rows(self, shard: ShardEntry, start: int, stop: int) -> list[dict[str, Any]]:
        """Return some rows of a shard.

        Raises:
            DataError: the file is missing or was changed.
        """
        if self._last is None or self._last[0] != shard.file:
            self._last = None
            self._last = shard.file, pa.Table.from_batches(shard_batches(self.folder, shard))
        return self._last[1].slice(start, stop - start).to_pylist()


def make_stretch(reader: ShardReader, layout: ShardLayout[Record], stretch: Stretch) -> MadeShard | str:
    """Return the shard of a stretch; of one that is made already only the hash of its source."""
    records = [record_of(row) for entry, start, stop in stretch.parts for row in reader.rows(entry, start, stop)]
    if stretch.is_made:
        return layout.source_sha256(records)
    return make_shard(records, stretch.name, stretch.split, layout)
