"""Training speed: packed rows with `UnifiedTrainer` against a padding collator with the plain HF Trainer.

    python -m benchmarks.training

Same model, same examples of mixed length, same optimizer, bfloat16 autocast for all; only the layout differs.

    packed              whole examples in rows of 512, positions restart, no attention mask
    padded              examples in random order, padded to the longest of the batch, attention mask
    padded, by length   the Trainer's own group_by_length: neighbours in length share a batch

What counts is real tokens per second: padding is work, not progress. Before anything is timed, packed and padded loss
of the same targets are checked to agree.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from torch import Tensor, nn
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.decoding import ModelSize, build, quickstart_size
from benchmarks.machine import RESULTS, Machine, measure_machine, threads
from benchmarks.measure import Spread, clock_for, peak_memory_mib, table, write_text
from speechllm.data.collate import IGNORED, Collator, collate_rows
from speechllm.data.packing import PackedRows
from speechllm.processor import EncodedExample, UnifiedProcessor
from speechllm.training.optim import OptimizerConfig, build_optimizer
from speechllm.training.trainer import TrainingConfig, UnifiedTrainer, target_losses
from speechllm.vocabulary import SEMANTIC

OPTIMIZER = OptimizerConfig(kind="muon", learning_rate=1e-3)
FRAME_RATE, TEXT_RATE = 12.5, 3.5
"Codes and text ids per second of speech."
TASKS = (("audio", ("text",)), ("text", ("audio",)), ("audio", ("audio",)), ("audio", ("text", "text", "audio")))
"Input and output modalities: ASR or AST, TTS, S2ST, and the chain of three."
TAG_IDS = 6


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long the utterances of a corpus are: log-normal, clipped."""

    name: str
    median_seconds: float
    spread: float
    "Deviation of the logarithm."
    longest_seconds: float

    def draw(self, generator: np.random.Generator) -> float:
        """Return one duration in seconds."""
        seconds = self.median_seconds * np.exp(self.spread * generator.standard_normal())
        return float(np.clip(seconds, 0.5, self.longest_seconds))


CORPORA = (
    Lengths(name="short sentences", median_seconds=2.2, spread=0.3, longest_seconds=5.0),
    Lengths(name="open speech", median_seconds=5.0, spread=0.6, longest_seconds=12.0),
)
SIZES = (
    quickstart_size(),
    ModelSize(name="21M", hidden_size=448, num_layers=8, num_heads=7, num_text_ids=4096, num_codes=1024),
)
TINY = (ModelSize(name="tiny", hidden_size=32, num_layers=1, num_heads=2, num_text_ids=600, num_codes=64),)


