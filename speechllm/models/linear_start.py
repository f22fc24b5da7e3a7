"""Where a tied SoundStorm starts from: frame vectors as a linear function of the semantic codes around them.

    start = LinearStart(num_conditions=1024, frames_per_condition=2, width=320, context=2)
    start.fit(condition_codes, frame_vectors, ridge=3.0)         # closed form: a second, not a training
    start(condition, lengths)                                    # [B, T] -> [B, T, 320]

    vectors of the frames of code t  =  table[-2][c_t-2] + table[-1][c_t-1] + ... + table[2][c_t+2]

Small SoundStorms learn slowly: with codes of one kind (512, 12.5 Hz) on 1.4 hours of speech, such a regression, with
a term for the speaker, explained R2 .62 of held-out frames, and 620 training steps without this start .56 (one run
each, tokenizers fitted separately). Not part of the paper (arXiv:2305.09636).
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

BLOCK_CODES = 100_000
"Codes whose frame vectors are held at once while fitting; 128 MB with 2 frames a code of 160 numbers."


class LinearStart(nn.Module):
    """A ridge regression on one-hot codes and their neighbours; zeros until it is fitted. Not trained further."""

    table: Tensor

    def __init__(self, *, num_conditions: int, frames_per_condition: int, width: int, context: int):
        super().__init__()
        self.num_conditions, self.frames_per_condition, self.context = num_conditions, frames_per_condition, context
        # The last row stands for "no code here": before the first code and behind the last.
        self.register_buffer("table", torch.zeros(2 * context + 1, num_conditions + 1, frames_per_condition * width))

    def forward(self, condition: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T D"]:
        """Return the expected frame vectors.

        Args:
            condition: semantic codes at the codec's frame rate, each `frames_per_condition` times; marks of speakers
                (see `SoundStorm`) change nothing.
            lengths: frames of each row; beyond them there are no codes.
        """
        r, T = self.frames_per_condition, condition.shape[1]
        inside = torch.arange(T, device=condition.device)[None] < lengths[:, None]
        codes = (condition % self.num_conditions).masked_fill(~inside, self.num_conditions)[:, ::r]
        padded = nn.functional.pad(codes, (self.context, self.context), value=self.num_conditions)
        parts = [table[padded[:, i : i + codes.shape[1]]] for i, table in enumerate(self.table)]
        return torch.stack(parts).sum(0).unflatten(2, (r, -1)).flatten(1, 2)[:, :T]

    @torch.no_grad()
    def fit(
        self, conditions: Sequence[np.ndarray], vectors: Iterable[Float[Tensor, "_ D"]], *, ridge: float = 3.0
    ) -> None:
        """Solve the regression.

        Args:
            conditions: semantic codes [T] of each utterance.
            vectors: its frame vectors, T * frames_per_condition of them; read one by one and not kept.
            ridge: penalty, in counts: rare codes stay near zero.
        """
        from scipy.sparse import csr_matrix

        N, width = self.num_conditions, 2 * self.context + 1
        columns = np.concatenate([_windows(np.asarray(codes), self.context, N) for codes in conditions])
        offsets = np.arange(width) * (N + 1)
        rows = np.repeat(np.arange(len(columns)), width)
        ones = np.ones(columns.size, dtype=np.float32)
        design = csr_matrix((ones, (rows, (columns + offsets).ravel())), shape=(len(columns), width * (N + 1)))
        gram = torch.from_numpy((design.T @ design).toarray())
        gram.diagonal().add_(ridge)
        moments = torch.zeros(len(gram), self.table.shape[2])
        first = 0
        for targets in _blocks(conditions, vectors):
            moments += torch.from_numpy(design[first : first + len(targets)].T @ targets)
            first += len(targets)
        solution = torch.cholesky_solve(moments, torch.linalg.cholesky(gram))
        self.table.copy_(solution.view_as(self.table))


def _blocks(
    conditions: Sequence[np.ndarray], vectors: Iterable[Float[Tensor, "_ D"]]
) -> Iterator[Float[np.ndarray, "T E"]]:
    """Yield the vectors under each code side by side, of some utterances at a time."""
    block: list[np.ndarray] = []
    for codes, frames in zip(conditions, vectors, strict=True):
        block.append(frames.reshape(len(codes), -1).cpu().numpy())
        if sum(map(len, block)) >= BLOCK_CODES:
            yield np.concatenate(block)
            block = []
    if block:
        yield np.concatenate(block)


def _windows(codes: np.ndarray, context: int, nothing: int) -> np.ndarray:
    """Return [T, 2 * context + 1] codes around each position."""
    padded = np.pad(codes, context, constant_values=nothing)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * context + 1)
