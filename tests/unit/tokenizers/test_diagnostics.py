"""Unit disagreement: edit distance against a plain recursion, and its ends 0 and 1."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.audio import Audio
from speechllm.errors import DataError
from speechllm.tokenizers.diagnostics import edit_distance, unit_disagreement, without_repeats

codes = st.lists(st.integers(0, 3), max_size=8).map(lambda values: np.array(values, dtype=np.int64))


def plain_distance(first, second):
    @cache
    def distance(i, j):
        if i == 0 or j == 0:
            return i + j
        change = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, change)

    return distance(len(first), len(second))


@given(codes, codes)
def test_edit_distance_equals_the_recursion(first, second):
    assert edit_distance(first, second) == plain_distance(first.tolist(), second.tolist())


@given(codes)
def test_without_repeats_keeps_order_and_changes(values):
    short = without_repeats(values)
    assert not (short[1:] == short[:-1]).any()
    assert short.tolist() == [v for i, v in enumerate(values.tolist()) if i == 0 or values[i - 1] != v]


class Scripted:
    """Returns the codes that the audio's first sample stands for."""

    def __init__(self, table):
        self.table = table

    def encode(self, audios):
        return [np.array(self.table[int(audio.samples[0] * 10)]) for audio in audios]


def audio(key):
    return Audio(np.array([key / 10], dtype=np.float32), 16_000)


def test_disagreement_is_edits_per_code():
    tokenizer = Scripted({1: [5, 5, 6, 7, 7], 2: [5, 6, 6, 6, 7], 3: [1, 2, 3]})
    assert unit_disagreement(tokenizer, [(audio(1), audio(2))]) == 0.0
    assert unit_disagreement(tokenizer, [(audio(1), audio(3))]) == 1.0
    assert unit_disagreement(tokenizer, [(audio(1), audio(2)), (audio(1), audio(3))]) == 0.5


def test_no_pairs_is_an_error():
    with pytest.raises(DataError, match="no pairs"):
        unit_disagreement(Scripted({}), [])
