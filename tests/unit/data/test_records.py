"""The Record refuses what no corpus can mean, and turns round."""

from dataclasses import replace
from pathlib import Path

import pytest

from speechllm.data.records import Record, Translation
from speechllm.errors import DataError, TaskError

WRONG = Translation("frnech", "y")
PAIR = Record(
    "a", "train", "en", "good morning", b"x", "slt", "human", Translation("fr", "bonjour", b"y", "siw", "pseudo")
)


def test_reversing_twice_gives_the_same_record():
    assert PAIR.reversed().reversed() == PAIR
    assert PAIR.reversed().language == "fr"
    assert PAIR.reversed().label_source == "pseudo"
    assert PAIR.reversed().translation == Translation("en", "good morning", b"x", "slt", "human")


def test_a_record_without_a_parallel_side_cannot_be_turned_round():
    with pytest.raises(DataError, match="'b' has no translation"):
        Record("b", "train", "en", "hello").reversed()


def test_text_or_audio_is_enough():
    assert Record("a", "train", "en", audio=Path("a.wav")).text == ""
    assert Record("a", "train", "en", text="hello").audio is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"id": ""}, "empty id"),
        ({"split": "../train"}, "split '../train'"),
        ({"split": ""}, "split ''"),
        ({"text": "", "audio": None}, "neither text nor audio"),
    ],
)
def test_a_broken_record_is_refused(wrong, message):
    with pytest.raises(DataError, match=message):
        Record(**{"id": "a", "split": "train", "language": "en", "text": "x"} | wrong)


@pytest.mark.parametrize(
    "make", [lambda: Record("a", "train", "frnech", "x"), lambda: replace(PAIR, translation=WRONG)]
)
def test_an_unknown_language_is_refused(make):
    with pytest.raises(TaskError, match="unknown language 'frnech'; did you mean 'French'"):
        make()
