"""Steps with needs, run side by side: what a recipe of several stages is made of.

    steps = [
        Step("corpus", speak_corpus, (config, out)),
        Step("codec", fit_codec, (config, out), needs=("corpus",)),
        Step("semantic", fit_semantic, (config, out), needs=("corpus",)),
    ]
    run_steps(steps, out, num_workers=2)        # codec and semantic at the same time, half of the cores each

A finished step is noted in `<out>/steps/<name>.json` with its times and is not run again; one that was stopped
continues by its own means (every stage of the library resumes). Small models gain little from a second thread,
so two steps on one core each finish well before two steps on both cores in turn.
"""

import json
import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Step:
    """A function at module level (it may run in another process), its arguments, and what must be done before."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """What a step took, in seconds, in the call that finished it."""

    wall_seconds: float
    cpu_seconds: float
    num_threads: int


def run_steps(steps: Sequence[Step], out: str | Path, *, num_workers: int = 2) -> dict[str, StepTimes]:
    """Run what is not done yet, as many steps at a time as there are workers; returns the times of all.

    An error in a step stops the steps that have not begun and is raised here.
    """
    notes = Path(out) / "steps"
    notes.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0))
    num_threads = max(1, cores // num_workers)
    done = {step.name for step in steps if (notes / f"{step.name}.json").exists()}
    waiting = [step for step in steps if step.name not in done]
    running: dict[Future[None], Step] = {}
    columns = (TextColumn("{task.description:<14}"), BarColumn(pulse_style="cyan"), TimeElapsedColumn())
    with (
        Progress(*columns, console=Console(stderr=True)) as bars,
        ProcessPoolExecutor(num_workers, mp_context=_processes(steps), max_tasks_per_child=1) as pool,
    ):
        tasks = {}
        while waiting or running:
            for step in [step for step in waiting if set(step.needs) <= done][: num_workers - len(running)]:
                waiting.remove(step)
                tasks[step.name] = bars.add_task(step.name, total=None)
                running[pool.submit(_run, step, str(notes), num_threads)] = step
            assert running, f"steps {[step.name for step in waiting]} wait for each other"
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                future.result()
                done.add(step.name)
                bars.update(tasks[step.name], total=1, completed=1)
    return {step.name: StepTimes(**json.loads((notes / f"{step.name}.json").read_text())) for step in steps}


def _processes(steps: Sequence[Step]) -> ForkServerContext:
    """Return what makes a process for each step: thread counts and seeds of one step do not reach the next.

    They are forked from a process that has the steps' modules and does nothing, so that torch and transformers are
    imported once and not once for each step (six seconds on a small machine).
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(sorted({step.function.__module__ for step in steps}))
    return context


def _run(step: Step, notes: str, num_threads: int) -> None:
    """Run one step in its process and note its times."""
    threading.Thread(target=_end_with_recipe, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from threadpoolctl import threadpool_limits
    from transformers.utils import logging

    logging.disable_progress_bar()  # the steps have bars of their own
    torch.set_num_threads(num_threads)
    started = time.perf_counter()
    # scikit-learn and BLAS would otherwise take all cores, also those of the step beside this one
    with threadpool_limits(num_threads):
        step.function(*step.arguments)
    times = StepTimes(
        wall_seconds=round(time.perf_counter() - started, 2),
        cpu_seconds=round(_cpu_seconds(), 2),
        num_threads=num_threads,
    )
    partial = Path(notes) / f".{step.name}.partial"
    partial.write_text(json.dumps(asdict(times)) + "\n", encoding="utf-8")
    os.replace(partial, Path(notes) / f"{step.name}.json")


def _end_with_recipe() -> None:
    """End this process once the recipe that started it is gone.

    A step whose recipe was killed would work on; called again, the recipe would start the step a second time, and two
    processes would write to one folder.
    """
    recipe = parent_process()
    assert recipe is not None, "a step runs in a process of its own"
    recipe.join()
    os._exit(1)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
