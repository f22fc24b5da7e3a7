"""What a comparison over seeds says: it holds if every seed points the published way.

verdict((1.2, 0.4, 2.0), num_clear=2)        # "holds (3 of 3 seeds, 2 beyond the bootstrap interval)"
"""

from collections.abc import Sequence


def gains(better: Sequence[float], worse: Sequence[float], *, higher_is_better: bool) -> tuple[float, ...]:
    """Return how much better each seed is: positive is the published direction, for errors too."""
    sign = 1 if higher_is_better else -1
    return tuple(sign * (b - w) for b, w in zip(better, worse, strict=True))


def holds(found: Sequence[float]) -> bool:
    """Return whether every gain points the published way."""
    return all(gain > 0 for gain in found)


def verdict(found: Sequence[float], num_clear: int | None) -> str:
    """Return the answer in words; `num_clear` seeds are beyond their interval, None if there is no interval."""
    seeds = f"{sum(gain > 0 for gain in found)} of {len(found)} seeds"
    if num_clear is not None:
        seeds += f", {num_clear} beyond the bootstrap interval"
    return f"holds ({seeds})" if holds(found) else f"**does not hold** ({seeds})"
