"""The grammar of a task: which ids may come next. Ids of the wrong modality are impossible, not unlikely.

    [ASR AST S2ST English French]   ->   grammar ("text", "text", "audio")

    part      text          <|next|>   text          <|next|>   audio          EOS
    legal     text ids      or close   text ids      or close   semantic ids   or close

A part is closed by `<|next|>`, the last one by EOS. The head of the LM is cut to the rows of the modality in play
(`HeadRows`): 1,026 instead of 50,000 for audio. `GrammarLogitsProcessor` puts the same rules into `generate()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from speechllm.errors import TaskError
from speechllm.processor import UnifiedProcessor
from speechllm.segments import Modality
from speechllm.vocabulary import SEMANTIC, SPECIAL, TEXT

Grammar: TypeAlias = tuple[Modality, ...]
"The modality of each output part, in order: `TaskTag.output_modalities`."

MODALITIES: tuple[Modality, Modality] = ("text", "audio")
OPEN, FREE, CLOSING = 0, 1, 2
"States of a part: it may not close yet, it may go on or close, it must close now."
LAST = 3
"Added to the state when the part is the last, so that EOS closes it."


@dataclass(frozen=True, eq=False)
class HeadRows:
    """The rows of the output matrix that one modality needs, and which of them are legal when."""

    modality: Modality
    ids: Int[Tensor, " R"]
    "Row r of the cut head stands for id `ids[r]`."
    legal: Bool[Tensor, "6 R"]
    "By state: OPEN, FREE, CLOSING, and the same plus LAST."
    blocked: Float[Tensor, "6 R"]
    "0 where legal, -inf elsewhere: added to the logits."
    is_prefix: bool
    "True if `ids` is 0, 1, 2, ...: then the cut is a view of the matrix, not a copy."


def head_rows(processor: UnifiedProcessor, modality: Modality) -> HeadRows:
    """Return the rows that a part of this modality needs.

    Text: everything up to the special block; special tokens of the text tokenizer (BOS, padding, chat marks, reserved
    ones) and rows that its embedding has beyond its tokens are never legal, because they stand for no text.
    Audio: EOS, the special block, the semantic block.
    """
    vocabulary, eos, mark = processor.vocabulary, processor.eos_id, processor.vocabulary.next_id
    if modality == "text":
        ids = np.arange(vocabulary[SPECIAL].stop)
        tokenizer = processor.text_tokenizer
        content = ids < min(vocabulary[TEXT].size, len(tokenizer))
        # `all_special_ids` has the named ones alone, not those that were added with special=True and have no role
        added = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
        content[[i for i in (*tokenizer.all_special_ids, *added) if i < len(content)]] = False
        content[eos] = False
    else:
        ids = np.concatenate([[eos], np.arange(vocabulary[SPECIAL].start, vocabulary[SEMANTIC].stop)])
        content = ids >= vocabulary[SEMANTIC].start
    legal = np.zeros((6, len(ids)), dtype=bool)
    for closing_id, offset in ((mark, 0), (eos, LAST)):
        closing = ids == closing_id
        legal[OPEN + offset], legal[FREE + offset], legal[CLOSING + offset] = content, content | closing, closing
    mask = torch.from_numpy(legal)
    blocked = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    return HeadRows(modality, torch.from_numpy(ids), mask, blocked, is_prefix=modality == "text")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When parts may and must close, per modality in the order of MODALITIES (in ids)."""

    min_tokens: tuple[int, int]
    max_tokens: tuple[int, int]
    loop_span: tuple[int, int]
    "A repetition must cover this many ids before it counts as a loop; 0 switches the guard off."
    loop_period: tuple[int, int]
    "Longest repeated pattern that is looked for."
    loop_repeats: int
    "And it must stand there this many times."


