"""The score of anything that is one number for each item: its mean, with counts and a bootstrap interval.

mean_score([0.81, 0.77, None], name="similarity", unit="cosine", signature="ge2e", higher_is_better=True)
"""

from collections.abc import Sequence

import numpy as np

from speechllm.metrics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig, bootstrap_interval
from speechllm.metrics.score import Score


def mean_score(
    values: Sequence[float | None],
    *,
    name: str,
    unit: str,
    signature: str,
    higher_is_better: bool,
    reason: str = "",
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> Score:
    """Return the mean of the values that are there; None counts as failed, `reason` says why."""
    rows = np.array([[value, 1.0] for value in values if value is not None])
    return Score(
        name=name,
        value=float(rows[:, 0].mean()) if len(rows) else None,
        unit=unit,
        num_scored=len(rows),
        num_failed=len(values) - len(rows),
        signature=signature + bootstrap.signature,
        higher_is_better=higher_is_better,
        interval=bootstrap_interval(rows, _mean, bootstrap) if len(rows) else None,
        reason=reason or ("" if len(rows) else "there were no items"),
    )


def _mean(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1])
