import numpy as np
import pytest

from speechllm.errors import ConfigError, DataError
from speechllm.metrics.bootstrap import BootstrapConfig, bootstrap_interval, paired_bootstrap


def mean(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1])


def column(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1)


def test_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(10, 2, size=400)
    low, high = bootstrap_interval(column(values), mean, BootstrapConfig(num_resamples=4000))
    half = 1.96 * values.std(ddof=1) / 20  # the standard error of the mean of 400 values
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        values = generator.normal(0, 1, size=60)
        low, high = bootstrap_interval(column(values), mean, BootstrapConfig(num_resamples=200, seed=seed))
        hits += low <= 0 <= high
    assert 176 <= hits <= 199  # 95 % of 200 is 190; four standard deviations are 12


def test_same_seed_same_interval_and_order_of_items_hardly_matters():
    values = np.random.default_rng(2).exponential(size=100)
    first = bootstrap_interval(column(values), mean)
    assert first == bootstrap_interval(column(values), mean)
    assert first == pytest.approx(bootstrap_interval(column(values[::-1]), mean), abs=0.05)


def test_one_item_has_no_interval():
    assert bootstrap_interval(np.ones((1, 2)), mean) is None
    assert bootstrap_interval(np.ones((5, 2)), mean, BootstrapConfig(num_resamples=0)) is None


def test_a_system_against_itself_differs_by_nothing():
    rows = column(np.random.default_rng(3).normal(size=50))
    result = paired_bootstrap(rows, rows, mean)
    assert (result.difference, result.interval, result.num_scored) == (0, (0, 0), 50)


def test_pairing_finds_a_small_but_steady_difference():
    hard = np.random.default_rng(4).normal(0, 10, size=50)
    result = paired_bootstrap(column(hard + 0.5), column(hard), mean)
    assert result.difference == pytest.approx(0.5)
    assert result.interval == pytest.approx((0.5, 0.5))
    assert result.probability_not_above_zero == 0


def test_bad_input():
    with pytest.raises(DataError, match="same items"):
        paired_bootstrap(np.ones((3, 2)), np.ones((4, 2)), mean)
    with pytest.raises(ConfigError, match="confidence"):
        BootstrapConfig(confidence=1.0)
