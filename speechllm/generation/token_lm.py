"""Decode one stage's token LM: requests in, target codes out, in batches, every id legal where it stands.

    request = StageRequest(prefix=semantic[None], given=prompt[:4], min_frames=1, max_frames=400, seed=(0,))
    drawn = generate_codes(lm, [request], SamplingConfig(temperature=0.8))[0]
    drawn.codes          # int64 [K, T], whole frames only, without the given ones
    drawn.ended          # the stage closed it by EOS; else max_frames did

Rows of any length share a batch and leave it as they end; each draws from a generator of its own seed. The head in use
holds the legal ids of one level and nothing else (models/token_lm.py). What is given is whole frames, so that all rows
of a batch are at the same level; EOS is legal between frames only, so that what is drawn is whole frames, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from speechllm.errors import ConfigError
from speechllm.generation.sampling import SamplingConfig, choose
from speechllm.models.token_lm import TokenLM
from speechllm.nn.llama_step import LlamaSteps, StepMemory

MAX_BATCH_TOKENS = 32_000
"Ids of a batch, padding and what is to be drawn included."


@dataclass(frozen=True, kw_only=True, eq=False)
class StageRequest:
    """What one row starts from, and how long it may get."""

    prefix: Int[np.ndarray, "P n"]
    "Codes of the prefix; [0, 0] for the semantic stage."
    given: Int[np.ndarray, "K G"]
    "Target frames that are known."
    min_frames: int
    "New frames before which EOS is not drawn."
    max_frames: int
    "New frames after which the row ends anyway."
    seed: tuple[int, ...]
    "Of the row's draws."

    def __post_init__(self) -> None:
        if not 0 <= self.min_frames <= self.max_frames:
            raise ConfigError(
                f"min_frames = {self.min_frames}, max_frames = {self.max_frames}: expected 0 <= min <= max"
            )


@dataclass(frozen=True, eq=False)
class Drawn:
    """What one row became."""

    codes: Int[np.ndarray, "K T"]
    ended: bool


def generate_codes(
    lm: TokenLM,
    requests: Sequence[StageRequest],
    sampling: SamplingConfig,
    *,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> list[Drawn]:
    """Return new target codes for each request, in order; none depends on the others.

    Raises:
        VocabularyError: a code of a request lies outside its block.
    """
    K = lm.layout.num_levels
    results = [Drawn(np.zeros((K, 0), np.int64), False)] * len(requests)
    prompts = [lm.layout.encode(request.prefix, request.given, end=False) for request in requests]
    sizes = [len(ids) + K * request.max_frames for ids, request in zip(prompts, requests, strict=True)]
    was_training = lm.training
    lm.eval()
    try:
        with torch.no_grad():
            steps = lm.steps()
            for rows in _batches(sizes, [request.max_frames > 0 for request in requests], max_batch_tokens):
                batch = _Batch(lm, [prompts[i] for i in rows], [requests[i] for i in rows], sampling)
                for i, drawn in zip(rows, batch.run(steps), strict=True):
                    results[i] = drawn
    finally:
        lm.train(was_training)
    return results


def _batches(sizes: Sequence[int], has_work: Sequence[bool], limit: int) -> list[list[int]]:
    """Group rows of like size so that none but a single row's batch exceeds `limit` ids."""
    batches: list[list[int]] = []
    for i in sorted((i for i, work in enumerate(has_work) if work), key=lambda i: sizes[i]):
        if not batches or sizes[i] * (len(batches[-1]) + 1) > limit:
            batches.append([])
        batches[-1].append(i)
    return batches


