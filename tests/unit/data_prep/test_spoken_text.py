"""Open text, spoken: splits, labels, parallel files."""

import gzip

import pytest

from data_prep.pico import HELD_OUT_SPEAKERS
from data_prep.spoken_text import records
from speechllm.audio import load_audio
from speechllm.errors import DataError

EN = [
    "A boy sits.",
    "A boy sits!",
    "Two dogs run.",
    "The 3 men eat.",
    "A girl sings a very long song here.",
    "Hello you.",
]
FR = ["Un garcon.", "Un garcon?", "Deux chiens.", "Les 3 hommes mangent.", "Une fille chante.", "Bonjour toi."]


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "text.en").write_text("\n".join(EN) + "\n", encoding="utf-8")
    (tmp_path / "text.fr.gz").write_bytes(gzip.compress(("\n".join(FR) + "\n").encode()))
    return {"en": tmp_path / "text.en", "fr": str(tmp_path / "text.fr.gz")}


def test_no_sentence_stands_in_two_splits_and_none_twice_in_training(sources):
    made = list(records(sources, num_sentences=2, num_held_out=1, max_words=5))
    by_split = {split: [r.text for r in made if r.split == split] for split in ("train", "validation", "test")}
    texts = [text for split in by_split.values() for text in split]
    assert [len(split) for split in by_split.values()] == [2, 1, 1]
    assert sorted(texts) == ["a boy sits", "hello you", "the three men eat", "two dogs run"]
    translations = [r.translation.text for r in made if r.split != "test_speakers"]
    assert len(set(translations)) == len(translations)


def test_held_out_speakers_say_the_sentences_of_test(sources):
    made = list(records(sources, num_sentences=1, num_held_out=1, max_words=5))
    test, unseen = ([r for r in made if r.split == split] for split in ("test", "test_speakers"))
    assert [r.text for r in test] == [r.text for r in unseen]
    assert {r.speaker for r in unseen} <= {speaker.name for speaker in HELD_OUT_SPEAKERS}
    assert not {r.speaker for r in made if r.split != "test_speakers"} & {s.name for s in HELD_OUT_SPEAKERS}


def test_sides_stay_parallel_and_are_marked_synthetic(sources):
    pairs = {"two dogs run": "deux chiens", "the three men eat": "les trois hommes mangent", "hello you": "bonjour toi"}
    for record in records(sources, num_sentences=4, num_held_out=0, max_words=5):
        assert pairs.get(record.text, "un garcon") == record.translation.text
        assert record.label_source == record.translation.label_source == "synthetic"
        assert record.speaker == record.translation.speaker
        assert 0.2 < load_audio(record.audio).duration_seconds < 5


def test_the_same_call_gives_the_same_records(sources):
    first, second = (list(records(sources, num_sentences=2, num_held_out=1, max_words=5, seed=3)) for _ in range(2))
    assert first == second


def test_one_language_gives_records_without_translation_and_labels_as_written(sources):
    made = list(records({"en": sources["en"]}, num_sentences=1, num_held_out=0, min_words=8, max_words=8, plain=False))
    assert [(r.text, r.translation) for r in made] == [("A girl sings a very long song here.", None)]


def test_a_line_separator_inside_a_line_does_not_shift_the_pairs(tmp_path):
    (tmp_path / "a").write_text("one\u2028two\nthree four\n", encoding="utf-8")
    (tmp_path / "b").write_text("un deux\ntrois quatre\n", encoding="utf-8")
    made = list(records({"en": tmp_path / "a", "fr": tmp_path / "b"}, num_sentences=2, num_held_out=0))
    assert {(r.text, r.translation.text) for r in made} == {("one two", "un deux"), ("three four", "trois quatre")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": {}}, "sources is empty"),
        ({"sources": {"pt": "x"}}, "no voice for 'pt'; it speaks en, fr"),
        ({"sources": {"en": "nowhere.txt"}}, "cannot read nowhere.txt"),
        ({"num_sentences": 50}, "has 5 different sentences of 2 to 20 words, 50 are asked for"),
    ],
)
def test_what_cannot_be_spoken_is_said_in_one_line(sources, change, message):
    options = {"sources": sources, "num_sentences": 2, "num_held_out": 0} | change
    with pytest.raises(DataError, match=message):
        next(records(**options))


def test_files_of_different_length_are_refused(sources, tmp_path):
    (tmp_path / "short.fr").write_text("Un garcon.\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"equally many lines.*text.en 6, .*short.fr 1"):
        next(records({"en": sources["en"], "fr": tmp_path / "short.fr"}))


def test_a_gz_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "broken.gz").write_bytes(b"plain text")
    with pytest.raises(DataError, match=r"cannot read .*broken.gz.*plain or .gz"):
        next(records({"en": tmp_path / "broken.gz"}))
