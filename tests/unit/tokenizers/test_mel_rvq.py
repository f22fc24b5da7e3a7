import pytest
import torch

from speechllm.errors import AudioError, CheckpointError, DataError, RegistryError, VocabularyError
from speechllm.nn.rvq import nearest
from speechllm.tokenizers.codec import Codec, bitrate_kbps, load_codec
from speechllm.tokenizers.kmeans import KMeansConfig
from speechllm.tokenizers.mel import LogMelConfig
from speechllm.tokenizers.mel_rvq import MelRVQConfig, fit_mel_rvq
from speechllm.tokenizers.vocoder import GriffinLimConfig

CONFIG = MelRVQConfig(
    mel=LogMelConfig(num_mels=20),
    num_codebooks=3,
    codebook_size=16,
    vocoder=GriffinLimConfig(num_iterations=4),
    kmeans=KMeansConfig(passes=2),
)


def tones(seed, seconds=1.5):
    """Return a chain of tones whose pitch and loudness change ten times a second."""
    generator = torch.Generator().manual_seed(seed)
    steps = int(seconds * 10)
    pitch = torch.rand(steps, generator=generator) * 900 + 100
    loudness = torch.rand(steps, generator=generator) * 0.4
    phase = (pitch.repeat_interleave(1_600) / 16_000).cumsum(0)
    return torch.sin(2 * torch.pi * phase) * loudness.repeat_interleave(1_600)


@pytest.fixture(scope="module")
def codec():
    return fit_mel_rvq([tones(seed) for seed in range(20)], CONFIG, seed=0)


def test_it_keeps_the_contract(codec):
    assert isinstance(codec, Codec)
    assert (codec.sample_rate, codec.frame_rate, codec.num_codebooks, codec.codebook_size) == (16_000, 25.0, 3, 16)
    assert codec.bitrate_kbps == pytest.approx(25 * 3 * 4 / 1_000)
    assert codec.codebook_vectors().shape == (3, 16, 80)


def test_bitrate_formula():
    assert bitrate_kbps(50.0, 12, 1024) == pytest.approx(6.0)  # SoundStream in arXiv:2305.09636, section 4.1


def test_a_batch_is_encoded_like_each_waveform_alone(codec):
    waveforms = [tones(50 + i, seconds) for i, seconds in enumerate((1.5, 1.0, 0.3, 0.1))]
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    together = codec.encode(padded)
    for row, waveform in zip(together, waveforms, strict=True):
        alone = codec.encode(waveform[None])[0]
        assert torch.equal(row[:, : alone.shape[1]], alone)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (640, 1), (641, 2), (16_000, 25)])
def test_the_last_partial_frame_counts(codec, samples, frames):
    codes = codec.encode(torch.full((2, samples), 0.1))
    assert codes.shape == (2, 3, frames)
    assert codec.decode(codes).shape == (2, frames * 640)


def test_more_levels_come_closer(codec):
    waveform = tones(99, 1.6)[None]
    codes, truth = codec.encode(waveform), codec.mel(waveform.double())
    errors = [float((codec.decode_mel(codes[:, :k]) - truth).square().mean()) for k in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


def test_codes_are_a_fixed_point_of_their_vectors(codec):
    codes = codec.encode(tones(7)[None])
    level = codec.codebook_vectors()[0]
    assert torch.equal(nearest(level[codes[0, 0]], level), codes[0, 0])


def test_the_waveform_has_the_pitch_of_the_original(codec):
    tone = 0.3 * torch.sin(2 * torch.pi * 500 * torch.arange(16_000) / 16_000)
    copy = codec.decode(codec.encode(tone[None]))[0]
    spectrum = torch.fft.rfft(copy[4_000:12_000]).abs()
    assert abs(int(spectrum.argmax()) * 2 - 500) < 60
    assert float(copy.abs().max()) <= 1


def test_the_same_seed_gives_the_same_codec():
    fits = [fit_mel_rvq([tones(seed) for seed in range(5)], CONFIG, seed=seed) for seed in (0, 0, 1)]
    assert fits[0].fingerprint == fits[1].fingerprint != fits[2].fingerprint


def test_codes_are_bit_equal_after_reload(codec, tmp_path):
    codec.save_pretrained(tmp_path / "codec")
    again = load_codec(tmp_path / "codec")
    waveform = tones(3)[None]
    assert again.fingerprint == codec.fingerprint
    assert torch.equal(again.encode(waveform), codec.encode(waveform))
    assert torch.equal(again.decode(codec.encode(waveform)), codec.decode(codec.encode(waveform)))


def test_the_float64_spectrogram_stays_on_the_cpu():
    """Where there is no float64, moving it would fail."""
    codec = fit_mel_rvq([tones(seed) for seed in range(5)], CONFIG, seed=0).to("meta")
    assert (codec.codebooks.device.type, codec.mel.filters.device.type) == ("meta", "cpu")
    assert codec.encode(tones(0)[None]).device.type == "meta"


def test_unusable_input_is_refused(codec):
    with pytest.raises(AudioError, match="empty"):
        codec.encode(torch.zeros(1, 0))
    with pytest.raises(AudioError, match="NaN"):
        codec.encode(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(VocabularyError, match=r"expected 0\.\.15"):
        codec.decode(torch.full((1, 3, 2), 16))
    with pytest.raises(VocabularyError, match="4 levels"):
        codec.decode(torch.zeros(1, 4, 2, dtype=torch.long))
    with pytest.raises(DataError, match="cannot fill"):
        fit_mel_rvq([tones(0, 0.2)], CONFIG, seed=0)


def test_folders_that_hold_no_codec_are_refused(codec, tmp_path):
    with pytest.raises(CheckpointError, match="does not name a codec"):
        load_codec(tmp_path)
    codec.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("mel-rvq", "mel-rqv"))
    with pytest.raises(RegistryError, match="did you mean 'mel-rvq'"):
        load_codec(tmp_path)
