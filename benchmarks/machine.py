"""What the machine can do at most, measured beside everything else: matmul GFLOP/s and memory bandwidth.

    machine = measure_machine(num_threads=1)
    machine.matmul["bfloat16"].median       # GFLOP/s
    200 / machine.matmul["bfloat16"].median # what share of it a training step reaches

    python -m benchmarks.machine

A figure in tokens per second belongs to one machine in one hour. As a share of the ceiling of the same run it says
something about the program.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.measure import Clock, Spread, clock_for, table, write_text

MATMUL_DTYPES = ("float32", "bfloat16")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The processor and its ceilings."""

    processor: str
    num_cores: int
    num_threads: int
    device: str
    "cpu, or the name of a GPU, whose ceilings then are the ceilings."
    memory_gib: float
    versions: dict[str, str]
    matmul: dict[str, Spread]
    "GFLOP/s of a square matrix product, by dtype."
    bandwidth: Spread
    "GB/s read and written by copying a block that no cache holds."
    load: float
    "Runnable processes when the measurement began: more than this program needs means that others were at work."

    def describe(self) -> str:
        """Return the machine as a markdown table."""
        packages = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        rows = [
            ["processor", f"{self.processor}, {self.num_cores} cores, {self.memory_gib:.0f} GiB"],
            *([] if self.device == "cpu" else [["device", self.device]]),
            ["threads used", f"{self.num_threads}; {'CPU' if self._counts_cpu_time else 'wall'} time"],
            ["packages", packages],
            *[[f"matmul {dtype}, GFLOP/s", self.matmul[dtype].show(0)] for dtype in self.matmul],
            ["copy bandwidth, GB/s", self.bandwidth.show(1)],
            ["load average at the start", f"{self.load:.1f}"],
        ]
        return table(["machine", "median (min to max)"], rows)

    @property
    def _counts_cpu_time(self) -> bool:
        return self.num_threads == 1 and self.device == "cpu"


def measure_machine(*, num_threads: int = 1, quick: bool = False, device: str = "cpu") -> Machine:
    """Describe the machine and measure its ceilings, or those of a GPU, with `num_threads` threads."""
    load, clock = os.getloadavg()[0], clock_for(num_threads, device)
    full_size, full_block = (1024, 256) if device == "cpu" else (8192, 2048)
    with threads(num_threads):
        size, rounds = (256, 3) if quick else (full_size, 9)
        matmul = {dtype: matmul_gflops(size, dtype, rounds, clock, device=device) for dtype in MATMUL_DTYPES}
        bandwidth = copy_bandwidth(16 if quick else full_block, rounds, clock, device=device)
    return Machine(
        processor=processor_name(),
        num_cores=os.cpu_count() or 1,
        num_threads=num_threads,
        device=device if device == "cpu" else torch.cuda.get_device_name(device),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        versions={"python": platform.python_version(), **{name: version(name) for name in ("torch", "transformers")}},
        matmul=matmul,
        bandwidth=bandwidth,
        load=load,
    )


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Let torch use `num_threads` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matmul_gflops(size: int, dtype: str, rounds: int, clock: Clock, *, device: str = "cpu") -> Spread:
    """Return GFLOP/s of [size, size] @ [size, size]: 2 size^3 operations each."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(device, getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(left)
    repeats = 3
    measured = []
    for index in range(rounds + 1):
        start = clock()
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        seconds = clock() - start
        if index:  # the first round wakes the caches and the clock
            measured.append(2 * size**3 * repeats / seconds / 1e9)
    return Spread.of(measured)


def copy_bandwidth(mebibytes: int, rounds: int, clock: Clock, *, device: str = "cpu") -> Spread:
    """Return GB/s for copying a block, counting what is read and what is written."""
    source = torch.ones(mebibytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    measured = []
    for index in range(rounds + 1):
        start = clock()
        target.copy_(source)
        seconds = clock() - start
        if index:
            measured.append(2 * source.numel() * 4 / seconds / 1e9)
    return Spread.of(measured)


def processor_name() -> str:
    """Return what the processor calls itself."""
    path = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (path.read_text().splitlines() if path.exists() else [])
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor() or platform.machine()


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "machine.md",
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Measure the machine with one thread and with all cores."""
    counts = sorted({1, os.cpu_count() or 1})
    parts = [measure_machine(num_threads=count, quick=quick).describe() for count in counts]
    text = "\n\n".join(["# The machine", "`python -m benchmarks.machine`", *parts])
    typer.echo(write_text(out, text))


if __name__ == "__main__":
    typer.run(main)
