"""Pieces of long audio: nothing lost, nothing twice, cut where it is quiet."""

import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_prep.pico_worker import VOLUME, trim
from speechllm.audio import Audio
from speechllm.errors import AudioError, ConfigError, MissingDependencyError
from speechllm.pipelines.long_audio import LEAD_SECONDS, TAIL_SECONDS, find_utterances, split_at_silence
from speechllm.pipelines.pauses import pause_finder
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


def utterances(rng: np.random.Generator, pauses: list[float], noise: float = 0.0, rate: int = 16_000):
    """Return a recording with a pause before each utterance, and where these lie, in samples."""
    parts, places, position = [], [], 0
    for number, seconds in enumerate(pauses):
        speech = tiny_speech(rng.uniform(1.2, 4.0), seed=number).samples
        pause = np.zeros(round(seconds * rate), np.float32)
        places.append((position + len(pause), position + len(pause) + len(speech)))
        parts += [pause, speech]
        position += len(pause) + len(speech)
    samples = np.concatenate(parts)
    return Audio((samples + noise * rng.standard_normal(len(samples))).astype(np.float32), rate), places


@given(
    pauses=st.lists(st.floats(0.4, 4.0), min_size=6, max_size=10), noise=st.sampled_from([0.0, 1e-4, 1e-3]),
    seed=st.integers(0, 3),
)  # fmt: skip
def test_every_utterance_is_a_piece_of_its_own_and_whole(pauses: list[float], noise: float, seed: int):
    audio, places = utterances(np.random.default_rng(seed), pauses, noise)
    found = find_utterances(audio, 6.0)
    assert len(found) == len(places)
    for (start, stop), (first, last) in zip(found, places, strict=True):
        assert start <= first
        assert stop >= last
        assert stop - start <= 6.0 * 16_000
        assert (stop - start) - (last - first) <= 1.6 * 16_000, "little silence is left around it"
    assert all(stop <= again for (_, stop), (again, _) in itertools.pairwise(found))


@given(seconds=st.floats(0.01, 40.0), max_seconds=st.floats(0.8, 12.0))
def test_without_pauses_nothing_is_left_out(seconds: float, max_seconds: float):
    audio = tiny_speech(seconds, sample_rate=8_000)
    found = find_utterances(audio, max_seconds)
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == audio.num_samples
    assert all(0 < stop - start <= max_seconds * 8_000 + 1 for start, stop in found)


def test_silence_alone_is_left_to_the_model():
    assert find_utterances(Audio(np.zeros(80_000, np.float32), 8_000), 4.0)[-1][1] == 80_000


@given(
    before=st.floats(0.5, 3.0), behind=st.floats(0.5, 3.0), noise=st.sampled_from([0.0, 1e-4]), seed=st.integers(0, 9)
)
def test_of_audio_that_fits_only_silence_around_it_is_left_out(before: float, behind: float, noise: float, seed: int):
    audio, ((first, last), _) = utterances(np.random.default_rng(seed), [before, behind], noise)
    audio = Audio(audio.samples[: last + round(behind * 16_000)], 16_000)
    ((start, stop),) = find_utterances(audio, 20.0)
    assert 0 <= first - start <= 0.25 * 16_000
    assert 0 <= stop - last <= 0.6 * 16_000


@given(seconds=st.floats(0.001, 6.0), level=st.sampled_from([0.0, 1e-6, 0.1]))
def test_silence_or_noise_that_fits_stays_whole(seconds: float, level: float):
    samples = level * np.random.default_rng(0).standard_normal(max(1, round(seconds * 16_000)))
    assert find_utterances(Audio(samples.astype(np.float32), 16_000), 6.0) == [(0, len(samples))]


def test_speech_at_the_edges_of_long_silence():
    """A minute of nothing between two words costs no pieces of nothing."""
    speech, nothing = tiny_speech(2.0).samples, np.zeros(60 * 16_000, np.float32)
    (first, second) = find_utterances(Audio(np.concatenate([nothing, speech, nothing, speech]), 16_000), 20.0)
    assert first[1] - first[0] <= 2.8 * 16_000
    assert second[1] - second[0] <= 2.8 * 16_000


