import evaluate
import pytest

from speechllm.errors import ConfigError
from speechllm.evaluation.evaluate_metrics import METRICS, as_evaluate_metric

REFERENCES, PREDICTIONS = (
    ["good evening to all", "the red house is old"],
    ["good morning to all", "the red house is old"],
)


@pytest.mark.parametrize("name", METRICS)
def test_same_value_as_ours(name: str):
    expected = METRICS[name].score(REFERENCES, PREDICTIONS).value
    found = as_evaluate_metric(name).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert found == {name: pytest.approx(expected)}


def test_works_in_combine_and_in_batches():
    combined = evaluate.combine([as_evaluate_metric(name) for name in METRICS])
    for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True):
        combined.add_batch(predictions=[prediction], references=[reference])
    found = combined.compute()
    assert found["wer"] == pytest.approx(100 / 9)
    assert set(found) == set(METRICS)


def test_unknown_metric_suggests():
    with pytest.raises(ConfigError, match="did you mean 'wer'"):
        as_evaluate_metric("wre")
