"""The one training loop for every stage but the LM: CTC encoder, SoundStorm, AudioLM.

    class Regression:                                      # a Stage is any object with these three
        model = nn.Linear(3, 1)
        def batch(self, step): ...                         # from (its seed, step) alone
        def loss(self, batch): return F.mse_loss(self.model(batch["x"]), batch["y"]), {}

    report = train_stage(Regression(), LoopConfig(steps=1_000), "runs/regression")
    report.steps, report.seconds, report.losses[-1]        # killed half-way? call it again: it goes on

Everything in a step follows from (seed, step): the batch, the learning rate, the noise of dropout. So a run
that was killed and called again ends with the same bits as one that was not. Checkpoints are folders
checkpoint-<step>, whole or absent (stage_checkpoint.py). Devices and processes are Accelerate's.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from speechllm.config import config_to_dict
from speechllm.errors import ConfigError, TrainingError
from speechllm.training.optim import OptimizerConfig, build_optimizer
from speechllm.training.out_of_memory import explained_out_of_memory
from speechllm.training.resume import require_same_settings
from speechllm.training.stage_checkpoint import (
    latest_checkpoint,
    load_stage_checkpoint,
    read_state,
    save_stage_checkpoint,
)

HISTORY_FILE = "history.jsonl"
CHANGEABLE = ("max_seconds", "log_every", "save_every", "progress")
"Config keys that may change between two calls for one run: they leave the weights alone."


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how fast and how often."""

    steps: int
    "Optimizer steps in the whole run; the schedule ends there."
    max_seconds: float | None = None
    "Stop, with a checkpoint, once this call has trained for so many seconds."
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    "Which optimizer, and its rates."
    warmup_steps: int = 0
    "Steps over which the rate rises linearly from 0."
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    "How the rate falls to 0 after the warm-up."
    clip_norm: float = 1.0
    "Gradients are scaled down to this norm; 0: never."
    bf16: bool = False
    "Compute the loss under bfloat16 autocast; weights stay float32."
    log_every: int = 10
    "Steps between two rows of history.jsonl."
    save_every: int = 500
    "Steps between two checkpoints; the last step always has one."
    seed: int = 0
    "Seeds dropout and whatever else the model draws, afresh in each step."
    progress: bool = True
    "Show a progress bar."

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected at least 1")


