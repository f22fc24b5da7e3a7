import numpy as np
import pytest
import torch

from speechllm.models import linear_start
from speechllm.models.linear_start import LinearStart

N, R, D, CONTEXT = 6, 2, 3, 1


@pytest.fixture
def world():
    """Frame vectors that really are a linear function of the codes around them."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2 * CONTEXT + 1, N, R * D)).astype(np.float32)
    conditions = [rng.integers(0, N, rng.integers(5, 30)) for _ in range(60)]
    vectors = []
    for codes in conditions:
        frames = np.zeros((len(codes), R * D), np.float32)
        for t in range(len(codes)):
            for o in range(-CONTEXT, CONTEXT + 1):
                if 0 <= t + o < len(codes):
                    frames[t] += truth[o + CONTEXT, codes[t + o]]
        vectors.append(torch.from_numpy(frames.reshape(-1, D)))
    return conditions, vectors


def fitted(world):
    start = LinearStart(num_conditions=N, frames_per_condition=R, width=D, context=CONTEXT)
    start.fit(*world, ridge=1e-3)
    return start


def test_it_recovers_what_is_linear(world):
    start = fitted(world)
    for codes, vectors in zip(*world, strict=True):
        condition = torch.from_numpy(np.repeat(codes, R))[None]
        predicted = start(condition, torch.tensor([condition.shape[1]]))[0]
        torch.testing.assert_close(predicted, vectors, atol=1e-2, rtol=0)


def test_frame_vectors_are_read_one_by_one_and_in_blocks(world, monkeypatch):
    starts = [LinearStart(num_conditions=N, frames_per_condition=R, width=D, context=CONTEXT) for _ in range(2)]
    starts[0].fit(*world)
    monkeypatch.setattr(linear_start, "BLOCK_CODES", 40)
    starts[1].fit(world[0], iter(world[1]))
    # The same sums in another order.
    torch.testing.assert_close(starts[1].table, starts[0].table, atol=1e-4, rtol=0)


def test_padding_changes_nothing(world):
    start = fitted(world)
    condition = torch.from_numpy(np.repeat(world[0][0], R))[None]
    T = condition.shape[1]
    padded = torch.cat([condition, torch.randint(0, N, (1, 8))], dim=1)
    alone, together = start(condition, torch.tensor([T])), start(padded, torch.tensor([T]))
    assert torch.equal(alone, together[:, :T])
