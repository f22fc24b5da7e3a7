"""The spoken corpus: the same call gives the same bytes, and the splits keep speakers and sentences apart."""

import pytest

from data_prep.pico import HELD_OUT_SPEAKERS, PITCH_RANGE, SPEED_RANGE, records, training_speakers
from data_prep.pico_pool import SpeechRequest, speak_all
from speechllm.audio import load_audio
from speechllm.errors import DataError

SMALL = {"num_sentences": 6, "num_validation": 2, "num_test": 3, "num_speakers": 3}


@pytest.fixture(scope="module")
def corpus():
    return list(records(num_workers=1, **SMALL))


def test_the_result_depends_on_the_arguments_alone(corpus):
    # Pico itself answers differently by what it said before; more workers say other things before.
    assert list(records(num_workers=3, **SMALL)) == corpus
    assert list(records(num_workers=1, seed=1, **SMALL)) != corpus


def test_splits_have_their_sizes_sentences_and_speakers(corpus):
    by_split = {
        name: [r for r in corpus if r.split == name] for name in ("train", "validation", "test", "test_speakers")
    }
    assert [len(part) for part in by_split.values()] == [6, 2, 3, 3]
    assert [r.text for r in by_split["test"]] == [r.text for r in by_split["test_speakers"]]
    known = {r.text for r in by_split["train"]}
    assert not known & {r.text for r in corpus if r.split != "train"}
    training = {speaker.name for speaker in training_speakers(3)}
    assert {r.speaker for r in corpus if r.split != "test_speakers"} <= training
    assert not {r.speaker for r in by_split["test_speakers"]} & training


def test_both_sides_are_spoken_by_the_same_speaker(corpus):
    for record in corpus:
        assert (record.language, record.translation.language) == ("en", "fr")
        assert record.speaker == record.translation.speaker
        assert record.label_source == record.translation.label_source == "synthetic"
        for content in (record.audio, record.translation.audio):
            audio = load_audio(content)
            assert audio.sample_rate == 16_000
            assert 0.4 < audio.duration_seconds < 6
            assert 0.05 < abs(audio.samples).max() < 1
    assert len({record.id for record in corpus}) == len(corpus)


def test_takes_are_different_speakers():
    found = list(records(num_sentences=2, num_validation=0, num_test=0, num_speakers=3, takes=2, num_workers=1))
    assert len(found) == 4
    assert len({(r.text, r.speaker) for r in found}) == 4


def test_more_languages_give_all_pairs():
    found = list(records(("de", "es", "it"), 1, 0, 0, num_speakers=1, num_workers=1))
    assert [(r.language, r.translation.language) for r in found] == [("de", "es"), ("de", "it"), ("es", "it")]
    assert found[0].audio == found[1].audio


def test_held_out_speakers_are_outside_the_training_ranges():
    for speaker in training_speakers(50):
        assert PITCH_RANGE[0] <= speaker.pitch <= PITCH_RANGE[1]
        assert SPEED_RANGE[0] <= speaker.speed <= SPEED_RANGE[1]
    for speaker in HELD_OUT_SPEAKERS:
        assert not PITCH_RANGE[0] <= speaker.pitch <= PITCH_RANGE[1]
        assert not SPEED_RANGE[0] <= speaker.speed <= SPEED_RANGE[1]


def test_answers_come_in_the_order_of_the_requests():
    words = ["one", "two two two", "three three", "four four four four", "five"] * 3
    requests = [SpeechRequest(text, "en-US", 1.0, 1.0) for text in words]
    spoken = list(speak_all(requests, num_workers=2))
    assert spoken[:5] == spoken[5:10] == spoken[10:]
    durations = [load_audio(content).duration_seconds for content in spoken[:5]]
    assert durations[0] < durations[2] < durations[3]


def test_a_consumer_may_stop_early():
    requests = (SpeechRequest(f"number {i}", "en-US", 1.0, 1.0) for i in range(1000))
    answers = speak_all(requests, num_workers=2)
    assert next(answers)[:4] == b"fLaC"
    answers.close()


def test_wrong_options_are_one_clear_error():
    with pytest.raises(DataError, match="two different ones or more"):
        next(records(("en", "English")))
    with pytest.raises(DataError, match="takes is 5, expected 1 to num_speakers = 2"):
        next(records(num_speakers=2, takes=5))
    with pytest.raises(DataError, match="num_speakers is 0"):
        next(records(num_speakers=0))
    with pytest.raises(DataError, match="Pico cannot say 'hello' with voice 'xx-XX'"):
        next(speak_all([SpeechRequest("hello", "xx-XX", 1.0, 1.0)], num_workers=1))