def make_examples(processor: UnifiedProcessor, lengths: Lengths, count: int, seed: int = 0) -> list[EncodedExample]:
    """Return examples with random ids, as long as those of speech tasks on such a corpus."""
    generator = np.random.default_rng(seed)
    codes, mark = processor.vocabulary[SEMANTIC], processor.vocabulary.next_id
    num_text = len(processor.text_tokenizer)

    def part(modality: str, seconds: float) -> np.ndarray:
        if modality == "audio":
            return generator.integers(codes.start, codes.stop, size=max(1, round(seconds * FRAME_RATE)))
        return generator.integers(num_text, size=max(1, round(seconds * TEXT_RATE)))

    examples = []
    for _ in range(count):
        source, targets = TASKS[generator.integers(len(TASKS))]
        seconds = lengths.draw(generator)
        prompt = np.concatenate([generator.integers(num_text, size=TAG_IDS), part(source, seconds), [mark]])
        target = np.concatenate([np.append(part(modality, seconds), mark) for modality in targets])
        mask = np.concatenate([np.zeros(len(prompt), bool), np.ones(len(target), bool)])
        examples.append(EncodedExample(np.concatenate([prompt, target]).astype(np.int64), mask))
    return examples


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every contestant trains on."""

    examples: Sequence[EncodedExample]
    max_tokens: int
    rows_per_batch: int
    num_steps: int
    folder: Path

    @property
    def examples_per_batch(self) -> int:
        """Examples in a padded batch, so that it holds about as many real tokens as a packed one."""
        mean = sum(map(len, self.examples)) / len(self.examples)
        return max(1, round(self.max_tokens * self.rows_per_batch / mean))


class StepEnds(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.clock = clock_for(torch.get_num_threads())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        self.ends.append(self.clock())


class Counting:
    """A collator that counts real tokens and slots of each batch."""

    def __init__(self, collate: Callable[[Any], dict[str, Tensor]], count: Callable[[Any], int]):
        self.collate, self.count = collate, count
        self.tokens: list[int] = []
        self.slots: list[int] = []

    def __call__(self, items: Any) -> dict[str, Tensor]:
        """Return the batch of `collate`."""
        batch = self.collate(items)
        self.tokens.append(self.count(items))
        self.slots.append(batch["input_ids"].numel())
        return batch


@dataclass(frozen=True)
class Speed:
    """One round of one contestant."""

    tokens_per_second: float
    non_pad_share: float


def run_packed(model: PreTrainedModel, processor: UnifiedProcessor, work: Workload) -> Speed:
    """Train some steps with our packing and trainer."""
    rows = PackedRows(lambda index: work.examples[index % len(work.examples)], work.max_tokens)
    collator = Counting(
        Collator(pad_id=0, row_tokens=work.max_tokens),
        lambda rows: sum(len(example) for row in rows for example in row),
    )
    config = TrainingConfig(
        max_steps=work.num_steps, max_tokens=work.max_tokens, rows_per_batch=work.rows_per_batch, bf16=True, cpu=True,
        log_every=1000, show_progress=False, report_to=[],
    )  # fmt: skip
    trainer = UnifiedTrainer(model, rows, Collator(pad_id=0), processor.vocabulary, config, OPTIMIZER, work.folder)
    trainer.data_collator = cast(Any, collator)
    return _timed(trainer, collator, work)


def run_padded(model: PreTrainedModel, processor: UnifiedProcessor, work: Workload, *, by_length: bool) -> Speed:
    """Train some steps the plain way: stock Trainer, stock padding collator, stock loss."""
    items = [
        {"input_ids": e.input_ids.tolist(), "labels": np.where(e.loss_mask, e.input_ids, IGNORED).tolist()}
        for e in work.examples
    ]
    arguments = TrainingArguments(
        output_dir=str(work.folder),
        max_steps=work.num_steps,
        per_device_train_batch_size=work.examples_per_batch,
        learning_rate=OPTIMIZER.learning_rate,
        train_sampling_strategy="group_by_length" if by_length else "random",
        bf16=True,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1000,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    pad = padding_collator(processor.text_tokenizer)
    collator = Counting(pad, lambda items: sum(len(item["input_ids"]) for item in items))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=cast(Any, items),
        data_collator=collator,
        optimizers=(build_optimizer(model, OPTIMIZER), None),
    )
    return _timed(trainer, collator, work)


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> Callable[[Any], dict[str, Tensor]]:
    """Return transformers' own collator: pads ids, labels and attention mask to the longest of the batch."""
    return cast(Any, DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED))


def _timed(trainer: Trainer, collator: Counting, work: Workload) -> Speed:
    """Train; the first step warms up and is not counted, the time to fetch batches is."""
    clock = StepEnds()
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    assert len(clock.ends) == work.num_steps, f"{len(clock.ends)} steps were made, {work.num_steps} were asked for"
    tokens, slots = (sum(counts[1 : work.num_steps]) for counts in (collator.tokens, collator.slots))
    return Speed(tokens / (clock.ends[-1] - clock.ends[0]), tokens / slots)


def check_same_loss(model: PreTrainedModel, processor: UnifiedProcessor, examples: Sequence[EncodedExample]) -> None:
    """Raise unless every target has the same loss in both layouts (in float32, to rounding)."""
    packed = collate_rows([list(examples)], 0)
    items = [
        {"input_ids": e.input_ids.tolist(), "labels": np.where(e.loss_mask, e.input_ids, IGNORED).tolist()}
        for e in examples
    ]
    padded = padding_collator(processor.text_tokenizer)(items)
    head = cast(nn.Module, model.get_output_embeddings())
    with torch.no_grad():
        ours, _, _ = target_losses(cast(nn.Module, model), packed, head)
        theirs, _, _ = target_losses(cast(nn.Module, model), padded, head)
    # An untrained model hardly attends: what leaks shows in the fourth digit, rounding in the sixth.
    difference = float((ours - theirs).abs().max())
    if difference > 5e-5:
        raise AssertionError(f"packed and padded loss of one target differ by {difference:.2g}: the layouts differ")


