"""What the acoustic side does with sound that is not a clean sentence: a stated behaviour for each."""

import numpy as np
import pytest

from speechllm.audio import Audio, save_audio
from speechllm.errors import AudioError
from speechllm.generation.acoustic import AcousticDecoding, acoustic_codes
from speechllm.pipelines.system import SpeechSystem
from speechllm.pipelines.voices import convert_voice
from tests.support.tiny import tiny_checkpoint, tiny_speech

SAMPLES_PER_CODE = 1_280


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return SpeechSystem.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("u") / "checkpoint", acoustic=True))


def converted(system, audio, voice=None):
    return convert_voice(system, [audio], voice=voice or tiny_speech(3.0), consent=True)[0]


@pytest.mark.parametrize("seconds", [0.01, 0.08, 1.0])
def test_silence_has_codes_like_any_sound(system, seconds):
    audio = converted(system, Audio(np.zeros(int(16_000 * seconds), np.float32), 16_000))
    assert audio.num_samples == np.ceil(seconds / 0.08) * SAMPLES_PER_CODE


def test_ten_milliseconds_fill_one_code(system):
    assert converted(system, tiny_speech(0.01)).num_samples == SAMPLES_PER_CODE


def test_ten_minutes_are_made_window_by_window(system):
    """And the length is exact: nothing is lost or said twice where windows meet."""
    audio = Audio(np.tile(tiny_speech(10.0).samples, 60), 16_000)
    codes = system.semantic_tokenizer().encode([audio])[0]
    acoustic, _ = system.sound_parts()
    voice = system.voice_prompts(tiny_speech(3.0), 1)
    (made,) = acoustic_codes(acoustic, [codes], [voice], AcousticDecoding(first_iterations=1), seed=0)
    assert len(codes) == 7_500
    assert made.shape == (2, 15_000)


def test_samples_that_are_no_numbers_are_refused(system):
    samples = tiny_speech(1.0).samples.copy()
    samples[100] = np.nan
    with pytest.raises(AudioError, match="NaN"):
        converted(system, {"array": samples, "sampling_rate": 16_000})


def test_sound_beyond_full_scale_is_taken_as_it_is(system):
    loud = converted(system, Audio(tiny_speech(1.0).samples * 20, 16_000))
    assert np.abs(loud.samples).max() <= 1
    assert loud.num_samples == 13 * SAMPLES_PER_CODE


@pytest.mark.parametrize("sample_rate", [8_000, 44_100, 96_000])
def test_any_rate_and_two_channels_are_brought_to_one_form(system, tmp_path, sample_rate):
    import soundfile

    speech = tiny_speech(1.0, sample_rate=sample_rate)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([speech.samples, speech.samples], axis=1), sample_rate)
    stereo, mono = converted(system, path), converted(system, save_audio(speech, tmp_path / "mono.wav"))
    assert stereo.num_samples == mono.num_samples == 13 * SAMPLES_PER_CODE
    assert np.array_equal(stereo.samples, mono.samples)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.9])
def test_a_short_voice_is_repeated_to_three_seconds(system, seconds):
    voice = tiny_speech(seconds, seed=3)
    prompt = system.voice_prompts(voice, 1)
    assert len(prompt.semantic_codes) == 38
    assert prompt.acoustic_codes.shape == (2, 76)
    first = system.semantic_tokenizer().encode([voice])[0]
    whole = min(len(first), int(voice.num_samples // SAMPLES_PER_CODE) or 1)
    assert np.array_equal(prompt.semantic_codes[:whole], first[:whole])
    assert converted(system, tiny_speech(0.5), voice).num_samples == 7 * SAMPLES_PER_CODE


def test_a_voice_without_sound_is_refused(system):
    with pytest.raises(AudioError, match="empty"):
        converted(system, tiny_speech(1.0), Audio(np.zeros(0, np.float32), 16_000))
