"""A batch of sequences from prefill to the last one's end: one step of the LM after the other.

    lm = DecodableLM(model, processor)
    decode_in_batches(lm, prompts, grammars, DecodingConfig(), places=range(len(prompts)))

Rows of any prompt length and any grammar run together, padded on the left; what one becomes does not depend on the
others. The cache is written in place (cache.py), the head is cut to the legal ids (heads.py), finished rows leave.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from speechllm.errors import DataError, VocabularyError
from speechllm.generation.cache import new_cache, select_rows
from speechllm.generation.decoded import Decoded, decoded_from
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.grammar import MODALITIES, Grammar, Progress, head_rows
from speechllm.generation.heads import Forward, Plan, can_cut, cut_forward, unwrap
from speechllm.generation.sampling import choose, log_probability
from speechllm.processor import UnifiedProcessor

DEFAULT_FRAME_RATE = 25.0
"Hz; used for limits in seconds when the processor has no semantic tokenizer (AudioPaLM's rate)."


class DecodableLM:
    """A causal LM with its processor, and what the decode loops must know of both."""

    def __init__(self, model: nn.Module, processor: UnifiedProcessor, *, frame_rate: float | None = None):
        self.model, self.processor = unwrap(model), processor
        config: Any = self.model.config
        config = config.get_text_config(decoder=True)
        if config.vocab_size != processor.vocabulary.size:
            raise VocabularyError(
                f"the model has {config.vocab_size:,} rows but the processor's vocabulary has "
                f"{processor.vocabulary.size:,} ids; use the two that were made together"
            )
        tokenizer = processor.semantic_tokenizer
        self.frame_rate = frame_rate or (tokenizer.frame_rate if tokenizer else DEFAULT_FRAME_RATE)
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self.rows = [head_rows(processor, modality) for modality in MODALITIES]
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self.has_cut_head = can_cut(self.model, self.rows)

    def forward(self) -> Forward:
        """Return the function that runs the model; made anew for each decode, so that weights are never stale."""
        return cut_forward(self.model, self.rows, cut=self.has_cut_head)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode and no gradients inside; the mode of before after it."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(was_training)

    def check(self, prompts: Sequence[np.ndarray]) -> None:
        """Raise DataError if a prompt is empty, holds ids outside the vocabulary or fills the model's context."""
        size = self.processor.vocabulary.size
        for number, prompt in enumerate(map(np.asarray, prompts)):
            if prompt.ndim != 1 or len(prompt) == 0:
                raise DataError(f"prompt {number} has shape {prompt.shape}, expected at least one id [T]")
            if prompt.min() < 0 or prompt.max() >= size:
                raise DataError(f"prompt {number} holds ids {prompt.min()}..{prompt.max()}, expected 0..{size - 1}")
            if self.max_positions is not None and len(prompt) >= self.max_positions:
                raise DataError(
                    f"prompt {number} has {len(prompt)} ids, but the model reads at most {self.max_positions} with its "
                    "answer; split the input into shorter pieces"
                )


def decode_in_batches(
    lm: DecodableLM,
    prompts: Sequence[np.ndarray],
    grammars: Sequence[Grammar],
    config: DecodingConfig,
    places: Sequence[int],
) -> list[Decoded]:
    """Decode every prompt under its grammar, `config.batch_size` at a time; the model must be `evaluating`.

    `places` are the numbers that seed the draws of each prompt, with the config's seed.
    """
    results: dict[int, Decoded] = {}
    # Neighbours in length share a batch: less padding.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    forward = lm.forward()
    for start in range(0, len(order), config.batch_size):
        numbers = order[start : start + config.batch_size]
        batch = RunningBatch(lm, forward, [prompts[i] for i in numbers], [grammars[i] for i in numbers], config)
        results.update(zip(numbers, batch.run([places[i] for i in numbers]), strict=True))
    return [results[i] for i in range(len(prompts))]


@dataclass(eq=False)
class ModelInputs:
    """A left-padded batch and the model's view of what it has read: mask, positions, cache."""

    lm: DecodableLM
    prompts: Sequence[np.ndarray]
    reserve: int = 64
    mask: Bool[Tensor, "B T"] = field(init=False)
    next_position: Int[Tensor, " B"] = field(init=False)

    def __post_init__(self) -> None:
        B, T = len(self.prompts), max(len(prompt) for prompt in self.prompts)
        ids = np.full((B, T), self.lm.processor.eos_id, dtype=np.int64)
        mask = np.zeros((B, T), dtype=bool)
        for b, prompt in enumerate(self.prompts):
            ids[b, T - len(prompt) :], mask[b, T - len(prompt) :] = prompt, True
        model: Any = self.lm.model
        self.device: torch.device = model.device
        self.ids = torch.from_numpy(ids).to(self.device)
        self.mask = torch.from_numpy(mask).to(self.device)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.next_position = self.mask.sum(1)
        self.is_padded = bool((~self.mask).any())
        self.cache = new_cache(model.config, T + self.reserve)

    def model_inputs(self) -> dict[str, Any]:
        """Return the keyword arguments of the next call of the model."""
        inputs: dict[str, Any] = {"input_ids": self.ids, "past_key_values": self.cache, "use_cache": True}
        # Without padding no mask is given: models then take their fastest path.
        inputs["attention_mask"] = self.mask if self.is_padded else None
        if self.lm.takes_positions:
            inputs["position_ids"] = self.positions
        return inputs

    def append(self, ids: Int[Tensor, " B"]) -> None:
        """Make the chosen ids the next input."""
        self.ids = ids[:, None]
        self.positions = self.next_position[:, None]
        self.next_position = self.next_position + 1
        if self.is_padded:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)

    def select(self, rows: Int[Tensor, " N"]) -> None:
        """Keep (and order) the given sequences."""
        self.ids, self.positions = self.ids[rows], self.positions[rows]
        self.mask, self.next_position = self.mask[rows], self.next_position[rows]
        self.is_padded = self.is_padded and bool((~self.mask).any())
        select_rows(self.cache, rows)


