import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.data import packing
from speechllm.data.packing import PackedRows, PackingReport, pack
from speechllm.errors import ConfigError, DataError
from speechllm.processor import EncodedExample


def examples(lengths):
    return [EncodedExample(np.full(n, i), np.ones(n, bool), f"[ASR] {i}") for i, n in enumerate(lengths)]


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 6))
def test_every_example_that_fits_is_in_one_row_and_no_row_overflows(lengths, open_rows):
    report = PackingReport()
    rows = list(pack(iter(examples(lengths)), 30, open_rows=open_rows, report=report))
    packed = sorted(int(e.input_ids[0]) for row in rows for e in row)
    assert packed == [i for i, n in enumerate(lengths) if n <= 30]
    assert all(0 < sum(map(len, row)) <= 30 for row in rows)
    assert report.too_long == sum(n > 30 for n in lengths) == sum(report.too_long_tags.values())
    assert report.tokens == sum(n for n in lengths if n <= 30)
    assert report.examples == len(packed)


def test_speech_like_lengths_leave_less_than_two_percent_padding():
    lengths = np.random.default_rng(0).integers(20, 120, 4000)
    report = PackingReport()
    rows = list(itertools.islice(pack(iter(examples(lengths)), 1024, report=report), 200))
    assert len(rows) == 200
    assert report.non_pad_share >= 0.98


def test_rows_are_the_same_on_every_pass():
    lengths = np.random.default_rng(1).integers(5, 50, 500)
    dataset = PackedRows(lambda i: examples(lengths)[i % 500], 128)
    first, second = ([[e.tag for e in row] for row in itertools.islice(dataset, 20)] for _ in range(2))
    assert first == second
    assert dataset.report.rows == 20


def test_errors(monkeypatch):
    monkeypatch.setattr(packing, "MAX_TOO_LONG_RUN", 3)
    with pytest.raises(DataError, match="3 examples in a row are longer than max_tokens = 8"):
        list(pack(iter(examples([9, 9, 9])), 8))
    with pytest.raises(ConfigError, match="max_tokens = 0"):
        list(pack(iter([]), 0))
