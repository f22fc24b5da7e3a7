"""Choosing: greedy is the limit, cuts cut, frequencies follow the probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import ConfigError
from speechllm.generation.sampling import SamplingConfig, choose, log_probability

LOGITS = torch.tensor([[1.0, 3.0, -torch.inf, 2.0, 0.5]])


def draw(config: SamplingConfig, count: int = 20_000) -> np.ndarray:
    """Frequencies of each index over an even grid of uniform numbers: no randomness in the test."""
    uniforms = (np.arange(count) + 0.5) / count
    chosen = choose(LOGITS.expand(count, -1), config, uniforms)
    return np.bincount(chosen.numpy(), minlength=LOGITS.shape[1]) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_probabilities(temperature: float):
    expected = (LOGITS[0] / temperature).softmax(-1).numpy()
    # The grid misses each boundary by at most one point.
    assert draw(SamplingConfig(temperature=temperature)) == pytest.approx(expected, abs=2e-4)


def test_top_k_and_top_p_cut_the_tail():
    probabilities = LOGITS[0].softmax(-1).numpy()
    two = np.where(np.isin(np.arange(5), [1, 3]), probabilities, 0)
    assert draw(SamplingConfig(temperature=1.0, top_k=2)) == pytest.approx(two / two.sum(), abs=2e-4)
    # 0.63 alone is under 0.7, so the second crosses it and stays.
    assert draw(SamplingConfig(temperature=1.0, top_p=0.7)) == pytest.approx(two / two.sum(), abs=2e-4)
    assert draw(SamplingConfig(temperature=1.0, top_p=0.1)).tolist() == [0, 1, 0, 0, 0]
    assert draw(SamplingConfig(temperature=1.0, top_k=1)).tolist() == [0, 1, 0, 0, 0]
    assert draw(SamplingConfig()).tolist() == [0, 1, 0, 0, 0]


@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.01, 100),
    top_k=st.integers(0, 9),
    top_p=st.floats(0.01, 1.0),
    uniform=st.sampled_from([0.0, 0.5, 1 - 1e-9, np.nextafter(1, 0)]),
)
def test_illegal_entries_are_never_chosen(seed: int, temperature: float, top_k: int, top_p: float, uniform: float):
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(seed)) * 10
    legal = torch.rand(9, generator=torch.Generator().manual_seed(seed)) < 0.4
    legal[seed % 9] = True
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    chosen = choose(logits.masked_fill(~legal, -torch.inf), config, np.array([uniform]))
    assert legal[chosen].all()


def test_log_probability():
    found = log_probability(LOGITS.expand(2, -1), torch.tensor([1, 3]))
    assert torch.allclose(found, LOGITS[0].log_softmax(-1)[[1, 3]])


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", -1.0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5)]
)  # fmt: skip
def test_bad_values_are_refused(name: str, value: float):
    with pytest.raises(ConfigError, match=name):
        SamplingConfig(**{name: value})
