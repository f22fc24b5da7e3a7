"""Bootstrap intervals over utterances, for metrics that are a function of sums over utterances.

Corpus WER is sum(errors) / sum(words): keep both numbers per utterance, and a resampled corpus
is a weighted sum of rows. The same holds for BLEU and chrF (n-gram counts) and for means.

    statistics = np.array([[1, 10], [0, 7], [3, 9]])            # errors and words of 3 utterances
    bootstrap_interval(statistics, lambda s: 100 * s[0] / s[1], BootstrapConfig(seed=0))

Efron 1979; Koehn 2004 "Statistical significance tests for machine translation evaluation" (paired).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from speechllm.errors import ConfigError, DataError

DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """How intervals are made."""

    num_resamples: int = 1000
    "0 switches intervals off."
    confidence: float = DEFAULT_CONFIDENCE
    "Share of resampled corpora inside the interval (percentile method)."
    seed: int = 0
    "Seed of the resampling."

    def __post_init__(self) -> None:
        if self.num_resamples < 0 or not 0 < self.confidence < 1:
            raise ConfigError(
                f"num_resamples is {self.num_resamples} and confidence {self.confidence}; "
                "expected a count from 0 and a share between 0 and 1"
            )

    @property
    def signature(self) -> str:
        """What a score's signature says of its interval: nothing of the usual 95 %."""
        return "" if self.confidence == DEFAULT_CONFIDENCE else f"|interval:{100 * self.confidence:g}%"


DEFAULT_BOOTSTRAP = BootstrapConfig()
FromSums = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class PairedDifference:
    """A value minus B's, on the same utterances."""

    difference: float
    interval: tuple[float, float]
    "If it excludes 0, the direction is unlikely to be chance (as far as the choice of utterances goes)."
    probability_not_above_zero: float
    "Share of resampled corpora in which A's value is not above B's."
    num_scored: int


def bootstrap_interval(
    statistics: np.ndarray, from_sums: FromSums, config: BootstrapConfig = DEFAULT_BOOTSTRAP
) -> tuple[float, float] | None:
    """Return the percentile interval of `from_sums` over resampled rows of `statistics` [items, D].

    None if there are fewer than two items or no resampling is wanted: one utterance says nothing about spread.
    """
    if len(statistics) < 2 or config.num_resamples == 0:
        return None
    return _percentiles(_resampled(statistics, from_sums, config), config.confidence)


def paired_bootstrap(
    statistics_a: np.ndarray,
    statistics_b: np.ndarray,
    from_sums: FromSums,
    config: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> PairedDifference:
    """Compare two systems on the same items: each resample draws the same items for both.

    Raises:
        DataError: the two do not have the same items, or fewer than two.
    """
    if statistics_a.shape != statistics_b.shape or len(statistics_a) < 2 or config.num_resamples == 0:
        raise DataError(
            f"cannot compare statistics of shapes {statistics_a.shape} and {statistics_b.shape} with "
            f"{config.num_resamples} resamples; expected the same items, at least two, and at least one resample"
        )
    differences = _resampled(statistics_a, from_sums, config) - _resampled(statistics_b, from_sums, config)
    return PairedDifference(
        from_sums(statistics_a.sum(axis=0)) - from_sums(statistics_b.sum(axis=0)),
        _percentiles(differences, config.confidence),
        float((differences <= 0).mean()),
        len(statistics_a),
    )


def _resampled(statistics: np.ndarray, from_sums: FromSums, config: BootstrapConfig) -> np.ndarray:
    generator = np.random.default_rng(config.seed)
    num_items = len(statistics)
    # how often each item is drawn: the same draws for every system with as many items
    counts = generator.multinomial(num_items, np.full(num_items, 1 / num_items), size=config.num_resamples)
    return np.array([from_sums(sums) for sums in counts @ statistics])


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[np.isfinite(values)], [tail, 1 - tail])
    return float(low), float(high)
