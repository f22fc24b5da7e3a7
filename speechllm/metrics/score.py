"""The result of a metric: a value with everything that is needed to read it, or the reason why there is none.

score = word_error_rate.score(references, hypotheses)
score.value, score.interval, score.num_scored, score.num_failed     # 6.3, (5.1, 7.6), 198, 2
print(score)                       # WER 6.3 % [5.1, 7.6] (198 scored, 2 failed)
"""

from dataclasses import dataclass

from speechllm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measured number, or an honest "not measured"."""

    name: str
    value: float | None
    "None if nothing could be measured; never a number that stands for a failure."
    unit: str
    num_scored: int
    num_failed: int
    "Items that gave no output, or that could not be compared; they are not in `value`."
    signature: str
    "Normaliser, tokenisation and version: what somebody else needs to get the same number."
    higher_is_better: bool
    interval: tuple[float, float] | None = None
    "95 % bootstrap interval over the items, unless the signature says otherwise."
    reason: str = ""
    "Why there is no value, or what went wrong with the failed items."

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise DataError(f"score {self.name!r} has no value and no reason; say why it was not measured")
        if self.value is not None and self.num_scored == 0:
            raise DataError(
                f"score {self.name!r} has the value {self.value} but scored no item; give None and a reason"
            )

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} not measured: {self.reason}"
        unit = f" {self.unit}" if self.unit else ""
        low_high = f" [{self.interval[0]:.4g}, {self.interval[1]:.4g}]" if self.interval else ""
        return f"{self.name} {self.value:.4g}{unit}{low_high} ({self.num_scored} scored, {self.num_failed} failed)"
