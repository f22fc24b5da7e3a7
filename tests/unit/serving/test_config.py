"""Settings of a server, and the voices that its operator registers."""

import pytest

from speechllm.audio import save_audio
from speechllm.config import build_config
from speechllm.errors import AudioError, ConfigError, ConsentError, TaskError
from speechllm.serving.config import ServeConfig, load_voices
from tests.support.tiny import tiny_speech


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_batch": 0}, "max_batch is 0"),
        ({"deadline_seconds": 0.0}, "deadline_seconds is 0"),
        ({"port": 70_000}, "port = 70000"),
        ({"max_bach": 3}, "did you mean 'max_batch'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_config(ServeConfig, settings)


def test_an_unknown_language_is_refused_at_the_start():
    with pytest.raises((ConfigError, TaskError), match="klingon"):
        build_config(ServeConfig, {"language": "klingon"})


def written(folder, text):
    save_audio(tiny_speech(3.0), folder / "anna.wav")
    path = folder / "voices.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_voices_are_read_with_who_agreed(tmp_path):
    voices = load_voices(written(tmp_path, "anna: {audio: anna.wav, consent: 'Anna, 2026-03-01'}"))
    assert list(voices) == ["anna"]
    assert voices["anna"].audio.duration_seconds == 3.0
    assert voices["anna"].consent == "Anna, 2026-03-01"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("anna: {audio: anna.wav, consent: ' '}", ConsentError, "who agreed|does not say"),
        ("anna: {audio: anna.wav}", ConfigError, "'consent' is missing"),
        ("anna: {audio: bert.wav, consent: yes he did}", AudioError, "no audio file"),
        ("default: {audio: anna.wav, consent: yes}", ConfigError, "default"),
        ("default: {audio: anna.wav, consent: she did}", ConfigError, "choose another"),
        ("- anna.wav", ConfigError, "no list of voices"),
        ("anna: {audio: [", ConfigError, "cannot read voices"),
    ],
)
def test_a_voice_that_is_not_in_order_stops_the_start(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        load_voices(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot read voices"):
        load_voices(tmp_path / "voices.yaml")