class RunningBatch:
    """One batch from prefill to the last sequence's end. Rows leave; `origin` says which prompt a row is."""

    def __init__(
        self,
        lm: DecodableLM,
        forward: Forward,
        prompts: Sequence[np.ndarray],
        grammars: Sequence[Grammar],
        config: DecodingConfig,
    ):
        self.lm, self.forward, self.config, self.grammars = lm, forward, config, grammars
        self.progress = Progress(list(grammars), config.limits(lm.frame_rate), lm.processor.closing_ids)
        self.inputs = ModelInputs(lm, prompts)
        self.blocked = [rows.blocked.to(self.inputs.device) for rows in lm.rows]
        self.row_ids = [rows.ids.to(self.inputs.device) for rows in lm.rows]
        self.lengths = np.array([len(prompt) for prompt in prompts])
        self.origin = np.arange(len(prompts))
        self.written: list[list[int]] = [[] for _ in prompts]
        self.scores = np.zeros(len(prompts))
        self.stops: list[list[str]] = [[] for _ in prompts]

    def run(self, numbers: Sequence[int]) -> list[Decoded]:
        """Decode; `numbers` are the prompts' places in the whole call, which seed their draws."""
        for _ in self.steps(numbers):
            pass
        return [self.decoded(b) for b in range(len(numbers))]

    def steps(self, numbers: Sequence[int]) -> Iterator[Int[np.ndarray, " B"]]:
        """Decode, and yield the id of every running row after each step."""
        generators = [np.random.default_rng([self.config.seed, number]) for number in numbers]
        limit = self.lm.max_positions
        while True:
            ids, log_probs = self._step(generators)
            self._record(ids, log_probs)
            if limit is not None:
                self._stop_full(limit)
            yield ids
            if not self._keep_running(ids):
                break

    @torch.no_grad()
    def _step(self, generators: list[np.random.Generator]) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, " B"]]:
        modality, states = self.progress.modality, self.progress.states()
        plan = grouped(modality, self.inputs.device)
        ids = torch.zeros(len(modality), dtype=torch.int64, device=self.inputs.device)
        log_probs = torch.zeros(len(modality), device=self.inputs.device)
        for (rows, m), logits in zip(plan, self.forward(plan, self.inputs.model_inputs()), strict=True):
            where = slice(None) if rows is None else rows
            here = np.arange(len(modality)) if rows is None else rows.cpu().numpy()
            logits = logits.float() + block(self.blocked[m], states[here])
            sampling = self.config.text if MODALITIES[m] == "text" else self.config.audio
            uniforms = None
            if not sampling.is_greedy:
                uniforms = np.array([generators[self.origin[b]].random() for b in here])
            index = choose(logits, sampling, uniforms)
            ids[where] = self.row_ids[m][index]
            log_probs[where] = log_probability(logits, index)
        self._next = ids
        return ids.cpu().numpy(), log_probs.cpu().numpy()

    def _record(self, ids: Int[np.ndarray, " B"], log_probs: Float[np.ndarray, " B"]) -> None:
        running = np.flatnonzero(~self.progress.finished)
        for row in running:
            self.written[self.origin[row]].append(int(ids[row]))
        self.scores[self.origin[running]] += log_probs[running]
        self.progress.advance(ids)
        for row in running:
            self.stops[self.origin[row]] = self.progress.stops[row]

    def _stop_full(self, limit: int) -> None:
        """End the sequences that fill the model's context."""
        for row in np.flatnonzero(~self.progress.finished):
            if self.lengths[self.origin[row]] + len(self.written[self.origin[row]]) >= limit:
                self.progress.finished[row] = True
                self.stops[self.origin[row]].append("too_long")

    def _keep_running(self, ids: Int[np.ndarray, " B"]) -> bool:
        """Prepare the next step; False if nobody is left."""
        running = np.flatnonzero(~self.progress.finished)
        if not len(running):
            return False
        self.inputs.append(self._next)
        # Leaving costs a copy of the cache, so a few leave together.
        if len(running) <= 0.75 * len(ids):
            self.inputs.select(torch.from_numpy(running).to(self.inputs.device))
            self.progress = self.progress.select(running)
            self.origin = self.origin[running]
        return True

    def decoded(self, b: int) -> Decoded:
        """Return what prompt `b` has become."""
        ids = np.array(self.written[b], dtype=np.int64)
        return decoded_from(self.lm.processor, ids, self.grammars[b], self.stops[b], float(self.scores[b]))


def grouped(modality: Int[np.ndarray, " B"], device: torch.device) -> Plan:
    """Return the groups of rows that share a modality."""
    if (modality == modality[0]).all():
        return [(None, int(modality[0]))]
    return [(torch.from_numpy(np.flatnonzero(modality == m)).to(device), m) for m in (0, 1)]


def block(blocked: Float[Tensor, "6 R"], states: Int[np.ndarray, " b"]) -> Float[Tensor, "#b R"]:
    """Return what is added to the logits of each row: -inf at illegal ids."""
    if (states == states[0]).all():
        return blocked[int(states[0])][None]
    return blocked[torch.from_numpy(states).to(blocked.device)]
