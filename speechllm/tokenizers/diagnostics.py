"""How much codes depend on the voice: the same sentence by two speakers should give much the same codes.

    unit_disagreement(tokenizer, [(load_audio("slt/17.flac"), load_audio("bdl/17.flac")), ...])      # 0.43

0: voices do not matter; around 1: the codes share nothing. A run counts as one code: tempo alone is no difference.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from speechllm.audio import Audio
from speechllm.errors import DataError


@runtime_checkable
class Encoder(Protocol):
    """The part of a semantic tokenizer that is needed here."""

    def encode(self, audios: Sequence[Audio]) -> list[np.ndarray]:
        """Return the codes of each audio, int64 [T]."""
        ...


def unit_disagreement(tokenizer: Encoder, pairs: Iterable[tuple[Audio, Audio]]) -> float:
    """Return the edits between the two sides of all pairs, per code of the longer side.

    Raises:
        DataError: there are no pairs.
    """
    edits = longest = 0
    for pair in pairs:
        first, second = (without_repeats(codes) for codes in tokenizer.encode(pair))
        edits += edit_distance(first, second)
        longest += max(len(first), len(second))
    if not longest:
        raise DataError("no pairs of audio given; expected the same sentences by two speakers")
    return edits / longest


def without_repeats(codes: np.ndarray) -> np.ndarray:
    """Return codes [T] with each run written once."""
    return codes[np.insert(np.diff(codes) != 0, 0, True)] if len(codes) else codes


def edit_distance(first: np.ndarray, second: np.ndarray) -> int:
    """Return the fewest insertions, deletions and replacements that turn one sequence into the other."""
    row = np.arange(len(second) + 1)
    for i, code in enumerate(first, start=1):
        best = np.minimum(row[1:] + 1, row[:-1] + (second != code))
        # Insertions run along the row: the best of all earlier cells plus their distance, by a running minimum.
        steps = np.arange(len(second) + 1)
        row = np.minimum.accumulate(np.concatenate(([i], best)) - steps) + steps
    return int(row[-1])
