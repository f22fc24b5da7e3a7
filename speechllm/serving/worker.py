"""One thread owns the model; requests wait in a bounded queue and are worked on together.

    worker = ModelWorker(system, max_batch=16, queue_size=64)
    worker.start()
    job = worker.submit(Work(TaskTag.of("ASR", "en"), [audio]), deadline_seconds=30)
    job.future.result()          # [TaskOutput], one for each input of the work

A batch is made of what waits when the model becomes free: the oldest job says which task, and all jobs of that task
give one input each, in turn, until the batch is full. So a recording of an hour, cut into pieces, does not hold up a
short one. Where a batch fails, each of its inputs is tried alone: what is wrong with one request is nobody else's
error. Jobs that nobody waits for any more are dropped before the model sees them.
"""

import collections
import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from speechllm.audio import Audio
from speechllm.errors import SpeechLLMError, TaskError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.pipelines.output import TaskOutput
from speechllm.safety import embed_watermark
from speechllm.tasks import TaskTag

logger = logging.getLogger(__name__)


class QueueFullError(SpeechLLMError):
    """No more work is taken at the moment."""


class DeadlineError(SpeechLLMError, TimeoutError):
    """The answer was not there in time."""


@runtime_checkable
class TaskRunner(Protocol):
    """What is needed of a `SpeechSystem` here."""

    def run(
        self,
        tag: TaskTag,
        inputs: Sequence[Audio | str],
        *,
        voice: Sequence[Audio] | None,
        consent: bool,
        watermark: bool,
        decoding: DecodingConfig,
    ) -> list[TaskOutput]:
        """Do one task on a list of inputs."""
        ...


@dataclass(frozen=True, eq=False)
class Work:
    """What a request wants of the model."""

    tag: TaskTag
    inputs: Sequence[Audio | str]
    "Pieces of one recording, or texts."
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    voice: Audio | None = None
    "Speak with it; whoever makes the work has seen to consent."
    start_seconds: float = 0.0
    "Where the speech stands in a longer one: the watermark goes on from there."

    @property
    def audio_seconds(self) -> float:
        """Length of the audio that comes in."""
        return sum((one.duration_seconds for one in self.inputs if isinstance(one, Audio)), 0.0)


class Job:
    """Work on its way; `future` gets one output for each input, or the error."""

    def __init__(self, work: Work, deadline: float):
        self.work, self.deadline = work, deadline
        self.future: Future[list[TaskOutput]] = Future()
        self.next_input = 0
        self.outputs: dict[int, TaskOutput] = {}
        # Only equal keys share a call of the system.
        self.key = (str(work.tag), work.decoding, work.voice is not None)

    @property
    def waiting(self) -> bool:
        """True if an input has not been given to the model."""
        return self.next_input < len(self.work.inputs)

    def take(self) -> tuple["Job", int]:
        """Return the next input."""
        self.next_input += 1
        return self, self.next_input - 1

    def finish(self, number: int, output: TaskOutput) -> None:
        """Take in one output; the last one answers the request."""
        self.outputs[number] = output
        if len(self.outputs) == len(self.work.inputs):
            # Whoever asked may have gone in this very moment.
            with contextlib.suppress(InvalidStateError):
                self.future.set_result([self.outputs[i] for i in range(len(self.outputs))])

    def fail(self, error: BaseException) -> None:
        """Answer the request with an error; what waits of it is dropped."""
        self.next_input = len(self.work.inputs)
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


Place = tuple[Job, int]