def flops_per_token(model: PreTrainedModel) -> int:
    """Return 6 P: forward and backward of P weights in matrices, a tied head once; attention itself is left out."""
    return 6 * sum(p.numel() for p in model.parameters() if p.ndim == 2)


CONTESTANTS: dict[str, Callable[[PreTrainedModel, UnifiedProcessor, Workload], Speed]] = {
    "packed": run_packed,
    "padded": lambda model, processor, work: run_padded(model, processor, work, by_length=False),
    "padded, by length": lambda model, processor, work: run_padded(model, processor, work, by_length=True),
}


def compare(
    size: ModelSize, lengths: Lengths, machine: Machine, *, rounds: int, num_steps: int, quick: bool
) -> list[list[str]]:
    """Return one row for each contestant; they take turns, in another order every round."""
    model, processor = build(size)
    examples = make_examples(processor, lengths, 200 if quick else 4000)
    check_same_loss(model, processor, examples[:6])
    speeds: dict[str, list[Speed]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as folder:
        work = Workload(
            examples=examples, max_tokens=512, rows_per_batch=2 if quick else 4, num_steps=num_steps,
            folder=Path(folder),
        )  # fmt: skip
        for index in range(rounds):
            for name in list(CONTESTANTS) if index % 2 == 0 else reversed(CONTESTANTS):
                speeds[name].append(CONTESTANTS[name](model, processor, work))
    ceiling = machine.matmul["bfloat16"].median * 1e9
    rows = []
    for name, found in speeds.items():
        rate = [one.tokens_per_second for one in found]
        gain = [ours.tokens_per_second / one for ours, one in zip(speeds["packed"], rate, strict=True)]
        share = Spread.of([100 * one * flops_per_token(model) / ceiling for one in rate])
        filled = sum(one.non_pad_share for one in found) / len(found)
        rows.append(
            [size.name, lengths.name, name, Spread.of(rate).show(0), f"{100 * filled:.1f} %", share.show(1),
             Spread.of(gain).show(2)]
        )  # fmt: skip
    return rows


HEADER = ["model", "corpus", "layout", "real tokens/s", "filled", "% of bf16 matmul", "packed is faster by"]


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "training.md",
    num_threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    rounds: Annotated[int, typer.Option(help="How often the layouts take turns.")] = 3,
    num_steps: Annotated[int, typer.Option(help="Steps in a round; the first is not counted.")] = 5,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Time packed against padded training and write the table."""
    machine = measure_machine(num_threads=num_threads, quick=quick)
    rounds, num_steps = (2, 3) if quick else (rounds, num_steps)
    with threads(num_threads):
        rows = [
            row
            for size in (TINY if quick else SIZES)
            for lengths in CORPORA
            for row in compare(size, lengths, machine, rounds=rounds, num_steps=num_steps, quick=quick)
        ]
    options = f"--num-threads {num_threads} --rounds {rounds} --num-steps {num_steps}{' --quick' if quick else ''}"
    text = f"""# Training

`python -m benchmarks.training {options}`

{machine.describe()}

Real tokens per second, padding not counted, batches being fetched included; Muon and AdamW, bfloat16 autocast, about
{2 if quick else 4} x 512 tokens a step; median (min to max) over rounds in which the layouts take turns; the last
column is formed round by round. `filled` is the share of a batch that is no padding. The share of the matmul ceiling
counts 6 operations per weight and real token. Packed and padded loss of every target agreed to 5e-5.
Peak memory of the whole run: {peak_memory_mib():,.0f} MiB.

{table(HEADER, rows)}
"""
    typer.echo(write_text(out, text))


if __name__ == "__main__":
    typer.run(main)
