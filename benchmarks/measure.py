"""Timing side by side, and results as text: the same few lines for every benchmark.

    seconds = interleave({"ours": ours, "theirs": theirs}, rounds=5)      # A B A B A B A B A B
    Spread.of(seconds["ours"])                                            # min, median, max
    ratio(seconds["theirs"], seconds["ours"])                             # per round, so slow phases cancel

A machine that others use is slow in phases. Candidates therefore take turns within a round, a ratio is formed
within its round, and every figure carries its spread. With one thread, time is CPU time: what others take from the
core does not count (what they take from caches and memory still does).
"""

import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

Clock: TypeAlias = Callable[[], float]
"Returns seconds; only differences mean something."


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some repeated measurements."""

    low: float
    median: float
    high: float
    num_rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise measurements; at least one."""
        assert values, "a spread needs measurements"
        return cls(min(values), statistics.median(values), max(values), len(values))

    def show(self, digits: int = 1) -> str:
        """Return "median (min to max)"."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def clock_for(num_threads: int, device: str = "cpu") -> Clock:
    """Return CPU time of this process for one thread, wall time for several (whose CPU times would add up).

    On a GPU it is wall time once the GPU has done all it was given.
    """
    if device != "cpu":
        import torch

        return lambda: (torch.cuda.synchronize(device), time.perf_counter())[1]
    return time.process_time if num_threads == 1 else time.perf_counter


def interleave(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each candidate in each round; the candidates take turns, the order flips every round."""
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_index in range(rounds):
        names = list(candidates)
        for name in names if round_index % 2 == 0 else reversed(names):
            start = clock()
            candidates[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Return the spread of the ratios formed round by round."""
    return Spread.of([a / b for a, b in zip(numerators, denominators, strict=True)])


def rates(amount: float, seconds: Sequence[float]) -> list[float]:
    """Return amount per second for each round."""
    return [amount / value for value in seconds]


def peak_memory_mib() -> float:
    """Return the largest resident set of this program so far, MiB (Linux counts in KiB)."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage counts what the parent had before this program began, too
        words = status.read_text(encoding="ascii").split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        assert len(row) == len(header), f"{len(row)} cells under {len(header)} headings"
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def write_text(path: Path, text: str) -> Path:
    """Write a result file, whole or not at all."""
    return _write_whole(path, lambda partial: partial.write_text(text.rstrip() + "\n", encoding="utf-8"))


def write_figure(path: Path, figure: Any, *, dpi: int) -> Path:
    """Write a matplotlib figure as PNG, whole or not at all."""
    return _write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=dpi))


def _write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    write(partial)
    os.replace(partial, path)
    return path
