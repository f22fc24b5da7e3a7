"""The HF Trainer for packed rows: our loss, our optimizer, our gauges; all else is stock.

    trainer = UnifiedTrainer(model, rows, collator, vocabulary, TrainingConfig(max_steps=100), optimizer_config, folder)
    trainer.run()          # continues by itself from the last complete checkpoint in `folder`

The loss is the mean cross-entropy over all target ids of a step, however they fall on rows, micro-batches
and processes. What is logged beside it: the loss of text and of audio ids, each also per task, real tokens per
second, their share of the batch, and MFU on GPUs that are known (throughput.py). Interrupted and continued training
gives the very weights of uninterrupted training: rows are replayed, optimizer, schedule and random states restored.
(The Trainer's own resume state is read by torch with weights_only; model weights are safetensors.)
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from speechllm.config import config_to_dict
from speechllm.data.collate import IGNORED, Collator
from speechllm.data.packing import PackedRows
from speechllm.errors import CheckpointError, ConfigError, TrainingError
from speechllm.training.dropout import residual_dropout
from speechllm.training.experts import balance_options, balance_weight
from speechllm.training.kernels import check_kernels
from speechllm.training.optim import OptimizerConfig, build_optimizer
from speechllm.training.out_of_memory import explained_out_of_memory
from speechllm.training.resume import require_same_settings
from speechllm.training.sharding import check_sharding
from speechllm.training.throughput import model_work, peak_flops
from speechllm.training.trackers import trackers
from speechllm.vocabulary import SEMANTIC, Vocabulary

MODALITIES = ("text", "audio")
MODEL_INPUTS = ("input_ids", "position_ids", "attention_mask")
SETTINGS_FILE = "settings.json"
"Beside the checkpoints: what the run was told."
CHANGEABLE = (
    "gradient_checkpointing", "cpu", "log_every", "save_every", "keep_checkpoints", "report_to", "show_progress",
    "peak_tflops", "liger", "prefetch",
)  # fmt: skip
"Training settings that may change between two calls for one run: but for rounding they leave the weights alone."
CHECKPOINTING = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)
"What the Trainer calls it: transformers 5.23 has a new name."
LOGITS_MULTIPLE = 256
"Logits rows are rounded up to a multiple of this: kernels are made anew for every new size of a matrix."


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how much at once, and what to write down. The defaults fit a laptop."""

    max_steps: int
    "Optimizer steps."
    max_tokens: int = 512
    "Length of a packed row; also the longest example that is trained on."
    rows_per_batch: int = 8
    "Rows per device and micro-batch."
    gradient_accumulation: int = 1
    "Micro-batches per step."
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    "Learning rate after the warm-up: falls to 0 in a line or half a cosine, or stays."
    warmup_steps: int = 20
    "Steps over which the learning rate rises from 0."
    max_grad_norm: float = 1.0
    "Gradients are scaled down to this norm; 0: never."
    dropout: float = 0.0
    "Share of what embeddings, attention and feed-forward layers put out that is dropped, beside the family's own."
    router_loss: float | None = None
    "Weight of the loss that balances the experts of a mixture-of-experts LLM; None: as its config says; 0: none."
    bf16: bool = False
    "Autocast to bfloat16, on a CPU too (the weights keep their type)."
    gradient_checkpointing: bool = False
    "Compute activations twice to save memory."
    liger: bool = False
    "Liger's Triton kernels for norms, rotary positions and feed-forward layers (package liger-kernel, a GPU)."
    cpu: bool = False
    "Stay on the CPU even if there is a GPU."
    prefetch: int = 0
    "Batches that a process of its own makes ahead, so that a GPU need not wait for them; 0: made in between."
    log_every: int = 10
    "Steps between log lines."
    save_every: int | None = None
    "Steps between resumable checkpoints; None: only what the recipe saves at the end."
    keep_checkpoints: int = 2
    "How many of them stay on disk."
    report_to: list[str] | None = None
    "Trackers: tensorboard, wandb, trackio, ...; None: tensorboard if it is installed. []: none."
    peak_tflops: float | None = None
    "Peak of one accelerator in bfloat16 TFLOP/s, for MFU; None: of known GPUs, by name. Not known: no MFU."
    show_progress: bool = True
    "Draw the Trainer's progress bar."
    seed: int = 0
    "Of dropout and whatever else draws random numbers during training."

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_tokens", "rows_per_batch", "gradient_accumulation", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected at least 1")
        if self.prefetch < 0:
            raise ConfigError(f"prefetch = {self.prefetch}, expected 0 or more")
        if self.router_loss is not None and self.router_loss < 0:
            raise ConfigError(f"router_loss = {self.router_loss}, expected 0 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout}, expected 0 or more and less than 1")

    def arguments(self, folder: Path, learning_rate: float) -> TrainingArguments:
        """Return what the HF Trainer wants to know."""
        recompute: dict[str, Any] = {CHECKPOINTING: True} if self.gradient_checkpointing else {}
        return TrainingArguments(
            output_dir=str(folder),
            max_steps=self.max_steps,
            per_device_train_batch_size=self.rows_per_batch,
            gradient_accumulation_steps=self.gradient_accumulation,
            learning_rate=learning_rate,
            lr_scheduler_type=self.schedule,
            warmup_steps=self.warmup_steps,
            max_grad_norm=self.max_grad_norm,
            bf16=self.bf16,
            **recompute,
            use_cpu=self.cpu or not torch.accelerator.is_available(),
            logging_steps=self.log_every,
            logging_nan_inf_filter=False,
            save_strategy="no" if self.save_every is None else "steps",
            save_steps=self.save_every or 500,
            save_total_limit=self.keep_checkpoints,
            report_to=trackers(self.report_to) or "none",
            disable_tqdm=not self.show_progress,
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            use_liger_kernel=self.liger,
            # The loss is ours, over targets alone: Liger's would make logits of everything, or none that we see.
            liger_kernel_config={"cross_entropy": False, "fused_linear_cross_entropy": False},
            # One process at most: of several each would make every row.
            dataloader_num_workers=min(self.prefetch, 1),
            dataloader_prefetch_factor=self.prefetch or None,
            dataloader_pin_memory=False,
            seed=self.seed,
        )