class ModelWorker:
    """The thread, its queue and its counts."""

    def __init__(
        self,
        system: TaskRunner,
        *,
        max_batch: int = 16,
        queue_size: int = 64,
        queue_audio_seconds: float = 3600.0,
        gather_seconds: float = 0.01,
    ):
        self.system, self.max_batch, self.gather_seconds = system, max_batch, gather_seconds
        self.queue_size, self.queue_audio_seconds = queue_size, queue_audio_seconds
        self.num_batches, self.num_inputs, self.busy_seconds = 0, 0, 0.0
        self._jobs: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="model", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Take no more work, end what the model is at, and refuse what waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        with self._changed:
            for job in self._jobs:
                job.fail(QueueFullError("the server is stopping"))
            self._jobs.clear()

    @property
    def is_alive(self) -> bool:
        """True while work is done."""
        return self._thread.is_alive() and not self._stopping

    def load(self) -> tuple[int, float]:
        """Return the jobs that wait or are worked on, and their seconds of audio."""
        with self._changed:
            return self._load()

    def check_room(self) -> None:
        """Raise QueueFullError if a job would be refused now."""
        with self._changed:
            self._check_room(0.0)

    def submit(self, work: Work, *, deadline_seconds: float) -> Job:
        """Queue work.

        Raises:
            QueueFullError: too much waits already, or the server is stopping.
            TaskError: there is nothing to do.
        """
        if not work.inputs:
            raise TaskError(f"{work.tag}: there is no input")
        job = Job(work, time.monotonic() + deadline_seconds)
        with self._changed:
            self._check_room(work.audio_seconds)
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def _load(self) -> tuple[int, float]:
        open_jobs = [job for job in self._jobs if not job.future.done()]
        return len(open_jobs), sum((job.work.audio_seconds for job in open_jobs), 0.0)

    def _check_room(self, seconds: float) -> None:
        if self._stopping:
            raise QueueFullError("the server is stopping")
        jobs, waiting = self._load()
        if jobs >= self.queue_size or (jobs and waiting + seconds > self.queue_audio_seconds):
            raise QueueFullError(f"{jobs} requests with {waiting:.0f} s of audio wait already; try again")

    def _loop(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                start = time.monotonic()
                self._work(batch)
                self.busy_seconds += time.monotonic() - start
                self.num_batches, self.num_inputs = self.num_batches + 1, self.num_inputs + len(batch)

    def _next_batch(self) -> list[Place] | None:
        """Wait for work and return the next batch; None when the thread is to end."""
        with self._changed:
            self._drop_finished()
            if not self._jobs:
                self._changed.wait_for(lambda: self._jobs or self._stopping)
                if self.gather_seconds and not self._stopping:
                    self._changed.wait_for(lambda: self._stopping, timeout=self.gather_seconds)
            if self._stopping:
                return None
            self._drop_finished()
            return self._gather()

    def _drop_finished(self) -> None:
        now = time.monotonic()
        for job in self._jobs:
            if job.deadline < now:
                job.fail(DeadlineError("the answer was not there in time"))
        self._jobs = collections.deque(job for job in self._jobs if not job.future.done())

    def _gather(self) -> list[Place]:
        """Return inputs of the oldest job's kind, one of each job in turn."""
        batch: list[Place] = []
        if not self._jobs:
            return batch
        alike = [job for job in self._jobs if job.key == self._jobs[0].key]
        while len(batch) < self.max_batch and (waiting := [job for job in alike if job.waiting]):
            batch += [job.take() for job in waiting[: self.max_batch - len(batch)]]
        # Whoever gave least this time is asked first the next time: jobs of other kinds come before those just served.
        served = {id(job) for job in alike}
        self._jobs = collections.deque(sorted(self._jobs, key=lambda job: id(job) in served))
        return batch

    def _work(self, batch: list[Place]) -> None:
        error = self._try(batch)
        if error is not None and len(batch) > 1:
            for job, number in batch:
                if not job.future.done() and (own := self._try([(job, number)])) is not None:
                    _give_up(job, own)
        elif error is not None:
            _give_up(batch[0][0], error)

    def _try(self, batch: list[Place]) -> Exception | None:
        """Run a batch and hand out its outputs, or return what went wrong."""
        try:
            outputs = self._run(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach the one whose request it was
            return error
        for (job, number), output in zip(batch, outputs, strict=True):
            job.finish(number, output)
        return None

    def _run(self, batch: list[Place]) -> list[TaskOutput]:
        work = batch[0][0].work
        voices = [job.work.voice for job, _ in batch]
        outputs = self.system.run(
            work.tag,
            [job.work.inputs[number] for job, number in batch],
            voice=None if work.voice is None else [voice for voice in voices if voice is not None],
            consent=work.voice is not None,
            watermark=False,
            decoding=work.decoding,
        )
        return [_marked(output, job.work.start_seconds) for output, (job, _) in zip(outputs, batch, strict=True)]


def _give_up(job: Job, error: Exception) -> None:
    if not isinstance(error, SpeechLLMError):
        logger.error("%s failed", job.work.tag, exc_info=error)
    job.fail(error)


def _marked(output: TaskOutput, start_seconds: float) -> TaskOutput:
    """Nothing leaves without the mark; a later piece of a stream goes on where the mark of the first stands."""
    if output.audio is None:
        return output
    return replace(output, audio=embed_watermark(output.audio, start_seconds=start_seconds), is_watermarked=True)
