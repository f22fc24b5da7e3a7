"""Decoding speed: `LMDecoder` against `model.generate()`, on the same weights and prompts, with the same output.

    python -m benchmarks.decoding

Random weights: speed does not depend on what is said. Every candidate writes the same number of ids per sequence
(closing marks are held back, guards are off), prompts have one length, so nobody pays for padding. Before anything is
timed the ids of `LMDecoder` are checked against those of `generate()` under a mask: a faster loop that says something
else is no faster loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from benchmarks.machine import RESULTS, measure_machine, threads
from benchmarks.measure import Spread, clock_for, interleave, rates, ratio, table, write_text
from recipes.quickstart.config import CONFIG, QuickstartConfig
from speechllm.config import load_config
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import MODALITIES, OPEN, Grammar, head_rows
from speechllm.models.causal_lm import BaseModelConfig, extend_causal_lm, random_llama
from speechllm.models.text_lm import train_bpe
from speechllm.processor import UnifiedProcessor
from speechllm.segments import CodeSegment, Modality
from speechllm.tasks import TaskTag
from speechllm.vocabulary import Vocabulary

FRAME_RATE = 25.0
PROMPT_CODES = 50
"Two seconds of speech in every prompt."


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """One random Llama with its vocabulary."""

    name: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_text_ids: int
    num_codes: int


def quickstart_size() -> ModelSize:
    """Return the size of the quickstart's LM, from the recipe's config."""
    recipe = load_config(QuickstartConfig, CONFIG)
    model = recipe.text_lm.model
    return ModelSize(
        name="quickstart",
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        num_text_ids=recipe.text_lm.vocab_size,
        num_codes=recipe.semantic.codebook_size,
    )


SIZES = (
    ModelSize(
        name="32M, 50k text ids", hidden_size=384, num_layers=8, num_heads=6, num_text_ids=49_152, num_codes=1024
    ),
    quickstart_size(),
)
TINY = (ModelSize(name="tiny", hidden_size=32, num_layers=1, num_heads=2, num_text_ids=600, num_codes=64),)


class StaticMask(LogitsProcessor):
    """One vector added to the scores: the cheapest mask that `generate()` can be given."""

    def __init__(self, blocked: torch.Tensor):
        self.blocked = blocked

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores with -inf at illegal ids."""
        return scores + self.blocked


@dataclass(frozen=True, kw_only=True)
class Span:
    """What is decoded: `num_ids` ids of one modality for each of some prompts of one length."""

    modality: Modality
    num_ids: int
    prompts: Sequence[np.ndarray]

    @property
    def num_written(self) -> int:
        """Ids over all sequences."""
        return self.num_ids * len(self.prompts)


def build(size: ModelSize, seed: int = 0) -> tuple[PreTrainedModel, UnifiedProcessor]:
    """Return a random model of the given size with its processor (no semantic tokenizer: prompts are codes)."""
    tokenizer = train_bpe(["turn on the lamp", "allume la lampe"] * 50, vocab_size=300)
    config = BaseModelConfig(
        hidden_size=size.hidden_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        max_positions=1024,
        seed=seed,
    )
    model = random_llama(config, size.num_text_ids, tokenizer)
    vocabulary = Vocabulary.for_speech(size.num_text_ids, size.num_codes)
    model = extend_causal_lm(model, vocabulary, init="normal", seed=seed)
    return model.eval(), UnifiedProcessor(tokenizer, vocabulary)


def make_span(processor: UnifiedProcessor, modality: Modality, num_ids: int, batch_size: int) -> Span:
    """Return prompts of one length: `[ASR English]` for text, `[S2ST English French]` for audio."""
    tag = TaskTag.of("ASR", "en") if modality == "text" else TaskTag.of("S2ST", "en", "fr")
    rng = np.random.default_rng(0)
    num_codes = processor.vocabulary["semantic"].size
    prompts = [
        processor.encode_prompt(tag.prompt(CodeSegment(rng.integers(num_codes, size=PROMPT_CODES))))
        for _ in range(batch_size)
    ]
    return Span(modality=modality, num_ids=num_ids, prompts=prompts)


def run_ours(decoder: LMDecoder, span: Span) -> np.ndarray:
    """Decode greedily with our loop; ids int64 [B, T]."""
    config = DecodingConfig(
        min_text_tokens=span.num_ids, max_text_tokens=span.num_ids, min_audio_tokens=span.num_ids,
        max_audio_seconds=span.num_ids / decoder.frame_rate, loop_text_tokens=0, loop_audio_seconds=0.0,
    )  # fmt: skip
    grammar: Grammar = (span.modality,)
    decoded = decoder.decode(span.prompts, [grammar] * len(span.prompts), config)
    return np.stack([one.ids[: span.num_ids] for one in decoded])


