"""Log-mel spectrograms of batches of waveforms: the one front end of every tokenizer here.

    mel = LogMel(LogMelConfig(hop_length=160, num_mels=80))     # 100 frames a second at 16 kHz
    mel(torch.zeros(2, 16_000)).shape                           # (2, 80, 100)

Frame t is centred on samples t * hop .. (t + 1) * hop and what lies outside the waveform counts as
silence, so zero padding on the right never changes an earlier frame: a padded batch gives, cut to
`num_frames`, what each waveform gives alone. Triangular filters on the Slaney mel scale.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.audio import num_frames
from speechllm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LogMelConfig:
    """Shape of the spectrogram."""

    sample_rate: int = 16_000
    "Samples a second, Hz."
    n_fft: int = 512
    "Samples in the (Hann) window and in the Fourier transform."
    hop_length: int = 160
    "Samples between two frames."
    num_mels: int = 80
    "Number of mel bands M."
    min_frequency: float = 0.0
    "Lower edge of the first band, Hz."
    max_frequency: float = 8_000.0
    "Upper edge of the last band, Hz; at most half the sample rate."
    floor: float = 1e-5
    "Mel magnitudes below this count as this, so that silence has a finite logarithm."

    def __post_init__(self) -> None:
        if not 0 < self.hop_length <= self.n_fft:
            raise ConfigError(f"hop_length is {self.hop_length}, expected 1 to n_fft = {self.n_fft}")
        if not 0 <= self.min_frequency < self.max_frequency <= self.sample_rate / 2:
            raise ConfigError(
                f"mel bands reach from {self.min_frequency} to {self.max_frequency} Hz, "
                f"expected rising edges within 0 to {self.sample_rate / 2} Hz"
            )

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop_length


class LogMel(nn.Module):
    """Natural logarithm of mel magnitudes; no learnt weights, differentiable."""

    window: Tensor
    filters: Tensor

    def __init__(self, config: LogMelConfig):
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(config), persistent=False)

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames cover `num_samples` samples."""
        return num_frames(num_samples, self.config.hop_length)

    def forward(self, waveforms: Float[Tensor, "B S"]) -> Float[Tensor, "B M T"]:
        """Return log-mel frames, T = ceil(S / hop_length)."""
        frames = frame_signal(waveforms, self.config.n_fft, self.config.hop_length)
        if frames.shape[1] == 0:
            return waveforms.new_zeros(len(waveforms), self.config.num_mels, 0)
        spectrum = torch.fft.rfft(frames * self.window).abs()
        return (spectrum @ self.filters).clamp_min(self.config.floor).log().transpose(1, 2)


def frame_signal(waveforms: Float[Tensor, "B S"], n_fft: int, hop_length: int) -> Float[Tensor, "B T F"]:
    """Cut waveforms into overlapping frames of F = n_fft samples, with silence outside."""
    S = waveforms.shape[1]
    T = num_frames(S, hop_length)
    if T == 0:
        return waveforms.new_zeros(waveforms.shape[0], 0, n_fft)
    left = (n_fft - hop_length) // 2
    right = n_fft + (T - 1) * hop_length - S - left
    return nn.functional.pad(waveforms, (left, right)).unfold(1, n_fft, hop_length)


def mel_filters(config: LogMelConfig) -> Float[Tensor, "F M"]:
    """Return the weights from F = n_fft / 2 + 1 frequency bins to M bands, each band of unit area."""
    from transformers.audio_utils import mel_filter_bank

    weights = mel_filter_bank(
        num_frequency_bins=config.n_fft // 2 + 1,
        num_mel_filters=config.num_mels,
        min_frequency=config.min_frequency,
        max_frequency=config.max_frequency,
        sampling_rate=config.sample_rate,
        norm=None,
        mel_scale="slaney",
    )
    # Divided by the filter's sum: a band is a weighted mean of magnitudes, in units of the spectrum.
    return torch.from_numpy(weights / weights.sum(axis=0).clip(min=1e-8)).float()
