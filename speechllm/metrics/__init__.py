"""Metrics: each returns a `Score` with value, unit, counts of scored and failed, signature and interval."""

from speechllm.metrics.bootstrap import BootstrapConfig, PairedDifference
from speechllm.metrics.normalise import Normaliser, make_normaliser
from speechllm.metrics.score import Score
from speechllm.metrics.text import BLEU, CER, CHRF, WER, TextMetric, asr_bleu, bleu_for, error_rates_for

__all__ = [
    "BLEU", "CER", "CHRF", "WER", "BootstrapConfig", "Normaliser", "PairedDifference", "Score", "TextMetric",
    "asr_bleu", "bleu_for", "error_rates_for", "make_normaliser",
]  # fmt: skip
