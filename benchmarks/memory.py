"""What preparing, tokenising and training hold in memory, at the size of the quickstart's corpus and at 100 times that.

    python -m benchmarks.memory

Every part runs in a process of its own, which watches what it holds beyond what it began with: private memory, which
is its own, and file-backed memory, which the system takes back when it is short. The data side of training stands
beside a store that holds all rows as Python objects, on the same examples: what reading from disk saves and costs.
"""

import functools
import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.machine import RESULTS, measure_machine
from benchmarks.measure import Spread, interleave, rates, ratio, table, write_text
from benchmarks.sleeping_tokenizer import SleepingTokenizer
from recipes.quickstart.config import CONFIG, QuickstartConfig
from speechllm.audio import Audio, encode_flac
from speechllm.config import load_config
from speechllm.data.mixture import Mixture, MixtureConfig
from speechllm.data.packing import PackedRows
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.data.row_store import CACHE_VARIABLE, RowStore, open_tokens
from speechllm.data.shards import Converted, ShardLayout, write_shards
from speechllm.data.tokenize import KIND, SCHEMA, TokenRow, tokenize_corpus
from speechllm.models.text_lm import train_bpe
from speechllm.processor import UnifiedProcessor
from speechllm.vocabulary import Vocabulary

SECONDS = 0.1
"Sound of a record that is prepared and tokenised: what is held of it goes with the shard, not with the corpus."
MEAN_CODES = 31
"Codes of a side that is trained on: 2.5 s at the quickstart's 12.5 Hz."
WORDS = ("turn", "the", "red", "lamp", "on", "in", "small", "kitchen", "and", "close", "every", "window", "at", "nine")
MIB = 2**20
DRAWN, TIMED = 10_000, 5_000
"Examples that are drawn to see what is held, and in each round to see how long they take."


@dataclass(frozen=True)
class Held:
    """What a part held at most beyond what its process began with, in MiB, and how long it took."""

    private: float
    file_backed: float
    seconds: float
    bytes_on_disk: int = 0
    "Of what it wrote."


