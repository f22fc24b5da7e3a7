"""From log-mel frames to a waveform by Griffin-Lim: nothing to train, the same result every time.

    vocoder = GriffinLim(LogMelConfig(), GriffinLimConfig(num_iterations=32))
    vocoder(log_mel, seed=0).shape                        # [B, M, T] -> [B, T * hop_length]

Magnitudes are the non-negative spectrum whose mel bands fit best (multiplicative updates, Lee and
Seung 2001); phases come from the fast Griffin-Lim iteration (Perraudin, Balazs, Sondergaard 2013).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from speechllm.errors import ConfigError
from speechllm.tokenizers.mel import LogMelConfig, frame_signal, mel_filters


@dataclass(frozen=True, kw_only=True)
class GriffinLimConfig:
    """Effort of the phase search."""

    num_iterations: int = 32
    "Passes from time to frequency and back."
    momentum: float = 0.99
    "How far each pass overshoots; 0 is the plain algorithm of 1984."
    num_fit_iterations: int = 20
    "Multiplicative updates that turn mel bands into a spectrum."

    def __post_init__(self) -> None:
        if self.num_iterations < 1 or not 0 <= self.momentum < 1:
            raise ConfigError(
                f"num_iterations = {self.num_iterations}, momentum = {self.momentum}; "
                "expected at least 1 and a number in [0, 1)"
            )


class GriffinLim(nn.Module):
    """Log-mel to waveform. Deterministic for a seed; each row is computed from itself alone."""

    window: Tensor
    filters: Tensor

    def __init__(self, mel: LogMelConfig, config: GriffinLimConfig):
        super().__init__()
        self.mel, self.config = mel, config
        self.register_buffer("window", torch.hann_window(mel.n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(mel), persistent=False)

    @torch.no_grad()
    def forward(self, log_mel: Float[Tensor, "B M T"], seed: int = 0) -> Float[Tensor, "B S"]:
        """Return waveforms of S = T * hop_length samples, clipped to [-1, 1]."""
        magnitude = self.magnitudes(log_mel)
        B, F, T = magnitude.shape
        if T == 0:
            return log_mel.new_zeros(B, 0)
        # One draw for all rows: a row sounds the same in whatever batch it stands.
        angle = torch.rand(F, T, generator=torch.Generator().manual_seed(seed)).to(log_mel) * 2 * torch.pi
        phase = torch.polar(torch.ones_like(angle), angle).expand(B, F, T)
        weight = self._window_sum(T)
        previous = torch.zeros_like(phase)
        for _ in range(self.config.num_iterations):
            rebuilt = self._analyse(self._synthesise(magnitude * phase, weight))
            phase = rebuilt + self.config.momentum * (rebuilt - previous)
            phase = phase / phase.abs().clamp_min(1e-9)
            previous = rebuilt
        return self._synthesise(magnitude * phase, weight).clamp(-1, 1)

    def magnitudes(self, log_mel: Float[Tensor, "B M T"]) -> Float[Tensor, "B F T"]:
        """Return non-negative spectra F = n_fft / 2 + 1 whose mel bands are close to exp(log_mel)."""
        target = log_mel.exp().transpose(1, 2)
        spread = self.filters / self.filters.sum(dim=1, keepdim=True).clamp_min(1e-8)
        spectrum = target @ spread.T + 1e-8
        numerator = target @ self.filters.T
        gram = self.filters @ self.filters.T
        for _ in range(self.config.num_fit_iterations):
            spectrum = spectrum * numerator / (spectrum @ gram).clamp_min(1e-9)
        return spectrum.transpose(1, 2)

    def _analyse(self, waveforms: Float[Tensor, "B S"]) -> Complex[Tensor, "B F T"]:
        frames = frame_signal(waveforms, self.mel.n_fft, self.mel.hop_length)
        return torch.fft.rfft(frames * self.window).transpose(1, 2)

    def _synthesise(self, spectrum: Complex[Tensor, "B F T"], weight: Float[Tensor, "1 S"]) -> Float[Tensor, "B S"]:
        """Overlap-add with the squared window divided out: the least-squares inverse of `_analyse`."""
        frames = torch.fft.irfft(spectrum.transpose(1, 2), n=self.mel.n_fft) * self.window
        return self._middle(_overlap_add(frames, self.mel.hop_length), spectrum.shape[2]) / weight

    def _window_sum(self, num_frames: int) -> Float[Tensor, "1 S"]:
        """Return what overlapping squared windows add up to."""
        windows = self.window.square().expand(1, num_frames, self.mel.n_fft)
        return self._middle(_overlap_add(windows, self.mel.hop_length), num_frames).clamp_min(1e-6)

    def _middle(self, waveforms: Float[Tensor, "B _"], num_frames: int) -> Float[Tensor, "B S"]:
        left = (self.mel.n_fft - self.mel.hop_length) // 2
        return waveforms[:, left : left + num_frames * self.mel.hop_length]


def _overlap_add(frames: Float[Tensor, "B T F"], hop: int) -> Float[Tensor, "B S"]:
    B, T, F = frames.shape
    length = (T - 1) * hop + F
    folded = nn.functional.fold(frames.transpose(1, 2), (1, length), (1, F), stride=(1, hop))
    return folded.reshape(B, length)
