"""Collation: packed rows to the tensors that a causal LM trains on.

    row of two examples, P prompt and T target ids, padded to 8 (pad id 0):

    input_ids      P1   P1   T1  T1  P2   T2  T2  0
    position_ids   0    1    2   3   0    1   2   0
    labels        -100 -100  T1  T1 -100  T2  T2 -100

Positions that restart are all that transformers needs to keep attention inside an example, provided that
there is no attention mask and no cache (and, for flash attention, one row in a batch: the trainer sees to that); the
padding counts as one more example. Labels stand at their own
token (the model, or the trainer, shifts). The first id of an example never has a label: its prediction
would come from the example before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from speechllm.errors import DataError
from speechllm.processor import EncodedExample
from speechllm.tasks import TaskTag

IGNORED = -100
"Label of a token without loss."
Batch: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Collator:
    """Turns rows of examples into a batch."""

    pad_id: int
    "Id that fills the ends of rows; never seen by an example, never a label."
    row_tokens: int | None = None
    "Fixed length of the rows; None: the longest row of the batch."
    tags: tuple[str, ...] = ()
    "Task names, numbered from 1 in `task_ids` [B, T]; 0 for padding and tasks not listed. Empty: no such key."

    def __call__(self, rows: Sequence[Sequence[EncodedExample]]) -> Batch:
        """Return `collate_rows` of the rows with their `row_work`, and `task_ids` if task names were given.

        `row_work` int64 [B, 2]: real tokens, and ordered pairs of tokens of one example (what attention works on).
        """
        batch = collate_rows(rows, self.pad_id, row_tokens=self.row_tokens)
        lengths = [np.array([len(example) for example in row]) for row in rows]
        batch["row_work"] = torch.tensor([[int(part.sum()), int((part**2).sum())] for part in lengths])
        if self.tags:
            batch["task_ids"] = self._task_ids(rows, batch["input_ids"].shape[1])
        return batch

    def _task_ids(self, rows: Sequence[Sequence[EncodedExample]], width: int) -> Tensor:
        numbers = {tag: i + 1 for i, tag in enumerate(self.tags)}
        ids = np.zeros((len(rows), width), np.int64)
        for b, row in enumerate(rows):
            column = 0
            for example in row:
                ids[b, column : column + len(example)] = numbers.get(task_name(example.tag), 0)
                column += len(example)
        return torch.from_numpy(ids)


def collate_rows(rows: Sequence[Sequence[EncodedExample]], pad_id: int, *, row_tokens: int | None = None) -> Batch:
    """Return `input_ids`, `position_ids` and `labels`, int64 [B, T] each.

    Raises:
        DataError: a row is longer than `row_tokens`.
    """
    longest = max(sum(len(example) for example in row) for row in rows)
    width = longest if row_tokens is None else row_tokens
    if longest > width:
        raise DataError(f"a row has {longest} tokens, expected at most {width}; pack with the same max_tokens")
    input_ids = np.full((len(rows), width), pad_id, np.int64)
    position_ids = np.zeros((len(rows), width), np.int64)
    labels = np.full((len(rows), width), IGNORED, np.int64)
    for b, row in enumerate(rows):
        column = 0
        for example in row:
            span = slice(column, column + len(example))
            input_ids[b, span] = example.input_ids
            position_ids[b, span] = np.arange(len(example))
            labels[b, span] = np.where(example.loss_mask, example.input_ids, IGNORED)
            labels[b, column] = IGNORED
            column += len(example)
        position_ids[b, column:] = np.arange(width - column)
    arrays = {"input_ids": input_ids, "position_ids": position_ids, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def task_name(tag: str) -> str:
    """Return the task names of a tag without its languages: "[ASR AST English French]" -> "ASR AST".

    What has no tag has no name; text that is replayed is called so.
    """
    return TaskTag.parse(tag).name if tag.startswith("[") else tag
