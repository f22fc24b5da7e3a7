"""How tokenisation speeds up with workers on Ray, and how much speech one core prepares.

    python -m benchmarks.scaling

Two kinds of worker. A simulated one sleeps for as long as an accelerator would compute, so that its core is idle: with
1, 2, 4 and 8 of them on any machine, this shows what the engine itself costs (giving out work, reading, writing, the
manifest). A real one runs the CTC encoder of the quickstart's size on its core: no more of them than the machine has
cores. Every run must write the bytes of the local engine, or nothing is reported.
"""

import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.machine import RESULTS, Machine, measure_machine, threads
from benchmarks.measure import Spread, ratio, table, write_text
from benchmarks.sleeping_tokenizer import SleepingTokenizer
from benchmarks.tokenizers import ctc_codes
from speechllm.audio import Audio, encode_flac
from speechllm.data.prepare import KIND, corpus_report, prepare_corpus
from speechllm.data.ray_pool import RayConfig, RayPool, start_cluster
from speechllm.data.ray_tokenize import LoadTokenizer, TokenWork, plan_stretches
from speechllm.data.records import Record
from speechllm.data.shards import ShardWriter, read_manifest
from speechllm.data.tokenize import Tokenizer, token_layout, tokenize_corpus
from speechllm.tokenizers.semantic import SemanticTokenizer

SECONDS = 2.0
"Length of an utterance."
PER_SHARD = 8
SIMULATED_FACTOR = 0.1
"Seconds that a simulated worker sleeps for each second of speech."


def load_real(folder: str, device: str) -> Tokenizer:
    """Return a saved tokenizer."""
    return SemanticTokenizer.from_pretrained(folder).to(device)


def make_corpus(num_utterances: int, folder: Path, sample_rate: int = 16_000) -> Path:
    """Prepare noise of the length of utterances: what encoders take does not depend on what is said."""
    prepare_corpus(utterances(num_utterances, sample_rate), folder)
    return folder


def utterances(count: int, sample_rate: int) -> Iterator[Record]:
    """Yield records of noise under a slow swell."""
    swell = np.abs(np.sin(np.arange(int(SECONDS * sample_rate)) * 2 * np.pi * 3 / sample_rate))
    for i in range(count):
        noise = np.random.default_rng(i).standard_normal(len(swell)) * swell * 0.05
        yield Record(
            f"u{i}", "train", "en", f"utterance {i}", encode_flac(Audio(noise.astype(np.float32), sample_rate))
        )


def run_local(corpus: Path, load: LoadTokenizer, out: Path) -> float:
    """Return the seconds of the local engine, the tokenizer's loading not counted."""
    tokenizer = load("cpu")
    start = time.perf_counter()
    tokenize_corpus(corpus, tokenizer, out, records_per_shard=PER_SHARD)
    return time.perf_counter() - start


def run_on_ray(corpus: Path, load: LoadTokenizer, out: Path, num_workers: int) -> tuple[float, float]:
    """Return the seconds until all workers are ready, and those from then until the last shard is written."""
    tokenizer = load("cpu")
    layout = token_layout(tokenizer, batch_size=16, records_per_shard=PER_SHARD)
    writer = ShardWriter(out, layout)
    work = TokenWork(corpus.absolute(), load, "cpu", tokenizer.fingerprint, 16, PER_SHARD)
    stretches = plan_stretches(read_manifest(corpus, KIND), PER_SHARD)
    # A quarter of a core each, so that eight find room on two cores: those that sleep need none.
    begin = time.perf_counter()
    with RayPool(work, RayConfig(num_workers=num_workers, cpus_per_worker=0.25)) as pool:
        pool.wait_until_ready()
        start = time.perf_counter()
        for _, made in pool.map(stretches):
            assert not isinstance(made, str), "the folder is new"
            writer.add(made)
        writer.close()
        return start - begin, time.perf_counter() - start


