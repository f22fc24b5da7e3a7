"""Pieces of long audio: nothing lost, nothing twice, cut where it is quiet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechllm.audio import Audio
from speechllm.errors import AudioError
from speechllm.pipelines.long_audio import split_at_silence
from tests.support.tiny import tiny_speech


@given(
    seconds=st.floats(0.01, 30.0),
    max_seconds=st.floats(0.8, 12.0),
    sample_rate=st.sampled_from([8_000, 11_025]),
    loud=st.booleans(),
)
def test_pieces_cover_everything(seconds: float, max_seconds: float, sample_rate: int, loud: bool):
    audio = tiny_speech(seconds, sample_rate=sample_rate)
    if not loud:
        audio = Audio(np.zeros_like(audio.samples), sample_rate)
    pieces = split_at_silence(audio, max_seconds)
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), audio.samples)
    longest = max_seconds + 1 / sample_rate
    assert all(0 < piece.duration_seconds <= longest for piece in pieces)
    # No splinters at the end, and all but the last are at least half as long as they may be: few seams.
    assert all(piece.duration_seconds >= max_seconds / 2 - 1 / sample_rate for piece in pieces[:-1])
    if len(pieces) > 1:
        assert pieces[-1].duration_seconds >= min(1.0, max_seconds / 2) - 1 / sample_rate


@pytest.mark.parametrize("num_more", [1, 3, 8_000])
def test_a_little_more_than_fits_leaves_no_splinter(num_more: int):
    pieces = split_at_silence(Audio(np.zeros(20 * 16_000 + num_more, np.float32), 16_000), 20.0)
    assert len(pieces) == 2
    assert min(piece.duration_seconds for piece in pieces) >= 1.0


def test_cuts_fall_into_pauses():
    rate = 16_000
    audio = tiny_speech(10.0)
    samples = audio.samples.copy()
    for start in (3.0, 6.5):
        samples[int(start * rate) : int((start + 0.4) * rate)] = 0
    pieces = split_at_silence(Audio(samples, rate), 5.0)
    cuts = np.cumsum([piece.duration_seconds for piece in pieces])[:-1]
    assert len(cuts) == 2
    assert 3.1 <= cuts[0] <= 3.3
    assert 6.6 <= cuts[1] <= 6.8


def test_silence_gives_the_longest_pieces():
    pieces = split_at_silence(Audio(np.zeros(10 * 8_000, np.float32), 8_000), 4.0)
    assert [piece.duration_seconds for piece in pieces] == [4.0, 4.0, 2.0]


def test_short_audio_stays_whole():
    audio = tiny_speech(2.0)
    assert [piece.num_samples for piece in split_at_silence(audio, 2.0)] == [audio.num_samples]


def test_too_short_pieces_are_refused():
    with pytest.raises(AudioError, match=r"pieces of 0\.5 s are too short"):
        split_at_silence(tiny_speech(2.0), 0.5)
