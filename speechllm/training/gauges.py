"""Gauges while training: does the model listen yet, and can it still write?

    gauges: {folder: tokens/pico, split: test, every: 200, num_items: 16}         # in the config of a training

    eval_wer_real/en          WER of what it writes for held-out speech
    eval_wer_shuffled/en      the same texts against those of other utterances: what guessing is worth
    eval_text_perplexity      of held-out text, over text ids alone: still literate?
    eval_bleu_mt/en-fr        text translation, if the mixture has it

A language model's loss falls long before it listens, while it learns what transcripts are like: it listens when real
WER leaves shuffled WER behind. Both are logged like every other number, so they stand in TensorBoard and in
history.json. Decoding is greedy and draws no random numbers: training goes on to the same weights with and without.
"""

import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from speechllm.data.mixture import MixtureConfig
from speechllm.data.plain_text import is_plain_text, read_plain_text
from speechllm.data.tokenize import TokenRow, read_tokens
from speechllm.errors import ConfigError, DataError
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoded import Decoded
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.metrics import make_normaliser
from speechllm.metrics.text import bleu_for, error_rates_for
from speechllm.processor import UnifiedProcessor
from speechllm.segments import CodeSegment, TextSegment
from speechllm.tasks import TaskTag


@dataclass(frozen=True, kw_only=True)
class GaugeConfig:
    """What is measured while a training runs, and how often."""

    folder: str
    "Token shards with held-out rows."
    split: str = "test"
    "Which of their splits. It should not be trained on."
    texts: str | None = None
    "Plain text (file or folder) for the perplexity; None: the transcripts of the split."
    every: int = 500
    "Steps between two measurements; there is one after the last step, too."
    num_items: int = 16
    "Rows of each language, and texts, that are measured on; fewer if there are not so many."
    max_text_tokens: int = 64
    "Longest hypothesis, in text ids."
    seed: int = 0
    "Of the choice of rows."

    def __post_init__(self) -> None:
        for name in ("every", "max_text_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"gauges.{name} = {getattr(self, name)}, expected at least 1")
        if self.num_items < 2:
            raise ConfigError(f"gauges.num_items = {self.num_items}, expected at least 2: one is shuffled with another")


class Gauges:
    """The held-out rows, and what a model makes of them."""

    def __init__(self, config: GaugeConfig, processor: UnifiedProcessor, mixture: MixtureConfig):
        """Draw the rows.

        Raises:
            DataError: the split has nothing to measure on, or was made by another tokenizer.
        """
        self.config, self.processor = config, processor
        tasks = {component.tasks for component in mixture.components}
        semantic = processor.semantic_tokenizer
        fingerprint = semantic.fingerprint if semantic is not None else None
        rows = list(read_tokens(config.folder, config.split, expected_fingerprint=fingerprint))
        random.Random(config.seed).shuffle(rows)
        self.spoken = _take(rows, config.num_items, lambda row: row.language, "ASR" in tasks, _is_spoken)
        self.pairs = _take(rows, config.num_items, _direction, "MT" in tasks, _is_parallel)
        self.texts = self._draw_texts(rows)
        if not self.texts and not self.spoken:
            raise DataError(f"{config.folder} has no text in {config.split!r} to measure on; name another split")

    def _draw_texts(self, rows: Sequence[TokenRow]) -> list[str]:
        source = self.config.texts
        if source is not None:
            if not is_plain_text(source):
                raise DataError(f"gauges.texts = {source!r} is no .txt or .jsonl file and no folder of such files")
            rows = list(read_plain_text(source))
            random.Random(self.config.seed).shuffle(rows)
        texts = list(dict.fromkeys(row.text for row in rows if row.text.strip()))
        return texts[: self.config.num_items]

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Return every gauge of a model; it is left as it was."""
        was_training = model.training
        model.eval()
        try:
            return {name: value for name, value in self._measure(model) if value is not None}
        finally:
            model.train(was_training)

    def _measure(self, model: nn.Module) -> Iterator[tuple[str, float | None]]:
        decoder = LMDecoder(model, self.processor)
        limit = self.config.max_text_tokens
        for language, rows in self.spoken.items():
            texts = [row.text for row in rows]
            heard = first_texts(decode_rows(decoder, rows, language, max_text_tokens=limit))
            metric, norm = error_rates_for(language)[0], make_normaliser("spoken", language)
            name = metric.name.lower()
            for kind, against in (("real", heard), ("shuffled", shuffled(heard))):
                yield f"eval_{name}_{kind}/{language}", metric.score(texts, against, normaliser=norm).value
        for direction, rows in self.pairs.items():
            tag = TaskTag.of("MT", *direction.split("-"))
            written = first_texts(_decode(decoder, tag, [tag.prompt(row.text) for row in rows], limit))
            metric, references = bleu_for(direction.split("-")[1]), [row.translation_text for row in rows]
            yield f"eval_bleu_mt/{direction}", metric.score(references, written).value
        if self.texts:
            yield "eval_text_perplexity", text_perplexity(model, self.processor, self.texts)


class GaugeCallback(TrainerCallback):
    """Measures every so many steps of a `UnifiedTrainer`, in the first process, and logs it."""

    def __init__(self, gauges: Gauges, trainer: Any):
        self.gauges, self.trainer = gauges, trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, if it is time; what it takes is not counted as training."""
        if state.global_step % self.gauges.config.every and state.global_step != state.max_steps:
            return
        began = time.monotonic()
        if state.is_world_process_zero:
            with own_forward(self.trainer.model), self.trainer.autocast():
                found = self.gauges.measure(self.trainer.model)
            self.trainer.log(found)
        self.trainer.accelerator.wait_for_everyone()
        self.trainer.pause(time.monotonic() - began)


@contextlib.contextmanager
def own_forward(model: nn.Module) -> Iterator[None]:
    """Take off the autocast that Accelerate put around `forward`: a view of the model would run the model itself."""
    wrapped = model.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            model.__dict__["forward"] = wrapped


def decode_rows(decoder: LMDecoder, rows: Sequence[TokenRow], language: str, *, max_text_tokens: int) -> list[Decoded]:
    """Return what the model makes of the codes of each row under the tag of recognition."""
    tag = TaskTag.of("ASR", language)
    prompts = [tag.prompt(CodeSegment(row.codes)) for row in rows if row.codes is not None]
    return _decode(decoder, tag, prompts, max_text_tokens)


def first_texts(decoded: Sequence[Decoded]) -> list[str]:
    """Return the text of each first part, "" where it is none."""
    return [part.text if isinstance(part, TextSegment) else "" for part in (one.segments[0] for one in decoded)]


def shuffled(hypotheses: Sequence[str]) -> list[str]:
    """Return each hypothesis in the place of another: a prompt holds the audio alone, so this is hearing another."""
    return [*hypotheses[1:], hypotheses[0]]


def _decode(decoder: LMDecoder, tag: TaskTag, prompts: Sequence[Any], max_text_tokens: int) -> list[Decoded]:
    ids = [decoder.lm.processor.encode_prompt(prompt) for prompt in prompts]
    return decoder.decode(ids, [tag.output_modalities] * len(ids), DecodingConfig(max_text_tokens=max_text_tokens))


def text_perplexity(model: nn.Module, processor: UnifiedProcessor, texts: Sequence[str]) -> float:
    """Return the perplexity per text id of sentences, EOS included, over text ids alone.

    What a model knew as a text LM it should still know when it has learnt to listen: compare before and after.
    """
    model.eval()
    num_text_ids = processor.vocabulary["text"].size
    loss, count = 0.0, 0
    for text in texts:
        ids = [*processor.prefix_ids, *processor.encode_segment(TextSegment(text)).tolist(), processor.eos_id]
        inputs = torch.tensor([ids], device=cast(PreTrainedModel, model).device)
        with torch.no_grad():
            logits = model(input_ids=inputs, use_cache=False).logits[0, :-1, :num_text_ids].float()
        loss += float(torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="sum"))
        count += len(ids) - 1
    return math.exp(loss / count)


def _take(rows: Sequence[TokenRow], count: int, group: Any, wanted: bool, usable: Any) -> dict[str, list[TokenRow]]:
    """Return up to `count` usable rows of each group; a group of one cannot be shuffled and is left out."""
    found: dict[str, list[TokenRow]] = {}
    for row in rows if wanted else ():
        if usable(row) and len(found.setdefault(group(row), [])) < count:
            found[group(row)].append(row)
    return {name: part for name, part in sorted(found.items()) if len(part) > 1}


def _is_spoken(row: TokenRow) -> bool:
    return bool(row.text) and row.codes is not None and len(row.codes) > 0


def _is_parallel(row: TokenRow) -> bool:
    return bool(row.text and row.translation_text)


def _direction(row: TokenRow) -> str:
    return f"{row.language}-{row.translation_language}"
