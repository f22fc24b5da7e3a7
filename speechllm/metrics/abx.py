"""ABX: is X, which says what A says, closer to A than to B, which says something else?

    triples = [Triple(a=frames_a, b=frames_b, x=frames_x), ...]            # each [T, D], lengths may differ
    abx_error(triples, name="ABX within speaker")                          # 6.7 %; chance is 50, no error is 0

    d(A, X) < d(B, X)  right        d(A, X) > d(B, X)  wrong        equal: half

d is the mean distance of frames along the cheapest alignment (dynamic time warping), that of two frames the angle
between them, from 0 to 1. Codes are compared as the vectors they stand for. A and B take turns as the one that is
right: a pair of words has two triples. (Schatz et al. 2013; Libri-Light, arXiv:1912.07875, section 4.1.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speechllm.errors import DataError
from speechllm.metrics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig
from speechllm.metrics.mean import mean_score
from speechllm.metrics.score import Score


@dataclass(frozen=True, kw_only=True, eq=False)
class Triple:
    """Two things that differ, and another token of the first."""

    a: Float[np.ndarray, "T D"]
    b: Float[np.ndarray, "T2 D"]
    x: Float[np.ndarray, "T3 D"]


def abx_error(triples: Sequence[Triple], *, name: str = "ABX", bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP) -> Score:
    """Return the share of triples, in percent, in which X is closer to B; a tie is half an error.

    Raises:
        DataError: an item has no frames.
    """
    return mean_score(
        abx_errors(triples), name=name, unit="%", signature="DTW|mean angle along the path", higher_is_better=False,
        bootstrap=bootstrap,
    )  # fmt: skip


def abx_errors(triples: Sequence[Triple]) -> list[float]:
    """Return the error of each triple in percent: 0, 100, or 50 where both are as far."""
    errors = []
    for triple in triples:
        right, wrong = dtw_distance(triple.a, triple.x), dtw_distance(triple.b, triple.x)
        errors.append(100.0 * (right > wrong) + 50.0 * (right == wrong))
    return errors


def dtw_distance(a: Float[np.ndarray, "T D"], b: Float[np.ndarray, "T2 D"]) -> float:
    """Return the mean angle, in half turns, of the frames that the cheapest monotonic alignment brings together.

    The alignment begins with both first frames and ends with both last ones; a step moves on in one, the other or
    both. Of paths that cost the same the one with fewer steps counts, so that d(a, b) = d(b, a).

    Raises:
        DataError: one of them has no frames.
    """
    if not len(a) or not len(b):
        raise DataError(f"cannot align {len(a)} with {len(b)} frames; give at least one of each")
    return _mean_along_cheapest_path(_angles(a, b))


def _angles(a: Float[np.ndarray, "T D"], b: Float[np.ndarray, "T2 D"]) -> Float[np.ndarray, "T T2"]:
    """Return the angle of every pair of frames: 0 same direction, 1 opposite. A frame of zeros is at right angles."""
    units = [
        frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-12) for frames in map(np.float64, (a, b))
    ]
    return np.arccos(np.clip(units[0] @ units[1].T, -1, 1)) / np.pi


def _mean_along_cheapest_path(cost: Float[np.ndarray, "T T2"]) -> float:
    """Return total cost over number of cells, by anti-diagonals: their cells depend on earlier ones alone."""
    T, T2 = cost.shape
    # A border of infinities stands for what lies outside; index i of a diagonal is row i - 1.
    total, steps = np.full((3, T + 1), np.inf), np.zeros((3, T + 1))
    total[0, 0] = 0.0
    for diagonal in range(2, T + T2 + 1):
        older, newer, now = (diagonal - 2) % 3, (diagonal - 1) % 3, diagonal % 3
        rows = np.arange(max(1, diagonal - T2), min(T, diagonal - 1) + 1)
        # From the cell before in both, in a alone, in b alone.
        totals = np.stack((total[older, rows - 1], total[newer, rows - 1], total[newer, rows]))
        lengths = np.stack((steps[older, rows - 1], steps[newer, rows - 1], steps[newer, rows]))
        best = np.lexsort((lengths, totals), axis=0)[0]
        picked = np.arange(len(rows))
        total[now], steps[now] = np.inf, 0
        total[now, rows] = totals[best, picked] + cost[rows - 1, diagonal - rows - 1]
        steps[now, rows] = lengths[best, picked] + 1
    last = (T + T2) % 3
    return float(total[last, T] / steps[last, T])
