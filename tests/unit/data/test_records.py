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


def test_a_split_keeps_its_name():
    assert Record("a", "train.clean.100", "en", "x").split == "train.clean.100"


def test_the_digest_changes_with_everything(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"1234")
    record = Record("a", "train", "en", "x", b"audio", "anna", translation=Translation("fr", "y", path, "paul"))
    changes = [
        {"id": "b"}, {"split": "test"}, {"language": "de"}, {"text": "z"}, {"audio": b"sound"}, {"audio": None},
        {"audio": path}, {"speaker": "eva"}, {"label_source": "pseudo"}, {"translation": None},
        *({"translation": replace(record.translation, **{name: value})} for name, value in {
            "language": "it", "text": "z", "audio": b"x", "speaker": "eva", "label_source": "pseudo"}.items()),
    ]  # fmt: skip
    digests = [replace(record, **change).digest for change in changes]
    assert len({record.digest, *digests}) == len(changes) + 1
    before = record.digest
    path.write_bytes(b"12345")
    assert record.digest != before
    path.unlink()
    assert record.digest != before


@pytest.mark.parametrize(
    "make", [lambda: Record("a", "train", "frnech", "x"), lambda: replace(PAIR, translation=WRONG)]
)
def test_an_unknown_language_is_refused(make):
    with pytest.raises(TaskError, match="unknown language 'frnech'; did you mean 'French'"):
        make()
