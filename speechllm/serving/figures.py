"""What a server counts, as one line of its log.

figures = Figures()
figures.answered(200, seconds=0.41); figures.answered(503, seconds=0.0)
figures.line(worker)      # "2 requests: 1 ok, 1 of 5xx; median 0.41 s, 95 % 0.41 s; ..."
"""

import collections
import threading

import numpy as np

from speechllm.serving.worker import ModelWorker

KEPT = 2_000
"Latencies of the last so many answers."


class Figures:
    """Counts since the start, and the latest latencies. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_class: collections.Counter[str] = collections.Counter()
        self._seconds: collections.deque[float] = collections.deque(maxlen=KEPT)

    def answered(self, status: int, seconds: float) -> None:
        """Count one answer; `seconds` from the request's head to the head of the answer."""
        with self._lock:
            self._by_class["ok" if status < 400 else f"of {status // 100}xx"] += 1
            if status < 400:
                self._seconds.append(seconds)

    @property
    def num_requests(self) -> int:
        """Answers so far."""
        with self._lock:
            return sum(self._by_class.values())

    def line(self, worker: ModelWorker) -> str:
        """Return all figures as one line."""
        with self._lock:
            counts, seconds = dict(self._by_class), np.array(self._seconds)
        shown = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), reverse=True)) or "none yet"
        times = f"; median {np.median(seconds):.2f} s, 95 % {np.quantile(seconds, 0.95):.2f} s" if len(seconds) else ""
        jobs, waiting = worker.load()
        mean = worker.num_inputs / max(worker.num_batches, 1)
        return (
            f"{sum(counts.values())} requests: {shown}{times}; {jobs} open with {waiting:.0f} s of audio; "
            f"{worker.num_batches} batches of {mean:.1f} inputs, model busy {worker.busy_seconds:.0f} s"
        )
