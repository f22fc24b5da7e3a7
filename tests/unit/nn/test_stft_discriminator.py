"""Discriminators over spectrograms: shapes, and that they can be taught."""

import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.nn.stft_discriminator import STFTDiscriminator, STFTDiscriminatorConfig
from speechllm.training.codec_losses import discriminator_loss, feature_loss

CONFIG = STFTDiscriminatorConfig(windows=(256, 64), width=4)


@pytest.mark.parametrize("samples", [40, 1_000])
def test_each_window_sees_its_own_spectrogram(samples):
    judged = STFTDiscriminator(CONFIG)(torch.randn(3, samples))
    assert len(judged) == 2
    for part, window in zip(judged, CONFIG.windows, strict=True):
        frames, bins = 1 + samples // (window // 4), window // 2 + 1
        assert part.features[0].shape == (3, 4, frames, bins)
        assert part.scores.shape[:3] == (3, 1, frames)
        assert len(part.features) == 5


@torch.no_grad()
def test_random_weights_hear_a_difference_in_quiet_sound():
    torch.manual_seed(0)
    real, fake = (0.1 * torch.randn(2, 4_000) for _ in range(2))
    discriminator = STFTDiscriminator(CONFIG)
    for one, other in zip(discriminator(real), discriminator(fake), strict=True):
        assert 0.05 < float(one.scores.std()) < 20
        assert float(feature_loss([one], [other])) > 0.5


def test_it_learns_to_tell_tones_from_noise():
    torch.manual_seed(0)
    discriminator = STFTDiscriminator(CONFIG)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)
    real, fake = torch.sin(torch.arange(2_000) * 0.3).repeat(2, 1), 0.7 * torch.randn(2, 2_000)
    losses = []
    for _ in range(25):
        loss = discriminator_loss(discriminator(real), discriminator(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("bad", [{"windows": ()}, {"windows": (8,)}, {"width": 0}])
def test_sizes_that_make_none_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        STFTDiscriminatorConfig(**bad)
