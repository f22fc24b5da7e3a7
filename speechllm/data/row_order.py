"""Which rows are trained on, and in which order, without a list of either.

    chosen = Chosen(masks)                       # for each batch of rows: bool [R, 2], as they are and in reverse
    len(chosen), chosen[5]                       # place 5 -> (batch, row in it, is reversed)
    order = ShuffledOrder([seed, component], len(chosen))
    order(epoch=0, place=0)                      # each of 0 ... len - 1 comes once in an epoch

A choice is one bit for each row and direction: 7 MB for 29 million rows. Up to `LISTED` places an order is numpy's
permutation. Beyond, it is computed place by place: a Feistel network is a bijection whatever its round function is
(Luby and Rackoff, 1988), and walking on until the range is hit makes it one of any range (Black and Rogaway, CT-RSA
2002, section 3). Either way place i of epoch e is a function of the key, e and i.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool

LISTED = 2**20
"Longest order that is held as a list, of 4 bytes each."
ROUNDS = 6
_ALL = 2**64 - 1


class Chosen:
    """The rows that were chosen, in the order in which they stand."""

    def __init__(self, masks: Iterable[Bool[np.ndarray, "R 2"]]):
        bits: list[np.ndarray] = []
        counts = [0]
        for mask in masks:
            bits.append(np.packbits(mask))
            counts.append(int(mask.sum()))
        self._bits = np.zeros((len(bits), max(map(len, bits), default=0)), np.uint8)
        for row, packed in zip(self._bits, bits, strict=True):
            row[: len(packed)] = packed
        self._starts = np.cumsum(counts)

    def masks(self) -> Iterator[Bool[np.ndarray, "R 2"]]:
        """Yield what was chosen of each batch; behind its last row follow some that are not chosen."""
        return (np.unpackbits(bits).astype(bool).reshape(-1, 2) for bits in self._bits)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[int, int, bool]:
        """Return (batch, place of the row in it, whether it is read in reverse)."""
        batch = int(np.searchsorted(self._starts, index, side="right")) - 1
        found = np.flatnonzero(np.unpackbits(self._bits[batch]))[index - self._starts[batch]]
        return batch, int(found // 2), bool(found % 2)


class ShuffledOrder:
    """An order of `size` places for each epoch."""

    def __init__(self, key: Sequence[int], size: int):
        self.key, self.size = tuple(key), size
        self._listed: tuple[int, np.ndarray] | None = None

    def __call__(self, epoch: int, place: int) -> int:
        """Return what comes at `place` of an epoch."""
        if self.size > LISTED:
            return scattered(place, self.size, (*self.key, epoch))
        if self._listed is None or self._listed[0] != epoch:
            order = np.arange(self.size, dtype=np.uint32)
            np.random.default_rng([*self.key, epoch, 3]).shuffle(order)
            self._listed = epoch, order
        return int(self._listed[1][place])


def scattered(place: int, size: int, key: Sequence[int]) -> int:
    """Return a number below `size`, another one for each place below `size`."""
    half_bits = ((size - 1).bit_length() + 1) // 2
    low = (1 << half_bits) - 1
    start = 0
    for part in key:
        start = _mixed(start ^ part)
    while True:
        left, right = place >> half_bits, place & low
        for number in range(ROUNDS):
            left, right = right, left ^ (_mixed(start + number ^ right << 8) & low)
        place = left << half_bits | right
        if place < size:
            return place


def _mixed(value: int) -> int:
    """Return 64 well mixed bits of a number (the finaliser of SplitMix64: Steele, Lea and Flood, OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _ALL
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _ALL
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _ALL
    return value ^ value >> 31
