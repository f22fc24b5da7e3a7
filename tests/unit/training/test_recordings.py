"""Crops of recordings: from everywhere, by position alone."""

import numpy as np
import pytest
import torch

from speechllm.audio import Audio, encode_flac, save_audio
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.errors import AudioError, DataError
from speechllm.training.recordings import Recordings, load_recordings


def counting(start, length):
    return np.arange(start, start + length, dtype=np.int16)


def numbers(samples):
    return (samples * 32_768).round().int().tolist()


def test_every_place_of_every_recording_is_reached_and_none_beyond():
    recordings = Recordings([counting(100, 10), counting(200, 3), counting(300, 20)], 16_000)
    assert recordings.num_positions == 33
    crops = [numbers(recordings.crop(position, 5)) for position in range(33)]
    starts = [crop[0] for crop in crops]
    assert set(starts[:10]) == set(range(100, 106))
    assert crops[10] == crops[12] == [200, 201, 202, 0, 0]
    assert set(starts[13:]) == set(range(300, 316))
    assert all(crop == list(range(crop[0], crop[0] + 5)) for crop in crops[:10] + crops[13:])


def test_held_out_recordings_are_a_function_of_the_seed():
    recordings = Recordings([counting(10 * i, 4) for i in range(1, 21)], 16_000)
    train, held_out = recordings.split(0.1, seed=3)
    firsts = [numbers(part.samples(i))[0] for part in (train, held_out) for i in range(len(part))]
    assert (len(train), len(held_out)) == (18, 2)
    assert sorted(firsts) == [10 * i for i in range(1, 21)]
    assert numbers(recordings.split(0.1, seed=3)[1].samples(0)) == numbers(held_out.samples(0))
    assert len(recordings.split(0.0, seed=0)[1]) == 1


def test_corpora_and_folders_of_any_rate(tmp_path):
    samples = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 1_600) * 32_768) / 32_768
    side = Translation("fr", "deux", encode_flac(Audio(samples[:800], 16_000)))
    records = [Record("r", "train", "en", "one", encode_flac(Audio(samples, 16_000)), translation=side)]
    records.append(Record("t", "test", "en", "one", encode_flac(Audio(samples, 16_000))))
    prepare_corpus(records, tmp_path / "corpus")
    (tmp_path / "files" / "deep").mkdir(parents=True)
    save_audio(Audio(samples, 8_000), tmp_path / "files" / "deep" / "a.WAV")
    save_audio(Audio(samples, 16_000), tmp_path / "files" / "b.flac")
    recordings = load_recordings(corpora=[tmp_path / "corpus"], folders=[tmp_path / "files"], sample_rate=16_000)
    assert len(recordings) == 4
    assert recordings.num_positions == 1_600 + 800 + 1_600 + 3_200
    assert torch.equal(recordings.samples(0), torch.from_numpy(samples).float())
    assert len(recordings.samples(3)) == 3_200


def test_what_gives_no_audio_is_refused(tmp_path):
    with pytest.raises(DataError, match="no audio to train on"):
        Recordings([], 16_000)
    with pytest.raises(DataError, match="holds no audio file"):
        load_recordings(corpora=[], folders=[tmp_path], sample_rate=16_000)
    with pytest.raises(DataError, match="cannot be split"):
        Recordings([counting(0, 5)], 16_000).split(0.5, seed=0)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(AudioError, match=r"broken\.wav is not an audio file"):
        load_recordings(corpora=[], folders=[tmp_path], sample_rate=16_000)
