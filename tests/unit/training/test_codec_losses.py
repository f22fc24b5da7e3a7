"""Losses of a codec: zero for a perfect copy, the hinge at its corners, gradients everywhere."""

import pytest
import torch

from speechllm.nn.stft_discriminator import Judged
from speechllm.training.codec_losses import (
    WINDOWS,
    MultiScaleMelLoss,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    si_snr,
)
from tests.support.tiny_codecs import tones


def judged(score, feature=1.0):
    return [Judged(torch.full((2, 1, 3, 4), float(score)), [torch.full((2, 5, 3, 4), float(feature))])]


def waveforms():
    return torch.stack([tones(seed, 4_000) for seed in (1, 2)])


@pytest.mark.parametrize("sample_rate", [16_000, 24_000])
def test_the_spectral_loss_is_least_for_a_copy_and_grows_with_noise(sample_rate):
    loss, original = MultiScaleMelLoss(sample_rate), waveforms()
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(0))
    values = [float(loss(original + level * noise, original)) for level in (0.0, 0.001, 0.01, 0.1)]
    assert values[0] == pytest.approx(1e-4, rel=1e-3)  # the root of the epsilon
    assert values == sorted(values)
    assert values[1] > 0.1


def test_seven_windows_and_no_weights():
    loss = MultiScaleMelLoss(16_000)
    assert WINDOWS == (32, 64, 128, 256, 512, 1024, 2048)
    assert [scale.config.n_fft for scale in loss.scales] == list(WINDOWS)
    assert [scale.config.hop_length for scale in loss.scales] == [8, 16, 32, 64, 128, 256, 512]
    assert not list(loss.parameters())
    assert not loss.state_dict()


@pytest.mark.parametrize("made", [torch.zeros(2, 4_000), None], ids=["silence", "copy"])
def test_its_gradient_is_finite_where_spectra_meet(made):
    original = waveforms()
    made = (original.clone() if made is None else made.clone()).requires_grad_()
    MultiScaleMelLoss(16_000)(made, original).backward()
    assert bool(torch.isfinite(made.grad).all())


def test_the_hinge_has_its_corners_at_one():
    assert float(adversarial_loss(judged(1))) == 0
    assert float(adversarial_loss(judged(-1))) == 2
    assert float(discriminator_loss(judged(1), judged(-1))) == 0
    assert float(discriminator_loss(judged(0), judged(0))) == 2
    assert float(discriminator_loss(judged(5), judged(-5))) == 0


def test_features_count_relative_to_the_real_ones():
    assert float(feature_loss(judged(0, 2.0), judged(0, 2.0))) == 0
    assert float(feature_loss(judged(0, 2.0), judged(0, 3.0))) == pytest.approx(0.5)
    assert float(feature_loss(judged(0, 200.0), judged(0, 300.0))) == pytest.approx(0.5)


def test_si_snr_ignores_scale_and_knows_decibels():
    original = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(1))
    made = original + 0.1 * noise
    torch.testing.assert_close(si_snr(made, original), torch.full((2,), 20.0), atol=0.1, rtol=0)
    torch.testing.assert_close(si_snr(3 * made, original), si_snr(made, original))
