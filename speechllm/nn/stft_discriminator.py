"""Discriminators that look at complex spectrograms in several resolutions.

    discriminator = STFTDiscriminator(STFTDiscriminatorConfig())
    judged = discriminator(waveforms)           # one Judged per window: scores and the features of each layer

EnCodec's MS-STFT discriminator (arXiv:2210.13438, section 3.4, figure 2): real and imaginary parts as two channels,
convolution, three that dilate time by 1, 2, 4 and halve the frequencies, two more; LeakyReLU 0.2, weight norm. Where
the paper has kernels of 8 frequencies these have 9, so that padding is even on both sides.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from speechllm.errors import ConfigError
from speechllm.nn.seanet import SPEECH_LEVEL

SLOPE = 0.2
"Of the LeakyReLU below 0."


@dataclass(frozen=True, kw_only=True)
class STFTDiscriminatorConfig:
    """Sizes; the defaults are EnCodec's."""

    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    "Samples in the window of each discriminator; they hop by a quarter."
    width: int = 32
    "Channels."
    dilations: tuple[int, ...] = (1, 2, 4)
    "In time, of the strided convolutions."

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 16:
            raise ConfigError(f"windows = {self.windows}, expected one or more of at least 16 samples")
        if self.width < 1:
            raise ConfigError(f"width = {self.width}, expected at least 1")


class Judged(NamedTuple):
    """What one discriminator says."""

    scores: Float[Tensor, "B 1 T F"]
    "High where it sounds real."
    features: list[Tensor]
    "The outputs [B, C, T, F] of its hidden layers."


class STFTDiscriminator(nn.Module):
    """One discriminator for each window."""

    def __init__(self, config: STFTDiscriminatorConfig):
        super().__init__()
        self.parts = nn.ModuleList(_WindowDiscriminator(window, config) for window in config.windows)

    def forward(self, waveforms: Float[Tensor, "B S"]) -> list[Judged]:
        """Return each discriminator's view of the waveforms."""
        return [part(waveforms) for part in self.parts]


class _WindowDiscriminator(nn.Module):
    """A stack of convolutions over one spectrogram."""

    window: Tensor

    def __init__(self, window: int, config: STFTDiscriminatorConfig):
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        width = config.width
        layers = [nn.Conv2d(2, width, (3, 9), padding=(1, 4))]
        layers += [
            nn.Conv2d(width, width, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            for dilation in config.dilations
        ]
        layers.append(nn.Conv2d(width, width, (3, 3), padding=(1, 1)))
        self.layers = nn.ModuleList(weight_norm(_drawn(layer)) for layer in layers)
        self.last = weight_norm(_drawn(nn.Conv2d(width, 1, (3, 3), padding=(1, 1))))

    def forward(self, waveforms: Float[Tensor, "B S"]) -> Judged:
        """Return scores and features."""
        size = len(self.window)
        # Silence instead of the default reflection: waveforms may be shorter than half a window.
        spectrum = torch.stft(
            waveforms, size, size // 4, window=self.window, pad_mode="constant", normalized=True, return_complex=True
        )
        x = rearrange(torch.view_as_real(spectrum / SPEECH_LEVEL), "b f t c -> b c t f")
        features = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return Judged(self.last(x), features)


@torch.no_grad()
def _drawn(layer: nn.Conv2d) -> nn.Conv2d:
    """Draw weights that keep the size of what passes, without biases.

    PyTorch's own shrink it layer by layer beside biases that do not shrink: real and made sound would look alike.
    """
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    assert layer.bias is not None
    layer.bias.zero_()
    return layer