@given(data=st.data(), seconds=st.floats(4.0, 30.0), max_seconds=st.floats(0.8, 12.0))
def test_nothing_is_lost_but_the_inside_of_pauses(data: st.DataObject, seconds: float, max_seconds: float):
    """Whatever finds the pauses: pieces are in order and fit, and what lies between them is a pause but its edges."""
    audio = tiny_speech(seconds, sample_rate=8_000)
    points = data.draw(st.lists(st.integers(0, audio.num_samples), max_size=12, unique=True).map(sorted))
    pauses = [(a, b) for a, b in zip(points[::2], points[1::2], strict=False) if b - a >= 0.3 * 8_000]
    found = find_utterances(audio, max_seconds, find_pauses=lambda given: pauses)
    gaps = itertools.pairwise([0, *(place for span in found for place in span), audio.num_samples])
    lead, tail = round(LEAD_SECONDS * 8_000), round(TAIL_SECONDS * 8_000)
    for begin, end in list(gaps)[::2]:
        assert begin <= end
        inside = [(a + tail * (a > 0), b - lead * (b < audio.num_samples)) for a, b in pauses]
        assert begin == end or (begin, end) in inside
    assert all(0 < stop - start <= max_seconds * 8_000 + 1 for start, stop in found)


def sentences(pauses: tuple[float, float]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return real vowels, consonants and stops, from SVOX Pico, and where the sentences lie, in samples."""
    engine = pytest.importorskip("py_nanotts").NanoTTS()
    rng = np.random.default_rng(0)
    parts, places, position = [], [], 0
    texts = (
        "Press one to send this message.", "The train to Paris leaves at half past eight.", "Stop that ticket.",
        "Would you put the black cat back?", "It is ten past two.", "Turn off the kitchen light please.",
    )  # fmt: skip
    for text in texts:
        pcm = engine.speak(text, voice="en-US", volume=VOLUME)
        speech = trim(np.frombuffer(pcm, "<i2").astype(np.float32) / 32_768)
        pause = np.zeros(round(rng.uniform(*pauses) * 16_000), np.float32)
        parts += [speech, pause]
        places.append((position, position + len(speech)))
        position += len(speech) + len(pause)
    return np.concatenate(parts), places


def noisy(samples: np.ndarray, places: list[tuple[int, int]], decibels: float) -> Audio:
    """Return the recording with white noise, so many decibels below the speech."""
    power = np.mean(np.concatenate([samples[start:stop] for start, stop in places]) ** 2)
    noise = np.random.default_rng(1).standard_normal(len(samples)) * np.sqrt(power) * 10 ** (-decibels / 20)
    return Audio((samples + noise).astype(np.float32), 16_000)


def test_synthetic_voices_are_cut_between_their_sentences():
    """No cut falls into a sentence."""
    samples, places = sentences((0.35, 1.5))
    found = find_utterances(noisy(samples, places, 45.0), 6.0)
    for first, last in places:
        assert any(start <= first + 1_600 and stop >= last - 1_600 for start, stop in found), (first, last, found)


def whole(found: list[tuple[int, int]], places: list[tuple[int, int]]) -> list[bool]:
    """Return of each sentence whether it is all in a piece, and no other is."""
    alone = []
    for first, last in places:
        pieces = [(start, stop) for start, stop in found if start <= first + 1_600 and stop >= last - 1_600]
        others = [p for p in places if pieces and p != (first, last) and p[0] < pieces[0][1] and p[1] > pieces[0][0]]
        alone.append(bool(pieces) and not others)
    return alone


@pytest.mark.parametrize("decibels", [45.0, 20.0])
def test_no_consonant_is_taken_for_a_pause(decibels: float):
    samples, places = sentences((0.5, 1.5))
    assert all(whole(find_utterances(noisy(samples, places, decibels), 6.0), places))


@pytest.mark.parametrize("decibels", [45.0, 5.0])
def test_silero_finds_pauses_in_noise_where_energy_does_not(decibels: float):
    pytest.importorskip("silero_vad")
    samples, places = sentences((0.8, 1.5))
    audio = noisy(samples, places, decibels)
    silero = pause_finder("silero")
    assert all(whole(find_utterances(audio, 6.0, find_pauses=silero), places))
    assert all(whole(find_utterances(audio, 6.0), places)) is (decibels > 20)
    pauses = silero(audio)
    assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(pauses))
    again = silero(audio.resampled(32_000))
    assert np.allclose(np.array(again) / 2, pauses, atol=0.1 * 16_000), "places are in the audio's own samples"


def test_silero_leaves_what_is_no_speech_to_the_model_and_threads_alone(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("silero_vad")
    threads = torch.get_num_threads()
    monkeypatch.delitem(sys.modules, "silero_vad", raising=False)
    monkeypatch.delitem(sys.modules, "silero_vad.model", raising=False)
    torch.set_num_threads(threads + 1)
    try:
        silero = pause_finder("silero")
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert silero(Audio(np.zeros(80_000, np.float32), 16_000)) == []


def test_finders_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="vad is 'webrtc', expected one of energy, silero"):
        pause_finder("webrtc")
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'speechllm\[vad\]'"):
        pause_finder("silero")