class _Batch:
    """One batch from prefill to the last row's end. Rows leave; `origin` says which request a row is."""

    def __init__(
        self, lm: TokenLM, prompts: Sequence[np.ndarray], requests: Sequence[StageRequest], sampling: SamplingConfig
    ):
        self.lm, self.requests, self.sampling = lm, requests, sampling
        self.generators = [np.random.default_rng(request.seed) for request in requests]
        self.written: list[list[int]] = [[] for _ in requests]
        self.ended = [False] * len(requests)
        self.origin = np.arange(len(requests))
        B, T = len(prompts), max(len(ids) for ids in prompts)
        ids, mask = np.full((B, T), lm.layout.bos_id), np.zeros((B, T), dtype=bool)
        for b, prompt in enumerate(prompts):
            ids[b, T - len(prompt) :], mask[b, T - len(prompt) :] = prompt, True
        self.ids, self.mask = (torch.from_numpy(array).to(lm.device) for array in (ids, mask))
        self.is_padded = bool((~self.mask).any())
        self.positions = self._positions(prompts)
        self.room = lm.layout.num_levels * max(request.max_frames for request in requests)
        self.memory: StepMemory | None = None
        # A removed repeat never occurs in training data, so it is no legal successor either.
        self.forbids_repeats = lm.layout.stage == "semantic" and lm.config.dedup
        self.previous = np.array([int(r.given[-1, -1]) if r.given.size else -1 for r in requests])

    def run(self, steps: LlamaSteps) -> list[Drawn]:
        """Decode until every row has ended; `steps` are the model's."""
        K, step = self.lm.layout.num_levels, 0
        while len(self.origin):
            phase, frame = step % K, step // K
            if phase == 0 and step:
                self._leave(
                    np.array([len(self.written[i]) < K * self.requests[i].max_frames for i in self.origin.tolist()])
                )
                if not len(self.origin):
                    break
            index = self._choose(self.lm.logits(self._read(steps)[:, -1], phase), phase, frame)
            codes = index.cpu().numpy()
            running = np.ones(len(codes), dtype=bool)
            if phase == 0 and self.lm.eos_column is not None:
                running = codes != self.lm.eos_column
            for row, i in enumerate(self.origin.tolist()):
                self.ended[i] = not running[row]
                if running[row]:
                    self.written[i].append(int(codes[row]))
            self.previous = codes
            self._append(self.lm.ids_of(index, phase))
            self._leave(running)
            step += 1
        return [
            Drawn(np.array(codes, dtype=np.int64).reshape(-1, K).T, ended)
            for codes, ended in zip(self.written, self.ended, strict=True)
        ]

    def _read(self, steps: LlamaSteps) -> Float[Tensor, "B T D"]:
        """Return the model's output for the ids that have not been read."""
        # Without padding no mask is given: attention then takes its fastest path.
        mask = self.mask if self.is_padded else None
        if self.memory is not None:
            return steps(self.ids, positions=self.positions, memory=self.memory, mask=mask)
        cache = DynamicCache(config=self.lm.trunk.config)
        hidden = self.lm.hidden(self.ids, mask=mask, positions=self.positions, cache=cache)
        self.memory = StepMemory(cache, reserve=self.room)
        return hidden

    def _positions(self, prompts: Sequence[np.ndarray]) -> Int[Tensor, "B T"]:
        """Return the place of each id of the prompts, padding on the left."""
        T, bos = self.mask.shape[1], self.lm.layout.bos_id
        firsts = torch.tensor([T - len(ids) for ids in prompts], device=self.lm.device)
        starts = torch.tensor([int(np.flatnonzero(ids == bos)[0]) + 1 for ids in prompts], device=self.lm.device)
        positions = self.lm.positions(firsts + starts, T, firsts=firsts)
        return (self.mask.cumsum(1) - 1).clamp(min=0) if positions is None else positions

    def _choose(self, logits: Float[Tensor, "B C"], phase: int, frame: int) -> Int[Tensor, " B"]:
        if phase == 0 and self.lm.eos_column is not None:
            early = [row for row, i in enumerate(self.origin.tolist()) if frame < self.requests[i].min_frames]
            logits[early, self.lm.eos_column] = -torch.inf
        if self.forbids_repeats:
            rows = np.flatnonzero(self.previous >= 0)
            logits[rows, self.previous[rows]] = -torch.inf
        uniforms = None
        if not self.sampling.is_greedy:
            uniforms = np.array([self.generators[i].random() for i in self.origin.tolist()])
        return choose(logits, self.sampling, uniforms)

    def _append(self, ids: Int[Tensor, " B"]) -> None:
        self.ids, self.positions = ids[:, None], self.positions[:, -1:] + 1
        if self.is_padded:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)

    def _leave(self, stays: np.ndarray) -> None:
        """Keep the rows that go on."""
        if stays.all():
            return
        rows = torch.from_numpy(np.flatnonzero(stays)).to(self.ids.device)
        self.ids, self.positions, self.mask = self.ids[rows], self.positions[rows], self.mask[rows]
        self.is_padded = self.is_padded and bool((~self.mask).any())
        self.previous, self.origin = self.previous[stays], self.origin[stays]
        if len(rows) and self.memory is not None:
            self.memory.select_rows(rows, self.lm.config.decoder.num_heads)
