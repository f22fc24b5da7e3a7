"""What is looked at before the first step: mistakes that would otherwise cost a night, in a second.

    report = check_training(trainer, mixture, config)
    print_report(report)
    report.raise_if_failed()

    vocabulary    ok       33,025 ids, hash 5be0...; the model has as many rows
    shards        ok       2 folders of tokens, all by tokenizer 91ac...
    token rate    ok       12.50 codes a second of audio, the tokenizer makes 12.5
    id ranges     ok       512 examples
    label mask    FAILED   training example 3: [ASR English] has its first target at 7, not right behind the mark ...
    EOS           ok       512 examples end with id 2
    parts         ok       512 examples have the parts of their tags
    lengths       ok       0 of 512 examples are longer than a row of 512
    packing       ok       examples in one row do not see each other (largest difference 2e-07)
    adapters      ok       saved, loaded: the same logits, bit for bit
    memory        ok       2.41 GiB = weights 0.50 + ...; free: 131.20 GiB

Every check runs, so that one look shows everything; then the first that failed is raised. Beside it stand what the
examples of each task hold, and one of each task as a person reads it (audit.py; the estimate of memory: memory.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from speechllm.data.collate import collate_rows, task_name
from speechllm.data.mixture import Mixture
from speechllm.data.packing import Row
from speechllm.data.plain_text import is_plain_text
from speechllm.data.tokenize import token_report
from speechllm.errors import CheckpointError, ConfigError, DataError, SpeechLLMError, VocabularyError
from speechllm.models.adapters import check_round_trip, embedding_matrix
from speechllm.models.causal_lm import extended_by
from speechllm.processor import EncodedExample, UnifiedProcessor
from speechllm.training.audit import (
    TaskCount,
    check_end,
    check_ids,
    check_loss_mask,
    check_parts,
    count_tasks,
    describe_example,
)
from speechllm.training.experts import balance_weight, own_weight
from speechllm.training.memory import GIB, estimate_memory, free_memory
from speechllm.training.trainer import UnifiedTrainer, caches_off, memory_advice
from speechllm.training.unified import UnifiedTrainConfig

Verdict: TypeAlias = Literal["ok", "warning", "FAILED"]
RATE_TOLERANCE = 0.05
"Codes a second may be off by this share, beside one code for each utterance (of rounding)."
SHORT = 64
"Tokens of an example that are enough to see whether packed examples see each other."


class Warned(Exception):  # noqa: N818 - it carries a finding, and no error
    """What a check found that need not be wrong."""


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    verdict: Verdict
    finding: str


@dataclass
class CheckReport:
    """What was found."""

    checks: list[Check] = field(default_factory=list)
    counts: list[TaskCount] = field(default_factory=list)
    samples: dict[str, str] = field(default_factory=dict)
    "One example of each task, in print."
    errors: list[SpeechLLMError] = field(default_factory=list)

    def run(self, name: str, check: Callable[[], str]) -> None:
        """Add the line of a check: a function that returns its finding or raises."""
        try:
            self.checks.append(Check(name, "ok", check()))
        except Warned as warned:
            self.checks.append(Check(name, "warning", str(warned)))
        except SpeechLLMError as error:
            self.checks.append(Check(name, "FAILED", str(error)))
            self.errors.append(error)

    def __getitem__(self, name: str) -> Check:
        """Return the line called `name`."""
        return next(check for check in self.checks if check.name == name)

    def raise_if_failed(self) -> None:
        """Raise the first error, if there was one."""
        if self.errors:
            raise self.errors[0]


def check_training(
    trainer: UnifiedTrainer, mixture: Mixture, config: UnifiedTrainConfig, *, num_examples: int = 512
) -> CheckReport:
    """Run every check on a trainer and its data; nothing is changed by it."""
    model, processor = cast(nn.Module, trainer.model), mixture.processor
    report = check_examples(mixture, max_tokens=config.training.max_tokens, num_examples=num_examples)
    data, report.checks = report.checks, []
    report.run("vocabulary", lambda: check_vocabulary(model, processor))
    report.run("shards", lambda: check_shards(mixture))
    report.run("token rate", lambda: check_token_rate(mixture))
    report.checks += data
    with caches_off(trainer.cache_settings):
        # Without a model that has all rows the next ones would only repeat the first in other words.
        if report["vocabulary"].verdict == "ok" and report["id ranges"].verdict == "ok":
            report.run("packing", lambda: check_packing(model, [mixture.example(i) for i in range(16)]))
            if config.lora is not None:
                report.run("adapters", lambda: _adapters(model, processor))
        if own_weight(model) is not None:
            report.run("experts", lambda: check_experts(model, config.training.router_loss))
        report.run("memory", lambda: check_memory(model, config, report.counts))
    return report


def check_examples(mixture: Mixture, *, max_tokens: int, num_examples: int = 512) -> CheckReport:
    """Audit the first examples of a mixture: the lines on data alone, the counts and the samples."""
    report, processor = CheckReport(), mixture.processor
    examples = [mixture.example(index) for index in range(num_examples)]
    number = f"{num_examples} examples"
    report.run("id ranges", lambda: _each(examples, processor, check_ids, number))
    if report.errors:
        return report
    report.run("label mask", lambda: _each(examples, processor, check_loss_mask, f"{number}: on targets, and on them"))
    report.run("EOS", lambda: _each(examples, processor, check_end, f"{number} end with id {processor.eos_id}"))
    report.run("parts", lambda: _each(examples, processor, check_parts, f"{number} have the parts of their tags"))
    report.counts = count_tasks(examples, processor, max_tokens=max_tokens)
    report.run("lengths", lambda: check_lengths(report.counts, max_tokens))
    for example in examples:
        report.samples.setdefault(task_name(example.tag), describe_example(example, processor))
    return report


def _each(
    examples: Sequence[EncodedExample],
    processor: UnifiedProcessor,
    check: Callable[[EncodedExample, UnifiedProcessor], None],
    finding: str,
) -> str:
    for index, example in enumerate(examples):
        try:
            check(example, processor)
        except DataError as error:
            raise DataError(f"training example {index}: {error}") from error
    return finding


def check_lengths(counts: Sequence[TaskCount], max_tokens: int) -> str:
    """Raise if a task has no example that fits into a row; warn if some are left out."""
    for count in counts:
        if count.too_long == count.examples:
            raise DataError(
                f"all {count.examples} sampled examples of {count.name!r} are longer than max_tokens = {max_tokens}; "
                "raise max_tokens or drop the task"
            )
    left_out = sum(count.too_long for count in counts)
    finding = f"{left_out} of {sum(count.examples for count in counts)} examples are longer than a row of {max_tokens}"
    if left_out:
        raise Warned(f"{finding}: they are left out")
    return finding


def check_vocabulary(model: nn.Module, processor: UnifiedProcessor) -> str:
    """Raise unless model and processor have the same ids, by number and by the manifest that extended the model."""
    vocabulary = processor.vocabulary
    lm = cast(PreTrainedModel, model)
    rows = {len(embedding_matrix(layer)) for layer in (lm.get_input_embeddings(), lm.get_output_embeddings())}
    if rows != {vocabulary.size}:
        raise VocabularyError(
            f"the model has {' and '.join(f'{n:,}' for n in sorted(rows))} rows, the vocabulary (hash "
            f"{vocabulary.hash}) {vocabulary.size:,} ids; extend the model with this vocabulary"
        )
    digest = extended_by(lm)
    if digest not in (None, vocabulary.hash):
        raise VocabularyError(
            f"the model was extended by the vocabulary with hash {digest}, the processor has {vocabulary.hash}; "
            "use the two that were made together"
        )
    return f"{vocabulary.size:,} ids, hash {vocabulary.hash}; the model has as many rows"


def check_shards(mixture: Mixture) -> str:
    """Raise unless every folder of tokens was made by the semantic tokenizer at hand, code for code."""
    tokenizer = mixture.processor.semantic_tokenizer
    folders = sorted({c.folder for c in mixture.config.components if not is_plain_text(c.folder)})
    if tokenizer is None:
        raise Warned("the processor has no semantic tokenizer to compare the shards with")
    for folder in folders:
        found = token_report(folder)
        if found.fingerprint != tokenizer.fingerprint:
            raise DataError(
                f"{folder} was made by the tokenizer {found.fingerprint}, the model has {tokenizer.fingerprint}; "
                "tokenize the corpus again"
            )
        if (found.codebook_size, found.frame_rate) != (tokenizer.codebook_size, tokenizer.frame_rate):
            raise DataError(
                f"{folder} says {found.codebook_size} codes at {found.frame_rate:g} Hz, the tokenizer has "
                f"{tokenizer.codebook_size} at {tokenizer.frame_rate:g} Hz; tokenize the corpus again"
            )
    return f"{len(folders)} folders of tokens, all by tokenizer {tokenizer.fingerprint}"


def check_token_rate(mixture: Mixture) -> str:
    """Raise unless the rows hold as many codes a second of audio as the tokenizer makes."""
    tokenizer = mixture.processor.semantic_tokenizer
    if tokenizer is None:
        raise Warned("the processor has no semantic tokenizer to compare the rate with")
    sides = list(mixture.spoken_sides(limit=2048))
    if not sides:
        return "no audio in this mixture"
    seconds, codes = (float(sum(part)) for part in zip(*sides, strict=True))
    if seconds <= 0:
        raise Warned("the shards do not say how long their audio is")
    rate = codes / seconds
    finding = f"{rate:.2f} codes a second of audio, the tokenizer makes {tokenizer.frame_rate:g}"
    allowed = RATE_TOLERANCE * tokenizer.frame_rate * seconds + len(sides)
    excess = codes - tokenizer.frame_rate * seconds
    # Repeated codes that are dropped can only make it less.
    if excess > allowed or (excess < -allowed and not tokenizer.config.deduplicate):
        raise DataError(f"{finding}; the shards were made otherwise, tokenize the corpus again")
    return finding


def check_experts(model: nn.Module, given: float | None) -> str:
    """Warn if nothing balances the experts of a family that has a loss for it."""
    weight = balance_weight(model, given)
    if weight == 0:
        raise Warned(
            "nothing keeps all experts in use: the config of the model has output_router_logits: false; set "
            f"training.router_loss (its own weight is {own_weight(model):g}), or 0 to say that this is meant"
            if given is None
            else "nothing keeps all experts in use, as router_loss: 0 says"
        )
    return f"a loss of weight {weight:g} balances them"


def check_packing(model: nn.Module, examples: Sequence[EncodedExample]) -> str:
    """Raise if an example's logits change when another one stands before it in its row.

    Families differ in how they find the borders of packed examples, and attention kernels do: tried is what is trained.
    """
    short = [EncodedExample(e.input_ids[:SHORT], e.loss_mask[:SHORT], e.tag) for e in examples]
    other = max(short, key=len)
    weight = next(model.parameters())
    kind = str(getattr(cast(Any, model).config, "_attn_implementation", "?"))
    # Kernels of the flash family know no float32: they train, and are tried, under autocast.
    autocast = torch.autocast(weight.device.type, torch.bfloat16, enabled="flash" in kind)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast:
            alone, packed = (_last_logits(model, row, len(other)) for row in ([other], [short[0], other]))
    finally:
        model.train(was_training)
    difference = float((alone - packed).abs().max() / alone.abs().max().clamp(min=1.0))
    is_exact = weight.dtype == torch.float32 and "flash" not in kind
    if difference > (5e-5 if is_exact else 0.05):
        raise ConfigError(
            f"with the attention {kind!r} of {type(model).__name__} packed examples see each other (logits differ by "
            f"{difference:.1g}); set model.attn_implementation: sdpa, or take another model family"
        )
    return f"examples in one row do not see each other under {kind} (logits differ by {difference:.0e})"


def _last_logits(model: nn.Module, row: Row, length: int) -> Float[Tensor, "T V"]:
    batch = collate_rows([row], pad_id=0)
    device = next(model.parameters()).device
    inputs = {name: batch[name].to(device) for name in ("input_ids", "position_ids")}
    return model(**inputs, use_cache=False).logits[0, -length:].float()


def _adapters(model: nn.Module, processor: UnifiedProcessor) -> str:
    if not hasattr(model, "peft_config"):
        raise CheckpointError(f"the config has lora, but the {type(model).__name__} has no adapters; use make_trainer")
    check_round_trip(model, processor.vocabulary)
    return "drawn at random, saved, loaded: the same logits, bit for bit"


def check_memory(model: nn.Module, config: UnifiedTrainConfig, counts: Sequence[TaskCount]) -> str:
    """Raise if weights, gradients and optimizer alone do not fit on the GPU; warn if the estimate of all does not."""
    training = config.training
    targets, prompt = sum(c.text + c.audio for c in counts), sum(c.prompt for c in counts)
    estimate = estimate_memory(
        model,
        config.optimizer,
        max_tokens=training.max_tokens,
        rows=training.rows_per_batch,
        bf16=training.bf16,
        checkpointing=training.gradient_checkpointing,
        target_share=targets / max(1, targets + prompt),
    )
    free = free_memory(next(model.parameters()).device)
    if free is None:
        return f"{estimate}"
    finding = f"{estimate}; free: {free / GIB:.2f} GiB"
    if estimate.fixed > free:
        raise ConfigError(f"{finding}: it cannot fit; {memory_advice(training, config.optimizer, model)}")
    if estimate.total > 0.9 * free:
        raise Warned(f"{finding}: it may run out of memory; {memory_advice(training, config.optimizer, model)}")
    return finding


def print_report(report: CheckReport) -> None:
    """Print checks, counts and samples."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("check", "", "finding", title="before the first step")
    colours = {"ok": "green", "warning": "yellow", "FAILED": "red"}
    for check in report.checks:
        table.add_row(check.name, f"[{colours[check.verdict]}]{check.verdict}[/]", escape(check.finding))
    console.print(table)
    table = Table("task", "examples", "too long", "prompt", "text", "audio", title="first examples of the mixture")
    for count in report.counts:
        numbers = (count.examples, count.too_long, count.prompt, count.text, count.audio)
        table.add_row(escape(count.name), *[f"{number:,}" for number in numbers])
    console.print(table)
    for name, text in report.samples.items():
        console.print(f"{escape(name)}\n{escape(text)}\n", highlight=False)
