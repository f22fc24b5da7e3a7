"""The text metrics as `evaluate.Metric`s that need no network: for code that already speaks that interface.

metric = as_evaluate_metric("wer")
metric.compute(predictions=["good morning"], references=["good evening"])     # {"wer": 50.0}
evaluate.combine([as_evaluate_metric("wer"), as_evaluate_metric("chrf")]).compute(...)

Values are percent, like those of `metrics.text`, which computes them; texts are normalised only if asked for.
"""

from typing import Any

from speechllm.errors import ConfigError, MissingDependencyError
from speechllm.metrics.bootstrap import BootstrapConfig
from speechllm.metrics.normalise import make_normaliser
from speechllm.metrics.text import BLEU, CER, CHRF, WER
from speechllm.registry import suggest

METRICS = {"wer": WER, "cer": CER, "bleu": BLEU, "chrf": CHRF}


def as_evaluate_metric(name: str, *, normaliser: str = "none", language: str = "en") -> Any:
    """Return an `evaluate.Metric` for wer, cer, bleu or chrf.

    Raises:
        ConfigError: the metric is unknown.
        MissingDependencyError: the package `evaluate` is not installed.
    """
    if name not in METRICS:
        raise ConfigError(f"unknown metric {name!r}{suggest(name, METRICS)} (known: {', '.join(METRICS)})")
    try:
        import datasets
        import evaluate
    except ImportError as error:
        raise MissingDependencyError("evaluate", "eval", "evaluate.Metric wrappers") from error
    metric, normalise = METRICS[name], make_normaliser(normaliser, language)

    class TextMetricWrapper(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            text = datasets.Value("string")
            return evaluate.MetricInfo(
                description=f"{metric.name}, corpus level, in percent",
                citation="",
                inputs_description="predictions and references: lists of texts",
                features=datasets.Features({"predictions": text, "references": text}),
            )

        def _compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any]:
            if options:
                raise ConfigError(f"metric {name!r} got the options {sorted(options)}, expected none")
            no_interval = BootstrapConfig(num_resamples=0)
            score = metric.score(references, predictions, normaliser=normalise, bootstrap=no_interval)
            return {name: score.value}

    return TextMetricWrapper(config_name=name)