@runtime_checkable
class Stage(Protocol):
    """What is trained."""

    model: nn.Module
    "The network. While the loop runs, several processes wrap it: call it, and no other method of it, in `loss`."

    def batch(self, step: int) -> Any:
        """Return batch number `step`, on the CPU: a function of the stage's own seed and `step` alone."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """Return the loss (a scalar) and numbers to be logged."""
        ...


@dataclass(frozen=True)
class LoopReport:
    """What `train_stage` did."""

    steps: int
    "Steps done, those before a resume included."
    seconds: float
    "Time in training, that before a resume included."
    losses: tuple[float, ...]
    "Loss at each logged step (history.jsonl has the steps)."
    resumed_from: int = 0
    "Step of the checkpoint that this call went on from."


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Return the multiple of the peak rate in step `step` (from 0): warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def train_stage(
    stage: Stage, config: LoopConfig, folder: str | Path, *, heads: Iterable[nn.Parameter] = ()
) -> LoopReport:
    """Train `stage.model` in place for `config.steps` steps, going on from the last checkpoint in `folder`.

    With n processes (`accelerate launch`), process r takes batch `step * n + r`.

    Args:
        stage: model, batches and loss.
        config: for a run that goes on, the same as before, but for times and intervals.
        folder: receives checkpoint-<step>/ (the newest only) and history.jsonl.
        heads: parameters that the optimizer treats as output heads (Muon leaves them to AdamW).

    Raises:
        CheckpointError: the folder holds a run with another config or model.
        TrainingError: loss or gradient is not finite (the message has the step), or memory ran out; the last checkpoint
            stays.
    """
    advice = f"lower the stage's batch size or the length of its crops{'' if config.bf16 else ', or set bf16'}"
    with explained_out_of_memory(advice):
        return _Loop(stage, config, Path(folder), heads).run()


def save_once(save: Callable[[], None]) -> None:
    """Call `save` in the first process; return in each once it is done."""
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        save()
    state.wait_for_everyone()


class _Loop:
    """State of one call of `train_stage`."""

    def __init__(self, stage: Stage, config: LoopConfig, folder: Path, heads: Iterable[nn.Parameter]):
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState

        # The state is the process's: after a Trainer in bf16 it would wrap our model's forward in its autocast.
        AcceleratorState._reset_state()
        # A step need not use every parameter: SoundStorm's free heads serve the levels that the batch drew.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[unused])
        self.stage, self.config, self.folder = stage, config, folder
        self.bare = stage.model.to(self.accelerator.device)
        self.optimizer = build_optimizer(self.bare, config.optimizer, heads=heads)
        self.peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.seconds = 0.0

    def run(self) -> LoopReport:
        """Resume, step until done, save."""
        self.folder.mkdir(parents=True, exist_ok=True)
        first = done = self._resume()
        losses = self._history(first)
        self.stage.model = self.accelerator.prepare_model(self.bare)
        was_training, earlier, started = self.bare.training, self.seconds, time.perf_counter()
        self.bare.train()
        try:
            with _progress_bar(self.config, self.accelerator.is_main_process, first) as show:
                is_last = done >= self.config.steps or self._out_of_time(earlier)
                while not is_last:
                    row = self._step(done)
                    done += 1
                    self.seconds = earlier + time.perf_counter() - started
                    is_last = done == self.config.steps or self._out_of_time(earlier)
                    if is_last or done % self.config.log_every == 0:
                        losses.append(row["loss"])
                        self._log(done, row)
                    if is_last or done % self.config.save_every == 0:
                        self._save(done)
                    show(done, row["loss"])
        finally:
            self.stage.model = self.bare
            self.bare.train(was_training)
        self._share_buffers()
        return LoopReport(done, self.seconds, tuple(losses), resumed_from=first)

    def _step(self, step: int) -> dict[str, float]:
        """Take one optimizer step and return what is to be logged."""
        from accelerate.utils import send_to_device

        accelerator, config = self.accelerator, self.config
        index = step * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(config.seed * 1_000_003 + index)
        batch = send_to_device(self.stage.batch(index), accelerator.device)
        factor = learning_rate_factor(step, config)
        for group, rate in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = rate * factor
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.bf16):
            loss, numbers = self.stage.loss(batch)
        value = loss.item()
        self._check_finite("loss", value, step)
        accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.bare.parameters(), config.clip_norm or math.inf).item()
        self._check_finite("gradient norm", norm, step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": value, **numbers, "gradient_norm": norm, "learning_rate": self.peak_rates[0] * factor}

    def _check_finite(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            last = latest_checkpoint(self.folder)
            raise TrainingError(
                f"{name} is {value} in step {step + 1}, expected a finite number; lower learning_rate "
                f"({self.config.optimizer.learning_rate}) or check the data (last checkpoint: {last or 'none'})"
            )

    def _out_of_time(self, earlier: float) -> bool:
        """Return the first process's answer: clocks differ, and who stops alone leaves the others waiting for ever."""
        from accelerate.utils import broadcast_object_list

        limit = self.config.max_seconds
        if limit is None:
            return False
        return broadcast_object_list([self.seconds - earlier >= limit])[0]

    def _share_buffers(self) -> None:
        """Give every process the first one's buffers, which its checkpoint has: the last step left each its own."""
        from accelerate.utils import broadcast

        if self.accelerator.num_processes > 1:
            for buffer in self.bare.buffers():
                buffer.copy_(broadcast(buffer.clone()))  # pyright: ignore[reportArgumentType]

    def _resume(self) -> int:
        """Restore the last checkpoint, if there is one, and return its step."""
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is None:
            return 0
        then, now = read_state(checkpoint)["config"], config_to_dict(self.config)
        require_same_settings(checkpoint, then, now, changeable=CHANGEABLE)
        state = load_stage_checkpoint(checkpoint, self.bare, self.optimizer)
        self.seconds = state["seconds"]
        return state["step"]

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            state = {"seconds": self.seconds, "config": config_to_dict(self.config)}
            save_stage_checkpoint(self.folder, step, self.bare, self.optimizer, state)
        self.accelerator.wait_for_everyone()

    def _log(self, step: int, row: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            line = json.dumps({"step": step, **row, "seconds": round(self.seconds, 3)})
            with (self.folder / HISTORY_FILE).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _history(self, step: int) -> list[float]:
        """Cut history.jsonl back to `step` (a killed run logs beyond its checkpoint) and return its losses."""
        path = self.folder / HISTORY_FILE
        if not path.exists():
            return []
        # A line that the kill cut short is beyond the checkpoint, too: checkpoints are written after their row.
        kept = [
            line
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.endswith("}") and json.loads(line)["step"] <= step
        ]
        if self.accelerator.is_main_process:
            partial = path.with_name(f".{HISTORY_FILE}.partial")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            partial.replace(path)
        return [json.loads(line)["loss"] for line in kept]


@contextmanager
def _progress_bar(config: LoopConfig, is_main: bool, first: int) -> Iterator[Callable[[int, float], None]]:
    """Yield show(step, loss), which moves a bar on the terminal (or does nothing)."""
    if not (config.progress and is_main):
        yield lambda step, loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=config.steps, completed=first)
        yield lambda step, loss: progress.update(task, completed=step, description=f"loss {loss:.3f}")