class UnifiedTrainer(Trainer):
    """Trains a causal LM on packed rows of task examples (or of plain text)."""

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        rows: PackedRows,
        collator: Collator,
        vocabulary: Vocabulary | None,
        config: TrainingConfig,
        optimizer: OptimizerConfig,
        folder: str | Path,
        *,
        settings: Mapping[str, Any] | None = None,
    ):
        """`vocabulary` tells audio from text ids; None: all is text.

        `settings` are plain data beside config and optimizer that a continued run must have in common with its past:
        its data, its model.
        """
        self.settings = {"training": config_to_dict(config), "optimizer": config_to_dict(optimizer), **(settings or {})}
        self.cache_settings = cache_settings(model)
        self._output_layer = cast(nn.Module, cast(PreTrainedModel, model).get_output_embeddings())
        self.rows, self.optimizer_config, self.folder = rows, optimizer, Path(folder)
        self.dropout = config.dropout
        self._first_audio_id = vocabulary[SEMANTIC].start if vocabulary is not None else None
        self._names = ("other", *collator.tags)
        self._sums = torch.zeros(2, len(self._names), len(MODALITIES), dtype=torch.float64)
        self._work = torch.zeros(3, dtype=torch.float64)  # real tokens, pairs of them, places for tokens
        self._balance_weight = balance_weight(cast(nn.Module, model), config.router_loss)
        self._balance_options = balance_options(cast(nn.Module, model), self._balance_weight)
        self._balance: list[Tensor] = []
        self._clock = time.monotonic()
        self._model_work = model_work(model)
        self.config = config
        arguments = config.arguments(self.folder, optimizer.learning_rate)
        if arguments.n_gpu > 1:
            raise ConfigError(
                f"one process sees {arguments.n_gpu} GPUs, expected one for each process; start with "
                "`accelerate launch` or torchrun, or set CUDA_VISIBLE_DEVICES to one of them"
            )
        check_kernels(model, liger=config.liger, rows_per_batch=config.rows_per_batch, device=arguments.device)
        with explained_out_of_memory(memory_advice(config, optimizer, model)):  # this puts the weights on the GPU
            super().__init__(model=model, args=arguments, train_dataset=rows, data_collator=collator)  # pyright: ignore[reportArgumentType]
        self.loss_is_scaled_for_ga = True
        check_sharding(self.accelerator, cast(nn.Module, model), optimizer)

    def run(self) -> list[dict[str, float]]:
        """Train, from the last complete checkpoint if there is one, and return the log.

        Raises:
            TrainingError: the loss is not finite, or memory ran out (the message says what to lower).
            CheckpointError: the folder holds a run with other settings.
        """
        dropout = residual_dropout(cast(nn.Module, self.model), self.dropout)
        with caches_off(self.cache_settings), dropout, explained_out_of_memory(self._advice()):
            with self.accelerator.main_process_first():  # it removes what is incomplete; the others must not see that
                checkpoint = last_checkpoint(self.folder)
                self._check_settings(checkpoint)
            self._clock = time.monotonic()
            self.train(resume_from_checkpoint=checkpoint)
        # Accelerate leaves its autocast around `forward`; who decodes next wants the weights' own type.
        self.model = self.accelerator.unwrap_model(cast(nn.Module, self.model), keep_fp32_wrapper=False)
        return self.state.log_history

    def _advice(self) -> str:
        return memory_advice(self.config, self.optimizer_config, cast(nn.Module, self.model))

    def _check_settings(self, checkpoint: str | None) -> None:
        """Compare the settings with those that the run began with, or write them down for the next call."""
        path = self.folder / SETTINGS_FILE
        if checkpoint is not None and path.exists():
            then = json.loads(path.read_text(encoding="utf-8"))
            require_same_settings(checkpoint, then, self.settings, changeable=CHANGEABLE)
        elif self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{SETTINGS_FILE}.partial")
            partial.write_text(json.dumps(self.settings, indent=1) + "\n", encoding="utf-8")
            partial.replace(path)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer of the config (the Trainer's own arguments know one rate for all)."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model if model is None else model, self.optimizer_config)  # pyright: ignore[reportArgumentType]
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the summed cross-entropy of the targets over the number of targets in the whole step."""
        outputs, targets, places = outputs_at_targets(model, inputs, self._output_layer, self._balance_options)
        losses = nn.functional.cross_entropy(outputs.logits.float(), targets, reduction="none")
        count = num_items_in_batch if num_items_in_batch is not None else max(len(targets), 1)
        loss = losses.sum() / count
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; "
                "lower the learning rate, or lengthen the warm-up, and start again from the last checkpoint"
            )
        self._count(losses.detach(), targets, places, inputs)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # Gradients are averaged over processes, but `count` is already that of all of them.
            loss = loss * self.accelerator.num_processes
        if self._balance_weight:
            # A mean over the micro-batches of a step, as over processes.
            loss = loss + self._balance_weight * outputs.aux_loss / self.args.gradient_accumulation_steps
            self._balance.append(outputs.aux_loss.detach())
        return (loss, {}) if return_outputs else loss

    def _count(self, losses: Tensor, targets: Tensor, places: Tensor, inputs: dict[str, Any]) -> None:
        audio = torch.zeros_like(targets) if self._first_audio_id is None else (targets >= self._first_audio_id).long()
        task = inputs["task_ids"].flatten()[places + 1] if "task_ids" in inputs else torch.zeros_like(targets)
        # Summed where they are: to fetch them would let the accelerator wait. (Apple's has no float64.)
        kind = torch.float32 if losses.device.type == "mps" else torch.float64
        bucket, num_buckets = task * len(MODALITIES) + audio, self._sums[0].numel()
        sums = torch.bincount(bucket, losses.to(kind), num_buckets), torch.bincount(bucket, minlength=num_buckets)
        self._sums = self._sums.to(losses.device, kind) + torch.stack([s.to(kind) for s in sums]).view_as(self._sums)
        if "row_work" in inputs:
            places_in_batch = torch.full((1,), inputs["input_ids"].numel(), device=losses.device)
            work = torch.cat([inputs["row_work"].sum(dim=0).to(losses.device), places_in_batch])
            self._work = self._work.to(losses.device, kind) + work

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our gauges to every line of the training log."""
        if "loss" in logs:
            logs |= self._gauges()
        super().log(logs, start_time)

    def pause(self, seconds: float) -> None:
        """Leave out so much time, in which nothing was trained, of the next line's speed."""
        self._clock += seconds

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the precision that passes of this training run in."""
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.config.bf16)

    def _gauges(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._clock, 1e-9)
        totals = [self._sums.clone(), self._work.clone()]
        if self.accelerator.num_processes > 1:
            totals = [cast(Tensor, self.accelerator.reduce(t.to(self.args.device), "sum")) for t in totals]
        (sums, counts), (tokens, pairs, slots) = totals[0].cpu(), totals[1].tolist()
        gauges = {
            "tokens_per_second": round(tokens / seconds, 1),
            "non_pad_share": round(tokens / max(slots, 1.0), 4),
        }
        if not self.config.prefetch:  # else the process that makes the rows counts them
            gauges["examples_too_long"] = float(self.rows.report.too_long)
        peak = peak_flops(self.args.device, self.config.peak_tflops)
        if peak is not None:
            flops = self._model_work.flops(tokens=tokens, targets=float(counts.sum()), pairs=pairs)
            gauges["mfu"] = round(flops / seconds / peak / self.accelerator.num_processes, 4)
        if self.args.device.type == "cuda":
            gauges["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(self.args.device) / 2**30, 2)
        for m, modality in enumerate(MODALITIES):
            if counts[:, m].sum() > 0:
                gauges[f"loss_{modality}"] = float(sums[:, m].sum() / counts[:, m].sum())
            for t, name in enumerate(self._names):
                if counts[t, m] > 0 and name != "other":
                    gauges[f"loss_{modality}/{name.replace(' ', '-')}"] = float(sums[t, m] / counts[t, m])
        if self._balance:
            gauges["loss_balance"] = float(torch.stack(self._balance).mean())
        self._balance.clear()
        self._sums.zero_()
        self._work.zero_()
        self._clock = time.monotonic()
        return gauges


def memory_advice(training: TrainingConfig, optimizer: OptimizerConfig, model: nn.Module) -> str:
    """Return what may be lowered when a training does not fit, cheapest first."""
    ways: list[str] = []
    if training.rows_per_batch > 1:
        ways.append(f"training.rows_per_batch ({training.rows_per_batch}; gradient_accumulation makes up for it)")
    ways.append(f"training.max_tokens ({training.max_tokens})")
    ways = [f"lower {' or '.join(ways)}"]
    if not training.bf16:
        ways.append("set training.bf16")
    if not training.gradient_checkpointing:
        ways.append("set training.gradient_checkpointing")
    if not hasattr(model, "peft_config"):
        if optimizer.kind not in ("adafactor", "adamw8bit"):
            ways.append("take optimizer.kind adafactor or adamw8bit")
        ways.append("train adapters instead (lora)")
    if not getattr(model, "is_loaded_in_4bit", False):
        ways.append("keep the base in four bits (lora.four_bit)")
    return ", ".join(ways)


def target_losses(
    model: nn.Module, batch: Mapping[str, Tensor], output_layer: nn.Module
) -> tuple[Float[Tensor, " M"], Int[Tensor, " M"], Int[Tensor, " M"]]:
    """Return cross-entropy and id of every target, and the places b * T + t whose logits predict them."""
    outputs, targets, places = outputs_at_targets(model, batch, output_layer, {})
    return nn.functional.cross_entropy(outputs.logits.float(), targets, reduction="none"), targets, places


def outputs_at_targets(
    model: nn.Module, batch: Mapping[str, Tensor], output_layer: nn.Module, options: Mapping[str, bool]
) -> tuple[Any, Int[Tensor, " M"], Int[Tensor, " M"]]:
    """Return the model's outputs with logits [M, V] for the targets alone, their ids, and the places of these logits.

    Logits at t predict the label at t + 1. Most positions have no loss, and logits [B, T, V] are the largest
    tensors of a step: the model's output layer gets to see the M places alone. (`logits_to_keep` of transformers
    can only name the same positions for every row.)
    """
    shifted = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
    places = (shifted != IGNORED).nonzero().squeeze(1)
    filled = nn.functional.pad(places, (0, -len(places) % LOGITS_MULTIPLE))
    inputs = {name: batch[name] for name in MODEL_INPUTS if name in batch}
    hook = output_layer.register_forward_pre_hook(lambda _, args: (args[0].flatten(0, 1)[filled], *args[1:]))
    try:
        outputs = model(**inputs, **options, use_cache=False)
    finally:
        hook.remove()
    outputs.logits = outputs.logits[: len(places)]
    return outputs, shifted[places], places


def cache_settings(model: nn.Module) -> list[tuple[Any, bool]]:
    """Return (config, its `use_cache`) for every config inside a model."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    return [(config, config.use_cache) for config in configs if config is not None and hasattr(config, "use_cache")]


@contextlib.contextmanager
def caches_off(settings: list[tuple[Any, bool]]) -> Iterator[None]:
    """Set `use_cache` to False in the configs, and back at the end to what `settings` has.

    With a cache transformers does not see that rows are packed and lets attention cross examples; the Trainer
    itself changes only the outermost config, on construction, and would leave it so in the saved model.
    """
    try:
        for config, _ in settings:
            config.use_cache = False
        yield
    finally:
        for config, value in settings:
            config.use_cache = value


def last_checkpoint(folder: str | Path) -> str | None:
    """Return the newest complete checkpoint in `folder`; remove the ones that a kill left half-written.

    The Trainer writes trainer_state.json last, so a checkpoint is complete if that file can be read.
    """
    found = sorted(Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    complete: list[Path] = []
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            complete.append(path)
        except (OSError, json.JSONDecodeError):
            _remove(path)
    return str(complete[-1]) if complete else None


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise CheckpointError(f"{path} is incomplete and cannot be removed: {error.strerror}; remove it") from error


def curve(history: Sequence[dict[str, float]], name: str) -> list[tuple[int, float]]:
    """Return [(step, value), ...] of one logged quantity."""
    return [(int(line["step"]), line[name]) for line in history if name in line]