@dataclass(eq=False)
class Progress:
    """Where each sequence of a batch stands in its grammar; the guards against endless output live here."""

    grammars: Sequence[Grammar]
    limits: Limits
    closing_ids: tuple[int, int]
    "(id of `<|next|>`, id of EOS)."
    stops: list[list[str]] = field(default_factory=list)
    "Per sequence, why each finished part ended: closed, too_long or loop."

    def __post_init__(self) -> None:
        if any(not grammar for grammar in self.grammars):
            raise TaskError("a grammar has no output part; take it from TaskTag.output_modalities")
        B = len(self.grammars)
        width = max(len(grammar) for grammar in self.grammars)
        self._table = np.zeros((B, width), dtype=np.int64)
        for b, grammar in enumerate(self.grammars):
            self._table[b, : len(grammar)] = [MODALITIES.index(modality) for modality in grammar]
        self._num_parts = np.array([len(grammar) for grammar in self.grammars])
        self._part = np.zeros(B, dtype=np.int64)
        self._length = np.zeros(B, dtype=np.int64)
        longest = max(self.limits.loop_period)
        self._periods = np.arange(1, longest + 1)
        self._history = np.full((B, longest), -1, dtype=np.int64)
        self._matched = np.zeros((B, longest), dtype=np.int64)
        self.finished = np.zeros(B, dtype=bool)
        self.stops = [[] for _ in range(B)]
        period = np.array(self.limits.loop_period)[:, None]
        span, repeats = np.array(self.limits.loop_span)[:, None], self.limits.loop_repeats
        # A pattern of p ids that stands r times matches itself, shifted by p, over (r - 1) p ids.
        needed = np.maximum(span - self._periods, (repeats - 1) * self._periods)
        off = (self._periods > period) | (span == 0)
        self._loop_at = np.where(off, np.iinfo(np.int64).max, needed)
        self._min, self._max = np.array(self.limits.min_tokens), np.array(self.limits.max_tokens)

    @property
    def modality(self) -> Int[np.ndarray, " B"]:
        """Index into MODALITIES of the part that each sequence is in."""
        return self._table[np.arange(len(self._part)), self._part]

    def states(self) -> Int[np.ndarray, " B"]:
        """Return the row of `HeadRows.legal` that holds for the next id of each sequence."""
        modality = self.modality
        state = (self._length >= self._min[modality]).astype(np.int64)
        state[self._must_close(modality)] = CLOSING
        return state + LAST * (self._part == self._num_parts - 1)

    @property
    def part(self) -> Int[np.ndarray, " B"]:
        """Index of the part that each sequence is in."""
        return self._part

    def closing(self) -> Int[np.ndarray, " B"]:
        """Return the id that closes the part in which each sequence is."""
        return np.where(self._part == self._num_parts - 1, self.closing_ids[1], self.closing_ids[0])

    def closing_reason(self, row: int) -> str:
        """Return why a part that closes now does so: by itself ("closed"), "too_long" or "loop"."""
        modality = self.modality
        if not self._must_close(modality)[row]:
            return "closed"
        return "loop" if self._looping(modality)[row] else "too_long"

    def advance(self, ids: Int[np.ndarray, " B"]) -> None:
        """Take in the id chosen for each sequence; finished sequences ignore theirs."""
        last = self._part == self._num_parts - 1
        closed = ~self.finished & (ids == self.closing())
        for row in np.flatnonzero(closed):
            self.stops[row].append(self.closing_reason(int(row)))
        self.finished |= closed & last
        self._matched = np.where(self._history == ids[:, None], self._matched + 1, 0)
        self._history = np.concatenate([ids[:, None], self._history[:, :-1]], axis=1)
        self._length += 1
        self._part = np.where(closed & ~last, self._part + 1, self._part)
        self._length[closed], self._history[closed], self._matched[closed] = 0, -1, 0

    def select(self, rows: Int[np.ndarray, " N"]) -> "Progress":
        """Return the progress of the given sequences, in that order; a row may be asked for twice."""
        chosen = Progress([self.grammars[r] for r in rows], self.limits, self.closing_ids)
        chosen.stops = [list(self.stops[r]) for r in rows]
        width = chosen._table.shape[1]
        chosen._table = self._table[rows, :width]
        for name in ("_part", "_length", "_history", "_matched", "finished"):
            setattr(chosen, name, getattr(self, name)[rows])
        return chosen

    def _looping(self, modality: Int[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
        return np.any(self._matched >= self._loop_at[modality], axis=1)

    def _must_close(self, modality: Int[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
        return (self._length >= self._max[modality]) | self._looping(modality)


class GrammarLogitsProcessor(LogitsProcessor):
    """The same rules for `model.generate(logits_processor=[...])`, for all prompts of one length.

    Slower than `LMDecoder` (the whole head is computed, then masked), but it works wherever generate() does.
    """

    def __init__(self, processor: UnifiedProcessor, grammar: Grammar, limits: Limits, prompt_length: int):
        self.processor, self.grammar, self.limits = processor, grammar, limits
        self.prompt_length = prompt_length
        self.rows = [head_rows(processor, modality) for modality in MODALITIES]

    def __call__(self, input_ids: Int[Tensor, "B T"], scores: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """Set the scores of illegal ids to -inf."""
        progress = Progress([self.grammar] * len(input_ids), self.limits, self.processor.closing_ids)
        for column in input_ids[:, self.prompt_length :].T.cpu().numpy():
            progress.advance(column)
        legal = torch.zeros_like(scores, dtype=torch.bool)
        for b, (modality, state) in enumerate(zip(progress.modality, progress.states(), strict=True)):
            rows = self.rows[modality]
            legal[b, rows.ids.to(scores.device)] = rows.legal[state].to(scores.device)
        return scores.masked_fill(~legal, -torch.inf)
