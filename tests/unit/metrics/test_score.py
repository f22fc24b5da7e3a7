import pytest

from speechllm.errors import DataError
from speechllm.metrics import Score

FIELDS = {"name": "WER", "unit": "%", "signature": "s", "higher_is_better": False}


def test_no_value_without_a_reason_is_refused():
    with pytest.raises(DataError, match="no reason"):
        Score(value=None, num_scored=0, num_failed=2, **FIELDS)


def test_a_value_of_nothing_is_refused():
    with pytest.raises(DataError, match="scored no item"):
        Score(value=0.0, num_scored=0, num_failed=2, **FIELDS)


def test_reads_well():
    score = Score(value=6.25, num_scored=8, num_failed=1, interval=(5.0, 7.5), **FIELDS)
    assert str(score) == "WER 6.25 % [5, 7.5] (8 scored, 1 failed)"
    missing = Score(value=None, num_scored=0, num_failed=1, reason="no judge for de", **FIELDS)
    assert str(missing) == "WER not measured: no judge for de"
