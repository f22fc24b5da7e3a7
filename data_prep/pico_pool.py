"""Several Pico processes at once, with the answers in the order of the requests.

    requests = [SpeechRequest("good morning", "en-GB", pitch=1.0, speed=1.0), ...]
    for flac in speak_all(requests, num_workers=2): ...

Worker k gets the requests k, k + n, k + 2n, ... A few requests are under way per worker, so that memory
stays bounded and neither side of a pipe ever waits for the other for good.
"""

import importlib.util
import itertools
import json
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from speechllm.errors import DataError, MissingDependencyError

_WORKER_FILE = Path(__file__).with_name("pico_worker.py")
_UNDER_WAY = 4
"Requests sent ahead to each worker: a few hundred bytes, always less than a pipe holds."
_ERROR_MARK = 0xFFFFFFFF


@dataclass(frozen=True)
class SpeechRequest:
    """What Pico is asked to say. `pitch` and `speed` are factors, 1 is the voice's own."""

    text: str
    voice: str
    pitch: float
    speed: float


def speak_all(requests: Iterable[SpeechRequest], num_workers: int | None = None) -> Iterator[bytes]:
    """Yield the FLAC bytes (16 kHz, mono, 16 bit) of each request, in order; the same request gives the same bytes.

    Raises:
        MissingDependencyError: py-nanotts is not installed.
        DataError: Pico refused a request, or a worker died.
    """
    if importlib.util.find_spec("py_nanotts") is None:
        raise MissingDependencyError("py-nanotts", "quickstart", "speech synthesis with SVOX Pico")
    workers = [_Worker() for _ in range(num_workers or os.cpu_count() or 1)]
    try:
        waiting = iter(requests)
        under_way: deque[tuple[_Worker, SpeechRequest]] = deque()
        for worker, request in zip(workers * _UNDER_WAY, waiting, strict=False):
            worker.send(request)
            under_way.append((worker, request))
        while under_way:
            worker, request = under_way.popleft()
            yield worker.receive(request)
            # The worker that has just answered is the next in turn.
            for following in itertools.islice(waiting, 1):
                worker.send(following)
                under_way.append((worker, following))
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    def __init__(self) -> None:
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576", "OMP_NUM_THREADS": "1"}
        # -P keeps the folder of the file, which has modules with common names, out of the import path.
        command = [sys.executable, "-P", str(_WORKER_FILE)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def send(self, request: SpeechRequest) -> None:
        assert self._process.stdin is not None, "opened with a pipe"
        try:
            self._process.stdin.write((json.dumps(asdict(request)) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise DataError(f"the speech process died (exit {self._process.wait()}) before {request.text!r}") from error

    def receive(self, request: SpeechRequest) -> bytes:
        (length,) = struct.unpack(">I", self._read(4, request))
        if length == _ERROR_MARK:
            (length,) = struct.unpack(">I", self._read(4, request))
            reason = self._read(length, request).decode()
            raise DataError(f"Pico cannot say {request.text!r} with voice {request.voice!r}: {reason}")
        return self._read(length, request)

    def _read(self, length: int, request: SpeechRequest) -> bytes:
        assert self._process.stdout is not None, "opened with a pipe"
        content = self._process.stdout.read(length)
        if len(content) < length:
            raise DataError(f"the speech process died (exit {self._process.wait()}) at {request.text!r}")
        return content

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._process.wait()
