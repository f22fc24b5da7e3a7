"""Many workers on Ray, any of which may die: each job is done by one of them, and its result comes once.

    with RayPool(make_worker, RayConfig(num_workers=8, gpus_per_worker=0.5)) as pool:
        for job, result in pool.map(jobs):          # as they are done, in any order
            ...

`make_worker()` runs once in each worker and returns the function that does the jobs: what is costly to load is loaded
there. A worker is an actor, as it has to hold a model and its share of a GPU for the whole run, and it has one job at a
time; this side gives them out. Whoever is ready gets work, so workers that the cluster has no room for hold nothing up.
A worker that dies is replaced and its job given to another one. Ray Data does the same with more machinery; what
it does not do is to stop at a job that kills every worker which takes it up, and to name it.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from speechllm.errors import ConfigError, DataError, MissingDependencyError, SpeechLLMError

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """How many workers, and what each of them needs."""

    num_workers: int | None = None
    "Workers wanted; None: as many as the cluster has room for."
    cpus_per_worker: float = 1.0
    "Cores that each reserves; also how many threads it uses."
    gpus_per_worker: float = 0.0
    "GPUs that each reserves; 0.5 lets two share one."
    address: str | None = None
    "Of a cluster (`auto`, or host:port); None: the one that runs here, or a new one on this machine alone."
    max_attempts: int = 3
    "Workers that may die over one job before it is given up."

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"num_workers = {self.num_workers}, expected at least 1")
        for name in ("cpus_per_worker", "gpus_per_worker"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected 0 or more")
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts = {self.max_attempts}, expected at least 1")


class RayPool(Generic[Job, Result]):
    """Workers, from the start of the `with` block to its end."""

    def __init__(self, make_worker: Callable[[], Callable[[Job], Result]], config: RayConfig):
        """`make_worker` is sent to the workers: a function or an object that pickles."""
        self._make_worker, self.config = make_worker, config
        self._ray = load_ray()
        self._owns_cluster = not self._ray.is_initialized()
        self._busy: dict[Any, tuple[Any, tuple[int, Job] | None]] = {}
        self._idle: list[Any] = []
        self._failed_starts = 0

    def __enter__(self) -> Self:
        if self._owns_cluster:
            try:
                start_cluster(address=self.config.address, logging_level="error")
            except (ConnectionError, ValueError) as error:
                where = self.config.address
                raise ConfigError(f"cannot reach a Ray cluster at {where!r}: {error}; give the address") from error
        options = {"num_cpus": self.config.cpus_per_worker, "num_gpus": self.config.gpus_per_worker, "max_restarts": 0}
        self._actors = self._ray.remote(**options)(_Worker)
        for _ in range(self.config.num_workers or self._room()):
            self._start()
        return self

    def __exit__(self, *error: object) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor)
        self._idle, self._busy = [], {}
        if self._owns_cluster:
            self._ray.shutdown()

    def wait_until_ready(self) -> None:
        """Return once every worker has loaded what it needs, which the cluster must have room for."""
        while self._busy:
            self._finish_one(Counter(), deque())

    def map(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Yield every job with its result, as they are done.

        Raises:
            DataError: a job, or starting, has killed `max_attempts` workers. Errors that a job raises are raised here.
        """
        waiting = deque(enumerate(jobs))
        attempts: Counter[int] = Counter()
        self._give_out(waiting)
        while waiting or any(job is not None for _, job in self._busy.values()):
            done = self._finish_one(attempts, waiting)
            # Before the result is used: a worker does not wait until it is written.
            self._give_out(waiting)
            if done is not None:
                yield done

    def _give_out(self, waiting: "deque[tuple[int, Job]]") -> None:
        """Give the next jobs to those who have none."""
        while waiting and self._idle:
            actor, job = self._idle.pop(), waiting.popleft()
            self._busy[actor.run.remote(job[1])] = (actor, job)

    def _finish_one(self, attempts: "Counter[int]", waiting: "deque[tuple[int, Job]]") -> tuple[Job, Result] | None:
        """Wait until a worker is ready or done or dead; return what it has done."""
        (reference, *_), _ = self._ray.wait(list(self._busy), num_returns=1)
        actor, job = self._busy.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self._idle.append(actor)
            # An error of ours is what the user has to see, without the worker's traceback around it.
            if isinstance(error.cause, SpeechLLMError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            self._ray.kill(actor)
            self._note_death(job, attempts, error)
            if job is not None:
                waiting.appendleft(job)
            self._start()
            return None
        self._failed_starts = 0
        self._idle.append(actor)
        return None if job is None else (job[1], result)

    def _note_death(self, job: tuple[int, Job] | None, attempts: "Counter[int]", error: Exception) -> None:
        if job is None:
            self._failed_starts += 1
            count, what = self._failed_starts, "its start"
        else:
            attempts[job[0]] += 1
            count, what = attempts[job[0]], str(job[1])
        if count >= self.config.max_attempts:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise DataError(
                f"{count} workers died over {what}: {reason}; look for a broken record or for too little memory, "
                "then run again: what is finished is kept"
            )

    def _start(self) -> None:
        actor = self._actors.remote(self._make_worker)
        self._busy[actor.start.remote()] = (actor, None)

    def _room(self) -> int:
        """Return how many workers the cluster has room for, at least one."""
        resources, config = self._ray.cluster_resources(), self.config
        wanted = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
        rooms = [int(resources.get(name, 0) / share) for name, share in wanted.items() if share > 0]
        if rooms and min(rooms) < 1:
            raise ConfigError(
                f"a worker needs {config.cpus_per_worker:g} CPUs and {config.gpus_per_worker:g} GPUs, the cluster has "
                f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}; ask for less"
            )
        return min(rooms, default=1)


class _Worker:
    """What runs in an actor."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]):
        self._make = make

    def start(self) -> None:
        self._run = self._make()

    def run(self, job: Any) -> Any:
        return self._run(job)


def start_cluster(**options: Any) -> Any:
    """Join the cluster at `address`, or start one on this machine, and return the module `ray`.

    Ray starts workers with niceness 15: beside anything else that computes on the machine they hardly get a thirtieth
    of a core. Those of a cluster that is started here are equals. (Who runs `ray start` sets RAY_worker_niceness.)
    """
    ray = load_ray()
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(include_dashboard=False, **options)
    return ray


def load_ray() -> Any:
    """Return the module `ray`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("ray", "ray", "work on a Ray cluster (--engine ray)") from error
    return ray
