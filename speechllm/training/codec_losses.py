"""What a neural codec is trained on: how far it is from the original, and what a discriminator hears.

    mel = MultiScaleMelLoss(16_000)
    mel(reconstructed, original)                                # a scalar
    real, fake = discriminator(original), discriminator(reconstructed)
    adversarial_loss(fake), feature_loss(real, fake)            # for the codec
    discriminator_loss(real, fake)                              # for the discriminator

Spectral loss: SoundStream (arXiv:2107.03312, equations 4 and 5) and AudioGen (arXiv:2209.15352, section 3.1), with
means where they have sums, so that the scales weigh alike. The others: SoundStream, equations 1 to 3; features
relative to the size of the real ones, as EnCodec has it (arXiv:2210.13438, equation 2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.nn.stft_discriminator import Judged
from speechllm.tokenizers.mel import LogMel, LogMelConfig

WINDOWS = tuple(2**exponent for exponent in range(5, 12))


class MultiScaleMelLoss(nn.Module):
    """L1 and L2 distance of log-mel spectrograms, the mean over windows of 2^5 to 2^11 samples; no weights.

    A window of n samples has min(64, n / 8) bands, where AudioGen has 64: more are narrower than a frequency bin.
    """

    def __init__(self, sample_rate: int, windows: Sequence[int] = WINDOWS):
        super().__init__()
        self.scales = nn.ModuleList(
            LogMel(
                LogMelConfig(
                    sample_rate=sample_rate,
                    n_fft=window,
                    hop_length=window // 4,
                    num_mels=min(64, window // 8),
                    max_frequency=sample_rate / 2,
                )
            )
            for window in windows
        )

    def forward(self, made: Float[Tensor, "B S"], original: Float[Tensor, "B S"]) -> Float[Tensor, ""]:
        """Return mean |difference| plus the mean over frames of its root mean square, averaged over the scales."""
        total = made.new_zeros(())
        # The logarithm of quiet bands needs more digits than bfloat16 has.
        with torch.autocast(made.device.type, enabled=False):
            for scale in self.scales:
                difference = scale(made) - scale(original)
                # The square root has no slope at 0, where silence meets silence.
                l2 = (difference.square().mean(dim=1) + 1e-8).sqrt()
                total = total + difference.abs().mean() + l2.mean()
        return total / len(self.scales)


def adversarial_loss(fake: Sequence[Judged]) -> Float[Tensor, ""]:
    """Return the hinge loss of a codec whose output was judged `fake`."""
    return torch.stack([torch.relu(1 - part.scores).mean() for part in fake]).mean()


def discriminator_loss(real: Sequence[Judged], fake: Sequence[Judged]) -> Float[Tensor, ""]:
    """Return the hinge loss of the discriminators."""
    losses = [
        torch.relu(1 - ours.scores).mean() + torch.relu(1 + theirs.scores).mean()
        for ours, theirs in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def feature_loss(real: Sequence[Judged], fake: Sequence[Judged]) -> Float[Tensor, ""]:
    """Return how far the discriminators' features of the output are from those of the original."""
    distances = [
        (theirs - ours.detach()).abs().mean() / ours.detach().abs().mean().clamp_min(1e-8)
        for one, other in zip(real, fake, strict=True)
        for ours, theirs in zip(one.features, other.features, strict=True)
    ]
    return torch.stack(distances).mean()


def si_snr(made: Float[Tensor, "B S"], original: Float[Tensor, "B S"]) -> Float[Tensor, " B"]:
    """Return the scale-invariant signal-to-noise ratio, dB (arXiv:1811.02508, equation 1)."""
    made, original = made - made.mean(1, keepdim=True), original - original.mean(1, keepdim=True)
    scale = (made * original).sum(1, keepdim=True) / original.square().sum(1, keepdim=True).clamp_min(1e-8)
    signal, noise = scale * original, made - scale * original
    return 10 * torch.log10(signal.square().sum(1).clamp_min(1e-8) / noise.square().sum(1).clamp_min(1e-8))
