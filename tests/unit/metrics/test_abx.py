"""ABX against exhaustive search, and at its two fixed points: no error and chance."""

import numpy as np
import pytest

from speechllm.errors import DataError
from speechllm.metrics.abx import Triple, abx_error, dtw_distance


def frames(*angles: float) -> np.ndarray:
    """Return unit vectors in the plane; angles in half turns."""
    turns = np.pi * np.array(angles)
    return np.stack((np.cos(turns), np.sin(turns)), axis=1)


def cheapest_by_search(cost: np.ndarray) -> float:
    """Walk every path."""

    def paths(i: int, j: int, total: float, steps: int):
        total, steps = total + cost[i, j], steps + 1
        if (i, j) == (cost.shape[0] - 1, cost.shape[1] - 1):
            yield total, steps
        for down, right in ((1, 1), (1, 0), (0, 1)):
            if i + down < cost.shape[0] and j + right < cost.shape[1]:
                yield from paths(i + down, j + right, total, steps)

    total, steps = min(paths(0, 0, 0.0, 0))
    return total / steps


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 5), (5, 4), (6, 6)])
def test_alignment_is_the_cheapest_of_all(shape):
    rng = np.random.default_rng(sum(shape))
    a, b = rng.normal(size=(shape[0], 3)), rng.normal(size=(shape[1], 3))
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    expected = cheapest_by_search(np.arccos(np.clip(units[0] @ units[1].T, -1, 1)) / np.pi)
    assert dtw_distance(a, b) == pytest.approx(expected)
    assert dtw_distance(b, a) == pytest.approx(expected)


def test_distance_is_zero_for_the_same_at_another_speed_and_blind_to_loudness():
    a = frames(0.0, 0.2, 0.4)
    assert dtw_distance(a, a.repeat(3, axis=0)) == pytest.approx(0, abs=1e-6)
    assert dtw_distance(a, 5 * a) == pytest.approx(0, abs=1e-6)
    assert dtw_distance(frames(0.0), frames(1.0)) == pytest.approx(1)
    assert dtw_distance(frames(0.0), np.zeros((1, 2))) == pytest.approx(0.5)


def test_what_is_apart_has_no_error():
    a, b = frames(0.0, 0.1), frames(0.5, 0.6)
    score = abx_error([Triple(a=a, b=b, x=frames(0.05, 0.1, 0.12)), Triple(a=b, b=a, x=frames(0.55))])
    assert score.value == 0
    assert abx_error([Triple(a=a, b=b, x=b)]).value == 100


def test_what_says_nothing_is_at_chance():
    a = frames(0.1, 0.3)
    assert abx_error([Triple(a=a, b=a, x=frames(0.2))]).value == 50
    rng = np.random.default_rng(0)
    triples = [Triple(a=a, b=b, x=x) for a, b, x in rng.normal(size=(2000, 3, 2, 4))]
    score = abx_error(triples)
    assert score.value == pytest.approx(50, abs=4)
    assert score.num_scored == 2000


def test_roles_of_a_and_b_are_symmetric():
    rng = np.random.default_rng(1)
    a, b, x = rng.normal(size=(3, 4, 5))
    assert abx_error([Triple(a=a, b=b, x=x), Triple(a=b, b=a, x=x)]).value == 50


def test_an_item_without_frames_is_refused():
    with pytest.raises(DataError, match="cannot align 0 with 2 frames"):
        dtw_distance(np.zeros((0, 2)), frames(0.0, 0.1))