class Watch:
    """Looks at the memory of this process every few milliseconds, in the `with` block."""

    def __enter__(self) -> "Watch":
        self._start, self._peak = _resident(), _resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._begin
        self._done.set()
        self._thread.join()

    def held(self, written: Path | None = None) -> Held:
        """Return what was seen."""
        private, file_backed = ((peak - start) / MIB for peak, start in zip(self._peak, self._start, strict=True))
        size = sum(path.stat().st_size for path in written.iterdir()) if written is not None else 0
        return Held(private, file_backed, self.seconds, size)

    def _look(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._done.wait(0.01)
            self._peak = tuple(max(pair) for pair in zip(self._peak, _resident(), strict=True))


def _resident() -> tuple[int, ...]:
    """Return bytes of private and of file-backed memory that is resident."""
    words = Path("/proc/self/status").read_text(encoding="ascii").split()
    return tuple(int(words[words.index(name) + 1]) * 1024 for name in ("RssAnon:", "RssFile:"))


class HeldRows(RowStore):
    """Every row as a Python object, as a list of them would be."""

    def __init__(self, source: Path):
        super().__init__(source)
        self._rows = [[TokenRow(**vars(row)) for row in self._rows_of(i)] for i in range(self.num_batches)]

    def _rows_of(self, batch: int) -> Iterator[TokenRow]:
        return (RowStore.row(self, batch, place) for place in range(self._reader.get_batch(batch).num_rows))

    def row(self, batch: int, place: int, columns: Sequence[str] = ()) -> TokenRow:
        """Return a row that is held."""
        return self._rows[batch][place]


def records(count: int) -> Iterator[Record]:
    """Yield records with text on both sides and sound on one."""
    noise = [np.random.default_rng(i).standard_normal(int(SECONDS * 16_000)) for i in range(32)]
    sounds = [encode_flac(Audio((0.1 * one).astype(np.float32), 16_000)) for one in noise]
    for i in range(count):
        text = " ".join(random.Random(i).choices(WORDS, k=8))
        other = Translation("fr", text)
        yield Record(f"utterance-{i:08d}", "train", "en", text, sounds[i % 32], translation=other)


def token_rows(count: int, num_codes: int) -> Iterator[TokenRow]:
    """Yield rows as long as the quickstart's."""
    for i in range(count):
        draw = np.random.default_rng(i)
        codes = [draw.integers(num_codes, size=draw.integers(MEAN_CODES // 2, 2 * MEAN_CODES)) for _ in range(2)]
        texts = [" ".join(random.Random(i + side).choices(WORDS, k=8)) for side in range(2)]
        yield TokenRow(
            id=f"utterance-{i:08d}", split="train", language="en", text=texts[0], duration_seconds=2.5, codes=codes[0],
            translation_language="fr", translation_text=texts[1], translation_duration_seconds=2.5,
            translation_codes=codes[1],
        )  # fmt: skip


def prepare(count: int, folder: Path) -> Held:
    """Store records."""
    with Watch() as watch:
        prepare_corpus(records(count), folder / "corpus")
    return watch.held(folder / "corpus")


def tokenise(count: int, folder: Path) -> Held:
    """Tokenise them: the encoder is none, the shard writer is the one there is."""
    tokenizer = SleepingTokenizer(0.0)
    with Watch() as watch:
        tokenize_corpus(folder / "corpus", tokenizer, folder / "tokens")
    return watch.held(folder / "tokens")


def write_rows(count: int, folder: Path) -> Held:
    """Write shards to train on."""
    layout = ShardLayout[TokenRow](
        kind=KIND,
        schema=SCHEMA,
        fingerprint="generated",
        items_per_shard=256,
        details={"codebook_size": quickstart().semantic.codebook_size, "frame_rate": 12.5},
        split_of=lambda row: row.split,
        key_of=lambda row: row.id,
        convert=lambda rows: Converted([vars(row) for row in rows]),
    )
    with Watch() as watch:
        write_shards(token_rows(count, quickstart().semantic.codebook_size), folder / "rows", layout)
    return watch.held(folder / "rows")


def unpack(count: int, folder: Path) -> Held:
    """Open shards for the first time."""
    with Watch() as watch:
        store = open_tokens(folder / "rows", "train")
    assert store.num_rows == count
    assert isinstance(store.source, Path)
    return watch.held(store.source.parent)


def draw(count: int, folder: Path, num_examples: int, kind: Callable[[Path], RowStore] = RowStore) -> Held:
    """Open a mixture and pack its examples into rows, as a training process does."""
    processor = make_processor()
    path = open_tokens(folder / "rows", "train").source
    assert isinstance(path, Path)
    with Watch() as watch:
        pack_examples(make_mixture(kind(path), processor), num_examples)
    return watch.held()


def speed(count: int, folder: Path, num_examples: int, rounds: int) -> tuple[Spread, Spread, Spread]:
    """Return tokens/s from disk and from rows that are held, and their ratio."""
    path = open_tokens(folder / "rows", "train").source
    assert isinstance(path, Path)
    processor = make_processor()
    mixtures = {kind: make_mixture(kind(path), processor) for kind in (RowStore, HeldRows)}
    tokens = pack_examples(mixtures[RowStore], num_examples)
    runs = {kind.__name__: functools.partial(pack_examples, mixtures[kind], num_examples) for kind in mixtures}
    seconds = interleave(runs, rounds=rounds, clock=time.process_time)
    ours, theirs = seconds["RowStore"], seconds["HeldRows"]
    return Spread.of(rates(tokens, ours)), Spread.of(rates(tokens, theirs)), ratio(theirs, ours)


def make_mixture(store: RowStore, processor: UnifiedProcessor) -> Mixture:
    """Return the quickstart's tasks over one store."""
    config = MixtureConfig(components=list(quickstart().mixture))
    return Mixture(config, processor, [store] * len(config.components))


def pack_examples(mixture: Mixture, num_examples: int) -> int:
    """Pack examples into rows and return how many tokens they have."""
    rows = PackedRows(mixture.example, quickstart().training.max_tokens)
    for _ in itertools.takewhile(lambda _: rows.report.examples < num_examples, rows):
        pass
    return rows.report.tokens


@functools.cache
def quickstart() -> QuickstartConfig:
    """Return the recipe's config."""
    return load_config(QuickstartConfig, CONFIG)


def num_sentences() -> int:
    """Return how many rows the quickstart's corpus has."""
    return int(quickstart().corpus["num_sentences"])


def make_processor() -> UnifiedProcessor:
    """Return the quickstart's vocabulary over a small BPE."""
    tokenizer = train_bpe([" ".join(WORDS)] * 50, vocab_size=300)
    return UnifiedProcessor(tokenizer, Vocabulary.for_speech(600, quickstart().semantic.codebook_size))


def in_a_process(part: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a part returns in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(part, *arguments).result()


def measure(scale: int, drawn: int, rounds: int, scratch: Path) -> tuple[list[list[str]], list[str]]:
    """Return the rows of the memory table, and the row of the speed table, for one size of corpus."""
    folder, count = scratch / str(scale), num_sentences() * scale
    folder.mkdir()
    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    held = {
        part.__name__: in_a_process(part, count, folder) for part in (prepare, tokenise, write_rows, unpack)
    }  # fmt: skip
    held["train"] = in_a_process(draw, count, folder, drawn)
    held["train, rows held"] = in_a_process(draw, count, folder, drawn, HeldRows)
    rows = [
        [
            name.replace("_", " "),
            f"{count:,}",
            f"{one.private:,.1f}",
            f"{one.file_backed:,.1f}",
            f"{one.bytes_on_disk / MIB:,.1f}" if one.bytes_on_disk else "-",
            f"{one.seconds:,.1f}",
        ]
        for name, one in held.items()
    ]
    found = in_a_process(speed, count, folder, min(drawn, TIMED), rounds)
    return rows, [f"{count:,}", found[0].show(0), found[1].show(0), found[2].show(2)]


def results(described: str, command: str, memory: Sequence[list[str]], fast: Any) -> str:
    """Return the page."""
    header = ["part", "rows", "private, MiB", "file-backed, MiB", "written, MiB", "seconds"]
    parts = [
        "# Memory",
        f"`{command}`",
        described,
        f"""The corpus has as many rows as the quickstart's ({num_sentences():,}), and 100 times as many.
Each part is a process of its own; what it held at most beyond what it began with is seen every 10 ms. Private memory
is its own; file-backed memory are pages of files that it has mapped, which other processes share and the system
takes back when it is short of memory.""",
        f"""- prepare, tokenise: records with {SECONDS:g} s of sound and a sentence on both sides, 256 a shard; no
  encoder.
- write rows: shards of token rows as long as the quickstart's, to train on.
- unpack: what the first training on a machine does with them.
- train: the quickstart's seven tasks over these rows, {DRAWN:,} examples drawn and packed.
- train, rows held: the same, with every row as a Python object.""",
        table(header, memory),
        "## Speed",
        f"""Tokens a second of one core that examples are read, encoded and packed with, from disk and from rows
that are held, in turns on the same {TIMED:,} examples; median (min to max) over rounds, the last column formed
round by round.""",
        table(["rows", "from disk", "held", "disk / held"], fast),
    ]
    return "\n\n".join(parts)


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "memory.md",
    rounds: Annotated[int, typer.Option(help="Rounds of the speed table.")] = 3,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Measure and write the tables."""
    drawn, scales = (300, (1,)) if quick else (DRAWN, (1, 100))
    machine = measure_machine(num_threads=1, quick=quick)
    memory: list[list[str]] = []
    fast: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for scale in scales:
            rows, row = measure(scale, drawn, 1 if quick else rounds, Path(scratch))
            memory += rows
            fast.append(row)
    command = f"python -m benchmarks.memory{' --quick' if quick else f' --rounds {rounds}'}"
    typer.echo(write_text(out, results(machine.describe(), command, sorted(memory, key=_part), fast)))


def _part(row: list[str]) -> int:
    return ("prepare", "tokenise", "write rows", "unpack", "train", "train, rows held").index(row[0])


if __name__ == "__main__":
    typer.run(main)
