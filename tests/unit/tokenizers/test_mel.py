import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.tokenizers.mel import LogMel, LogMelConfig


@pytest.fixture
def noise():
    return torch.randn(3, 4_321, generator=torch.Generator().manual_seed(0)) * 0.1


def test_a_padded_batch_gives_what_each_waveform_gives_alone(noise):
    mel = LogMel(LogMelConfig())
    lengths = [4_321, 3_000, 161]
    padded = noise.clone()
    for row, length in zip(padded, lengths, strict=True):
        row[length:] = 0
    together = mel(padded)
    for i, length in enumerate(lengths):
        alone = mel(noise[i : i + 1, :length])
        torch.testing.assert_close(together[i : i + 1, :, : mel.num_frames(length)], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (160, 1), (161, 2), (16_000, 100)])
def test_the_last_partial_frame_counts(samples, frames):
    mel = LogMel(LogMelConfig())
    assert mel(torch.zeros(2, samples)).shape == (2, 80, frames)
    assert mel.num_frames(samples) == frames


def test_a_tone_is_loudest_in_the_band_that_holds_it():
    mel = LogMel(LogMelConfig(num_mels=40))
    tone = torch.sin(2 * torch.pi * 1_000 * torch.arange(16_000) / 16_000)[None]
    band = int(mel(tone)[0, :, 50].argmax())
    centres = (mel.filters * torch.arange(257)[:, None]).sum(0) * 16_000 / 512
    assert abs(float(centres[band]) - 1_000) < 60


def test_louder_by_ten_is_higher_by_log_ten(noise):
    mel = LogMel(LogMelConfig())
    difference = mel(noise * 10) - mel(noise)
    torch.testing.assert_close(difference, torch.full_like(difference, 2.302585), atol=1e-3, rtol=0)


def test_every_band_hears_something():
    assert bool((LogMel(LogMelConfig()).filters.sum(0) > 0).all())


@pytest.mark.parametrize("wrong", [{"hop_length": 0}, {"max_frequency": 9_000.0}, {"min_frequency": 8_000.0}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        LogMelConfig(**wrong)
