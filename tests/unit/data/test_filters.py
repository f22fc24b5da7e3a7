"""Filters: each drops what it says, keeps the rest, and says when it cannot judge."""

import numpy as np
import pytest

from speechllm.audio import Audio, encode_flac, save_audio
from speechllm.data.filters import NOT_JUDGED, is_held_out, make_filters
from speechllm.data.records import Record, Translation
from speechllm.errors import ConfigError


def noise(seconds, seed=0):
    return Audio(0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds)), 16_000)


def record(id="a", seconds=1.0, text="bonjour à tous", split="train", **changed):
    audio = None if seconds is None else encode_flac(noise(seconds))
    return Record(
        **{"id": id, "split": split, "language": "fr", "text": text, "audio": audio, "speaker": "anna"} | changed
    )


def reasons(spec, *records, judge_of=None):
    (filter,) = make_filters([spec], judge_of)
    return filter.reasons(records)


def test_duration_looks_at_both_sides():
    long_other = Translation("en", audio=encode_flac(noise(3.0)))
    assert reasons(
        "duration=0.5:2",
        record(seconds=1.0),
        record(seconds=0.2),
        record(seconds=2.5),
        record(seconds=1.0, translation=long_other),
        record(seconds=None),
    ) == [
        None,
        "fr audio lasts 0.2 s, expected 0.5 to 2 s",
        "fr audio lasts 2.5 s, expected 0.5 to 2 s",
        "en audio lasts 3.0 s, expected 0.5 to 2 s",
        None,
    ]


def test_duration_reads_paths_and_leaves_broken_audio_to_prepare(tmp_path):
    path = save_audio(noise(3.0), tmp_path / "a.wav")
    found = reasons("duration=0.5:2", record(audio=path), record(audio=tmp_path / "gone.wav"), record(audio=b"bad"))
    assert found == ["fr audio lasts 3.0 s, expected 0.5 to 2 s", None, None]


def test_pace_is_characters_per_second():
    assert reasons(
        "pace=3:25",
        record(text="0123456789"),
        record(text="0" * 26),
        record(text="01"),
        record(text=""),
        record(text="0" * 99, seconds=None),
    ) == [
        None,
        "fr has 26.0 characters a second, expected 3 to 25",
        "fr has 2.0 characters a second, expected 3 to 25",
        None,
        None,
    ]


class Hears:
    """A recogniser that hears the same in everything, or nothing."""

    def __init__(self, text):
        self.text, self.calls = text, []

    def transcribe(self, audios, language):
        self.calls.append((len(audios), language))
        return [self.text] * len(audios)


def test_cer_compares_what_is_heard_with_the_text_in_one_call_a_language():
    judge = Hears("Bonjour à tous!")
    english = Translation("en", "good morning", encode_flac(noise(1.0)))
    found = reasons(
        "cer=30",
        record(),
        record(text="au revoir à tous"),
        record(translation=english),
        record(text="!?"),
        record(seconds=None),
        judge_of={"fr": judge}.get,
    )
    assert found == [None, "fr CER 44, expected at most 30", NOT_JUDGED, None, None]
    assert judge.calls == [(4, "fr")]


def test_cer_drops_what_has_a_text_and_is_silent():
    assert reasons("cer=30", record(), judge_of={"fr": Hears(None)}.get) == [
        "fr has a text, and nothing could be heard"
    ]


def test_a_reason_of_one_side_goes_before_a_doubt_of_the_other():
    unknown = Translation("umb", "x", encode_flac(noise(1.0)))
    wrong = record(text="this is surely an English sentence", translation=unknown)
    (found,) = reasons("language", wrong)
    assert found.startswith("fr text looks like en")
    (found,) = reasons("cer=30", record(text="au revoir", translation=unknown), judge_of={"fr": Hears("x")}.get)
    assert found.startswith("fr CER")


def test_language_drops_what_is_surely_another_and_keeps_what_is_short():
    other = Translation("en", "das ist ganz bestimmt ein deutscher Satz")
    found = reasons(
        "language=0.5",
        record(text="je voudrais un café, s'il vous plaît"),
        record(text="I would like a coffee, if you please"),
        record(text="ok"),
        record(translation=other),
        record(language="umb"),
    )
    assert found[0] is None
    assert found[1].startswith("fr text looks like en (probability ")
    assert found[2] is None
    assert found[3].startswith("en text looks like de")
    assert found[4] is NOT_JUDGED


def test_duplicates_are_those_of_texts_and_audio(tmp_path):
    (filter,) = make_filters(["duplicates"])
    other = Translation("en", "hello")
    path = tmp_path / "a.flac"
    path.write_bytes(record().audio)
    records = [
        record("a"),
        record("b"),
        record("c", text="au revoir"),
        record("d", seconds=2.0),
        record("e", translation=other),
        record("f", audio=path),
        record("g", audio=tmp_path / "gone"),
        record("h", audio=tmp_path / "gone"),
    ]
    before = "the same texts and audio came before"
    assert filter.reasons(records) == [None, before, None, None, None, before, None, before]


def test_what_is_held_out_stays_there_and_leaves_training():
    records = [
        record("a", speaker="anna"),
        record("b", seconds=2.0, speaker="paul"),
        record("c", seconds=3.0, speaker=""),
        record("d", split="test", speaker="anna"),
        record("e", split="validation-clean", seconds=4.0, speaker="anna"),
    ]
    expected = {
        "duplicates": ["the same texts and audio are held out", None, None, None, None],
        "speakers": ["speaker anna is also in test", None, NOT_JUDGED, None, None],
    }
    for spec, found in expected.items():
        (filter,) = make_filters([spec])
        for each in records:
            filter.survey(each)
        assert filter.reasons(records) == found


def test_which_splits_are_held_out():
    assert [is_held_out(s) for s in ("train", "validated", "other")] == [False] * 3
    assert [is_held_out(s) for s in ("validation", "test-other", "test_speakers", "tst-COMMON", "dev")] == [True] * 5


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["durations=1:2"], "unknown filter 'durations'; did you mean 'duration'"),
        (["duration"], "filter duration=, expected two numbers, lowest:highest"),
        (["duration=2:1"], "filter duration=2:1, expected two numbers"),
        (["duration=1:x"], "filter duration=1:x, expected two numbers"),
        (["cer=30"], "the filter cer needs a recogniser"),
        (["language=often"], "filter language=often, expected a number of 0 or more"),
        (["speakers=all"], "the filter speakers has no value, given: speakers=all"),
        (["pace=1:2", "pace=1:3"], "filter pace is given twice"),
    ],
)
def test_a_wrong_filter_is_one_clear_line(specs, message):
    with pytest.raises(ConfigError, match=message):
        make_filters(specs)
