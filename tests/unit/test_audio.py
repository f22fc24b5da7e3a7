"""Audio: one rounding rule, every form of input to the same waveform, and clear words for what is no audio."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechllm.audio import Audio, encode_flac, load_audio, num_frames, save_audio, seconds_to_samples
from speechllm.errors import AudioError

RATE = 16_000


def tone(num_samples=4_000, sample_rate=RATE, frequency=440.0):
    return Audio(0.5 * np.sin(2 * np.pi * frequency * np.arange(num_samples) / sample_rate), sample_rate)


def encoded(samples, sample_rate=RATE, kind="WAV", subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=kind, subtype=subtype)
    return buffer.getvalue()


# time and samples


@given(samples=st.integers(0, 10**9), rate=st.integers(1_000, 384_000))
def test_samples_to_seconds_and_back_is_exact(samples, rate):
    assert seconds_to_samples(samples / rate, rate) == samples


@given(seconds=st.floats(0, 1e5), rate=st.integers(1_000, 384_000))
def test_rounding_is_to_the_nearest_sample(seconds, rate):
    assert abs(seconds_to_samples(seconds, rate) - seconds * rate) <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("seconds", "rate", "samples"), [(0.5 / 1000, 1000, 1), (1.5 / 1000, 1000, 2), (0.25, 8000, 2000)]
)
def test_halves_go_up(seconds, rate, samples):
    assert seconds_to_samples(seconds, rate) == samples


@given(num_samples=st.integers(0, 10**7), per_frame=st.integers(1, 10**4))
def test_frames_cover_all_samples_and_no_frame_is_empty(num_samples, per_frame):
    frames = num_frames(num_samples, per_frame)
    assert frames * per_frame >= num_samples
    assert (frames - 1) * per_frame < num_samples or frames == 0


# forms of input


def test_all_forms_give_the_same_waveform(tmp_path):
    content = encoded(tone().samples)
    (tmp_path / "a.wav").write_bytes(content)
    expected = load_audio(content).samples
    array = {"array": expected, "sampling_rate": RATE}
    for source in (
        tmp_path / "a.wav",
        str(tmp_path / "a.wav"),
        Audio(expected, RATE),
        array,
        {"raw": expected, "sampling_rate": RATE},
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(tmp_path / "a.wav")},
    ):
        loaded = load_audio(source)
        assert loaded.sample_rate == RATE
        assert np.array_equal(loaded.samples, expected)


def test_int16_arrays_are_scaled_like_files():
    pcm = (tone().samples * 32767).astype(np.int16)
    from_array = load_audio({"array": pcm, "sampling_rate": RATE})
    from_file = load_audio(encoded(pcm))
    assert np.array_equal(from_array.samples, from_file.samples)
    assert np.abs(from_array.samples).max() <= 1


def test_unsigned_arrays_are_silent_half_way_up():
    pcm = np.array([0, 64, 128, 255], dtype=np.uint8)
    loaded = load_audio({"array": pcm, "sampling_rate": RATE})
    assert loaded.samples.tolist() == [-1, -0.5, 0, 127 / 128]
    assert np.array_equal(
        loaded.samples, load_audio(encoded((pcm / 128 - 1).astype(np.float32), subtype="PCM_U8")).samples
    )


@pytest.mark.parametrize("num_channels", [2, 6])
def test_channels_are_averaged(num_channels):
    channels = np.stack([tone(frequency=100.0 * (c + 1)).samples for c in range(num_channels)])
    from_file = load_audio(encoded(channels.T, subtype="FLOAT"))
    from_array = load_audio({"array": channels, "sampling_rate": RATE})
    assert np.allclose(from_file.samples, channels.mean(axis=0), atol=1e-7)  # one float32 rounding
    assert np.allclose(from_array.samples, channels.mean(axis=0), atol=1e-7)


def test_samples_beyond_one_are_clipped():
    loaded = load_audio({"array": np.array([2.0, -3.0, 0.5]), "sampling_rate": RATE})
    assert loaded.samples.tolist() == [1.0, -1.0, 0.5]


def test_resampled_audio_keeps_the_promises_too():
    square = np.sign(np.sin(2 * np.pi * 500 * np.arange(4_800) / 48_000))
    assert np.abs(load_audio({"array": square, "sampling_rate": 48_000}, RATE).samples).max() == 1
    with pytest.raises(AudioError, match="holds no samples"):
        load_audio({"array": np.ones(1), "sampling_rate": 48_000}, RATE)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_formats_of_libsndfile_are_read(kind):
    loaded = load_audio(encoded(tone().samples, kind=kind, subtype=None))
    assert loaded.num_samples == 4_000
    assert np.corrcoef(loaded.samples, tone().samples)[0, 1] > 0.99


# rates


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("num_samples", [1_000, 12_345])
def test_resampling_keeps_the_duration(rate, num_samples):
    resampled = tone(num_samples, rate).resampled(RATE)
    assert resampled.sample_rate == RATE
    assert abs(resampled.num_samples - num_samples * RATE / rate) <= 1


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_resampling_keeps_a_tone(rate):
    resampled = load_audio(encoded(tone(rate, rate).samples, rate), RATE)
    spectrum = np.abs(np.fft.rfft(resampled.samples * np.hanning(resampled.num_samples)))
    assert spectrum.argmax() * RATE / resampled.num_samples == pytest.approx(440, abs=1)
    assert np.abs(resampled.samples[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


def test_the_same_rate_is_the_same_object():
    audio = tone()
    assert audio.resampled(RATE) is audio


def test_cropping_clips_to_what_is_there():
    audio = tone(1_600)
    assert audio.cropped(0.05, 0.08).num_samples == 480
    assert audio.cropped(-1.0, 5.0).num_samples == 1_600
    assert audio.cropped(3.0, 5.0).num_samples == 0


# what is no audio


def refused(source, message):
    with pytest.raises(AudioError, match=message) as error:
        load_audio(source)
    assert "\n" not in str(error.value)


def test_nothing_is_no_audio(tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    refused(b"", "audio of 0 bytes is empty")
    refused(tmp_path / "empty.wav", r"empty\.wav is empty")
    refused(encoded(np.zeros(0, np.float32)), "empty: it holds no samples")
    refused(tmp_path / "nowhere.wav", r"no audio file at .*nowhere\.wav")
    refused(tmp_path, "no audio file at")


def test_text_is_no_audio(tmp_path):
    (tmp_path / "notes.wav").write_text("these are notes, and not a recording of anything\n" * 10)
    refused(tmp_path / "notes.wav", r"notes\.wav is not an audio file")


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_wav_is_refused(share, subtype):
    content = encoded(tone().samples, subtype=subtype)
    refused(content[: int(len(content) * share)], r"is cut short: \d+ bytes that its header promises are not there")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_truncated_flac_is_refused(share):
    content = encode_flac(tone(16_000))
    refused(content[: int(len(content) * share)], "cannot|can be read|cut short")


def test_a_wav_of_unknown_length_from_a_pipe_is_read():
    content = bytearray(encoded(tone().samples))
    where = content.index(b"data") + 4
    content[where : where + 4] = struct.pack("<I", 0xFFFFFFFF)
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    assert load_audio(bytes(content)).num_samples == 4_000


def test_bytes_after_the_data_are_no_harm():
    assert load_audio(encoded(tone().samples) + b"LIST\x04\x00\x00\x00abcd").num_samples == 4_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_and_counted(value):
    samples = tone().samples.copy()
    samples[[5, 9]] = value
    refused(encoded(samples, subtype="FLOAT"), "2 samples that are NaN or infinite")
    refused({"array": samples, "sampling_rate": RATE}, "2 samples that are NaN or infinite")


def test_arrays_need_a_rate_and_a_shape():
    refused(np.zeros(10), "has no sample rate; pass")
    refused({"array": np.zeros((10, 2, 3)), "sampling_rate": RATE}, r"shape \(10, 2, 3\)")
    refused({"array": np.zeros((100, 2)), "sampling_rate": RATE}, "transpose it")
    refused({"samples": np.zeros(3)}, r"keys \['samples'\] is no audio")
    refused({"array": np.zeros(10), "sampling_rate": 10}, "sample rate is 10 Hz")


# writing


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_what_is_saved_comes_back(tmp_path, suffix):
    path = save_audio(tone(), tmp_path / f"a{suffix}")
    loaded = load_audio(path)
    assert loaded.sample_rate == RATE
    assert np.abs(loaded.samples - tone().samples).max() <= 1 / 32768  # one step of 16 bits
    assert np.array_equal(load_audio(save_audio(loaded, tmp_path / f"b{suffix}")).samples, loaded.samples)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_flac_bytes_are_16_bit_and_stable():
    content = encode_flac(load_audio(encode_flac(tone())))
    assert content == encode_flac(tone())
    assert soundfile.info(io.BytesIO(content)).subtype == "PCM_16"


def test_writing_to_an_unknown_format_or_place_is_refused(tmp_path):
    with pytest.raises(AudioError, match="unknown format 'xyz'"):
        save_audio(tone(), tmp_path / "a.xyz")
    with pytest.raises(AudioError, match="cannot write"):
        save_audio(tone(), tmp_path / "no" / "folder" / "a.wav")
    with pytest.raises(AudioError, match="is empty"):
        save_audio(Audio(np.zeros(0), RATE), tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = save_audio(tone(), tmp_path / "a.wav")
    before = path.read_bytes()
    bad = Audio(np.array([np.nan, 0.1]), RATE)
    with pytest.raises(AudioError, match="NaN"):
        save_audio(bad, path)
    assert path.read_bytes() == before


def test_only_mono_stands_in_an_audio():
    with pytest.raises(AudioError, match=r"shape \(2, 10\), expected mono"):
        Audio(np.zeros((2, 10)), RATE)