def measure(
    corpus: Path, load: LoadTokenizer, counts: Sequence[int], rounds: int, scratch: Path
) -> list[tuple[str, Spread, Spread, Spread | None]]:
    """Return by engine: hours of speech in an hour, times as fast as the local one, seconds until workers are ready."""
    hours = sum(corpus_report(corpus).hours.values())
    seconds: dict[str, list[float]] = {"local": []} | {_name(count): [] for count in counts}
    starts: dict[str, list[float]] = {_name(count): [] for count in counts}
    for index in range(rounds):
        expected = scratch / f"local-{index}"
        seconds["local"].append(run_local(corpus, load, expected))
        for count in counts if index % 2 == 0 else counts[::-1]:
            out = scratch / f"{count}-{index}"
            ready, took = run_on_ray(corpus, load, out, count)
            assert contents(out) == contents(expected), f"{_name(count)} wrote other bytes than the local engine"
            seconds[_name(count)].append(took)
            starts[_name(count)].append(ready)
    return [
        (
            name,
            Spread.of([hours * 3600 / value for value in values]),
            ratio(seconds["local"], values),
            Spread.of(starts[name]) if name in starts else None,
        )
        for name, values in seconds.items()
    ]


def _name(count: int) -> str:
    return f"ray, {count} worker{'s' * (count > 1)}"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def prepare_speed(num_utterances: int, rounds: int, scratch: Path) -> Spread:
    """Return the hours of 48 kHz FLAC that one core decodes, resamples and stores at 16 kHz in an hour of its time."""
    records = list(utterances(num_utterances, 48_000))
    found = []
    for index in range(rounds):
        start = time.process_time()
        prepare_corpus(records, scratch / f"prepared-{index}")
        found.append(num_utterances * SECONDS / (time.process_time() - start))
    return Spread.of(found)


def results(
    machine: Machine, rounds: int, simulated: Sequence[tuple], real: Sequence[tuple], prepared: Spread, sizes: tuple
) -> str:
    """Return the page."""
    header = ["engine", "hours of speech in an hour", "times as fast as local", "seconds until all workers are ready"]

    def rows(found: Sequence[tuple]) -> list[list[str]]:
        return [
            [n, rate.show(0), "1" if n == "local" else gain.show(2), s.show(1) if s else "-"]
            for n, rate, gain, s in found
        ]

    parts = [
        "# Tokenisation on Ray",
        f"`python -m benchmarks.scaling --rounds {rounds}`",
        machine.describe(),
        f"""Wall time from the moment at which all workers are ready to the last shard; median (min to max) over rounds
in which the engines take turns; the third column is formed round by round. Shards of {PER_SHARD} utterances
of {SECONDS:g} s, {sizes[0]:,} of them simulated and {sizes[1]:,} real; every run wrote the bytes of the
local engine. The load above is that of the whole machine: what others do takes time from all rows, from
those with several workers most.""",
        "## Simulated workers",
        f"""A worker sleeps {SIMULATED_FACTOR:g} s for each second of speech, as if an accelerator computed. No core is
busy then, so this shows what the engine costs and says nothing of {os.cpu_count()} cores: eight workers
would be eight times as fast as one if it cost nothing.""",
        table(header, rows(simulated)),
        "## Real workers",
        "The CTC encoder of the quickstart's size with random weights; one thread a worker, one for the local engine.",
        table(header, rows(real)),
        "## Preparing",
        f"""`prepare` decodes 48 kHz FLAC, resamples to 16 kHz and stores FLAC: {prepared.show(0)} hours of speech in an
hour of one core. It has no engine of its own: corpora come in languages and parts, and those can be
prepared side by side.""",
    ]
    return "\n\n".join(parts)


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "scaling.md",
    rounds: Annotated[int, typer.Option(help="Rounds in which every engine has its turn.")] = 3,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Measure and write the table."""
    rounds = 1 if quick else rounds
    sizes = (16, 16) if quick else (256, 320)
    machine = measure_machine(num_threads=1, quick=quick)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = start_cluster(num_cpus=2, object_store_memory=200 * 2**20)
    with threads(1), tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        ctc_codes().save_pretrained(scratch / "tokenizer")
        corpora = [make_corpus(size, scratch / f"corpus-{i}") for i, size in enumerate(sizes)]
        counts, cores = ([1, 2] if quick else [1, 2, 4, 8]), [1, 2] if (os.cpu_count() or 1) > 1 else [1]
        simulated = measure(
            corpora[0], functools.partial(SleepingTokenizer, SIMULATED_FACTOR), counts, rounds, scratch / "simulated"
        )
        load: Callable[[str], Tokenizer] = functools.partial(load_real, str(scratch / "tokenizer"))
        real = measure(corpora[1], load, cores, rounds, scratch / "real")
        prepared = prepare_speed(16 if quick else 200, rounds, scratch)
    ray.shutdown()
    typer.echo(write_text(out, results(machine, rounds, simulated, real, prepared, sizes)))


if __name__ == "__main__":
    typer.run(main)