def run_generate(model: Any, span: Span, blocked: torch.Tensor | None) -> np.ndarray:
    """Decode greedily with `generate()`, with or without a mask; ids int64 [B, T]."""
    processors = LogitsProcessorList([StaticMask(blocked)] if blocked is not None else [])
    prompt = torch.from_numpy(np.stack(span.prompts))
    with torch.no_grad():
        ids = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=span.num_ids,
            max_new_tokens=span.num_ids,
            logits_processor=processors,
            pad_token_id=0,
        )
    return ids[:, prompt.shape[1] :].numpy()


def content_mask(processor: UnifiedProcessor, modality: Modality) -> torch.Tensor:
    """Return float [V]: 0 at ids that a part of this modality may hold before it closes, -inf elsewhere."""
    rows = head_rows(processor, modality)
    blocked = torch.full((processor.vocabulary.size,), -torch.inf)
    blocked[rows.ids[rows.legal[OPEN]]] = 0
    return blocked


def candidates(model: PreTrainedModel, processor: UnifiedProcessor, span: Span) -> dict[str, Callable[[], np.ndarray]]:
    """Return the contestants, after checking that those under the same rules write the same ids."""
    decoder = LMDecoder(model, processor, frame_rate=FRAME_RATE)
    blocked = content_mask(processor, span.modality)
    contestants: dict[str, Callable[[], np.ndarray]] = {
        "LMDecoder": lambda: run_ours(decoder, span),
        "generate + mask": lambda: run_generate(model, span, blocked),
        "generate": lambda: run_generate(model, span, None),
    }
    ours, theirs = contestants["LMDecoder"](), contestants["generate + mask"]()
    if not np.array_equal(ours, theirs):
        place = np.argwhere(ours != theirs)[0]
        raise AssertionError(f"LMDecoder and generate() differ first in sequence {place[0]}, id {place[1]}")
    return contestants


def benchmark(sizes: Sequence[ModelSize], *, num_ids: int, batch_sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Return one row of the result table for each size, modality and batch size."""
    rows = []
    for size in sizes:
        model, processor = build(size)
        for modality in MODALITIES:
            for batch_size in batch_sizes:
                span = make_span(processor, modality, num_ids, batch_size)
                seconds = interleave(
                    candidates(model, processor, span), rounds=rounds, clock=clock_for(torch.get_num_threads())
                )
                speed = {name: Spread.of(rates(span.num_written, values)) for name, values in seconds.items()}
                gain = ratio(seconds["generate + mask"], seconds["LMDecoder"])
                names = ("LMDecoder", "generate + mask", "generate")
                cells = [speed[name].show(0) for name in names]
                rows.append([size.name, modality, str(batch_size), *cells, gain.show(2)])
    return rows


HEADER = ["model", "span", "batch", "LMDecoder, ids/s", "generate + mask, ids/s", "generate, ids/s", "ours / masked"]


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")] = RESULTS / "decoding.md",
    num_threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    rounds: Annotated[int, typer.Option(help="How often the candidates take turns.")] = 3,
    num_ids: Annotated[int, typer.Option(help="Ids written to each sequence.")] = 100,
    quick: Annotated[bool, typer.Option(help="Tiny sizes, to see that it runs.")] = False,
) -> None:
    """Time our decode loop against generate() and write the table."""
    machine = measure_machine(num_threads=num_threads, quick=quick)
    num_ids, rounds = (8, 2) if quick else (num_ids, rounds)
    with threads(num_threads):
        rows = benchmark(TINY if quick else SIZES, num_ids=num_ids, batch_sizes=(1, 8), rounds=rounds)
    options = f"--num-threads {num_threads} --rounds {rounds} --num-ids {num_ids}{' --quick' if quick else ''}"
    text = f"""# Decoding

`python -m benchmarks.decoding {options}`

{machine.describe()}

Greedy, {num_ids} ids a sequence after a prompt with {PROMPT_CODES} codes, float32, random weights; prefill
included. Candidates take turns in every round; median (min to max) over rounds, the last column formed round by round.
The ids of `LMDecoder` and of `generate` under the mask were equal in every row. `generate` without a mask may write ids
of either modality, so it does less than is needed.

{table(HEADER, rows)}
"""
    typer.echo(write_text(out, text))


if __name__ == "__main__":
    typer.run(main)
