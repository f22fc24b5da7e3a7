"""Speaker similarity: the cosine between embeddings of generated speech and of the voice that it should have.

    embedder = make_speaker_embedder("auto")
    speaker_similarity(embedder, generated, prompts)             # speaker similarity (GE2E) 0.81
    speaker_similarity(embedder, generated, other_speakers)      # the floor:   0.55
    speaker_similarity(embedder, codec_copies, prompts)          # the ceiling: 0.86

A value means something only between its floor (other speakers) and its ceiling (codec copy), made by
the same embedder; embedders are not interchangeable. Give the part that was generated, without the prompt.

GE2E: Wan et al. 2018 (arXiv:1710.10467), with the weights that the PyPI package `resemblyzer` carries.
"""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.audio import Audio
from speechllm.errors import AudioError, ConfigError, DataError
from speechllm.metrics.bootstrap import DEFAULT_BOOTSTRAP, BootstrapConfig
from speechllm.metrics.mean import mean_score
from speechllm.metrics.score import Score
from speechllm.registry import suggest

SAMPLE_RATE = 16_000
MIN_SECONDS = 0.4
"Shorter sounds have no voice that could be compared."
WINDOW, HOP = 400, 160


@runtime_checkable
class SpeakerEmbedder(Protocol):
    """Turns a voice into a vector of length one."""

    name: str
    "The name of the score, which says what was measured."
    signature: str

    def embed(self, audio: Audio) -> np.ndarray:
        """Return the embedding [D]; an `AudioError` if the audio is too short or silent."""
        ...


def make_speaker_embedder(name: str = "auto") -> SpeakerEmbedder:
    """Return an embedder: "ge2e", "mel-pitch", or "auto" (ge2e if its weights are installed).

    Raises:
        ConfigError: the name is unknown, or ge2e is asked for and the package with its weights is not installed.
    """
    if name == "auto":
        name = "ge2e" if _ge2e_weights() is not None else "mel-pitch"
    if name == "ge2e":
        return GE2EEmbedder()
    if name == "mel-pitch":
        return MelPitchEmbedder()
    known = ["auto", "ge2e", "mel-pitch"]
    raise ConfigError(f"unknown speaker embedder {name!r}{suggest(name, known)} (known: {', '.join(known)})")


def speaker_similarity(
    embedder: SpeakerEmbedder,
    audios: Sequence[Audio | None],
    voices: Sequence[Audio],
    *,
    bootstrap: BootstrapConfig = DEFAULT_BOOTSTRAP,
) -> Score:
    """Return the mean cosine of pairs (audio, voice). Pairs without audio, too short or silent count as failed.

    Raises:
        DataError: there are not as many voices as audios.
    """
    if len(audios) != len(voices):
        raise DataError(f"{len(audios)} audios but {len(voices)} voices; give one voice for each, None for no audio")
    values: list[float | None] = []
    problems = []
    for audio, voice in zip(audios, voices, strict=True):
        try:
            if audio is None:
                raise AudioError("no audio")
            values.append(float(embedder.embed(audio) @ embedder.embed(voice)))
        except AudioError as error:
            values.append(None)
            problems.append(str(error))
    return mean_score(
        values,
        name=embedder.name,
        unit="cosine",
        signature=embedder.signature,
        higher_is_better=True,
        reason=f"first problem: {problems[0]}" if problems else "",
        bootstrap=bootstrap,
    )


class GE2EEmbedder:
    """A three-layer LSTM over 1.6 s windows of 40 mel channels, averaged: Resemblyzer's network and weights.

    Only the weights are taken from that package (read with `weights_only`, so nothing in the file can run). Two
    deviations: the level is always set to -30 dBFS (there it is only raised), so that loudness is not taken for a
    voice, and pauses are cut by energy instead of by a voice activity detector.
    """

    name = "speaker similarity (GE2E)"
    signature = "GE2E|resemblyzer weights|16 kHz|-30 dBFS|pauses cut by energy"
    WINDOW_FRAMES = 160

    def __init__(self) -> None:
        path = _ge2e_weights()
        if path is None:
            raise ConfigError(
                "speaker embedder 'ge2e' needs the weights in the package resemblyzer, which is not installed; "
                "run: pip install --no-deps resemblyzer, or choose 'mel-pitch'"
            )
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self._network = _GE2ENetwork()
        self._network.load_state_dict({k: v for k, v in weights.items() if not k.startswith("similarity")})
        self._network.eval()

    def embed(self, audio: Audio) -> np.ndarray:
        """Return the embedding [256]."""
        samples = _voiced(audio)
        level = 10 * np.log10(float((samples.astype(np.float64) ** 2).mean()))
        samples = samples * 10 ** ((-30 - level) / 20)
        mels = _mel_power(samples, num_channels=40)
        step = round(SAMPLE_RATE / 1.3 / HOP)
        starts = range(0, max(1, len(mels) - self.WINDOW_FRAMES + step), step)
        missing = max(0, starts[-1] + self.WINDOW_FRAMES - len(mels))
        mels = np.pad(mels, ((0, missing), (0, 0)))
        windows = np.stack([mels[start : start + self.WINDOW_FRAMES] for start in starts])
        with torch.inference_mode():
            partial = self._network(torch.from_numpy(windows.astype(np.float32)))
        return _unit(partial.mean(dim=0).numpy())


class _GE2ENetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Float[Tensor, "B T 40"]) -> Float[Tensor, "B 256"]:
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)


class MelPitchEmbedder:
    """Spectral envelope and pitch, no learning: for machines without a speaker model. A proxy, and named as such."""

    name = "mel-pitch similarity"
    signature = "mel-pitch.v1|16 kHz|24 mel, 12 cepstra of the mean spectrum, median pitch"
    CENTRE = np.array([15.1, 4.4, 3.8, 1.3, -0.1, 1.2, -0.9, -0.1, -0.5, -1.2, -0.2, 0.5])
    "Mean cepstra of 22 sentences in six synthetic voices: what all speech has in common tells no voices apart."

    def embed(self, audio: Audio) -> np.ndarray:
        """Return the embedding [13]: cepstra 1 to 12 of the mean log-mel spectrum, and log pitch against 160 Hz."""
        from scipy.fft import dct

        samples = _voiced(audio)
        log_mel = np.log(_mel_power(samples, num_channels=24) + 1e-8).mean(axis=0)
        cepstra = np.asarray(dct(log_mel, norm="ortho"))[1:13]
        # the weight of an octave of pitch against the envelope: same voice .56, other pitch .29, other voice -.12
        return _unit(np.append(cepstra - self.CENTRE, 4 * np.log2(_median_pitch(samples) / 160)))


def _ge2e_weights() -> Path | None:
    # found, not imported: the package itself wants librosa and webrtcvad
    spec = importlib.util.find_spec("resemblyzer")
    places = spec.submodule_search_locations if spec else None
    path = Path(next(iter(places))) / "pretrained.pt" if places else None
    return path if path is not None and path.is_file() else None


def _voiced(audio: Audio) -> np.ndarray:
    """Return the samples [S] at 16 kHz without frames more than 40 dB below the loudest."""
    samples = audio.resampled(SAMPLE_RATE).samples
    frames = samples[: len(samples) // HOP * HOP].reshape(-1, HOP)
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    kept = frames[power > max(float(power.max(initial=0.0)) * 1e-4, 1e-10)].reshape(-1)
    if len(kept) < MIN_SECONDS * SAMPLE_RATE:
        raise AudioError(f"{len(kept) / SAMPLE_RATE:.2f} s of sound, expected at least {MIN_SECONDS} s to hear a voice")
    return kept


def _mel_power(samples: np.ndarray, num_channels: int) -> np.ndarray:
    """Return the mel power spectrogram [T, channels]: 25 ms windows every 10 ms, Slaney's scale and norm."""
    padded = np.pad(samples, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW + 1)[:-1], axis=1)) ** 2
    return power @ _mel_filters(num_channels)


@functools.cache
def _mel_filters(num_channels: int) -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(WINDOW // 2 + 1, num_channels, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney")


def _median_pitch(samples: np.ndarray) -> float:
    """Return the median fundamental frequency in Hz by autocorrelation, 160 if no frame sounds voiced."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 640)[::HOP]
    spectrum = np.fft.rfft(frames - frames.mean(axis=1, keepdims=True), n=2048, axis=1)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :640]
    correlation = correlation / np.maximum(correlation[:, :1], 1e-9) / (1 - np.arange(640) / 640)
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 60)
    best = correlation[:, lags].argmax(axis=1)
    voiced = correlation[np.arange(len(frames)), lags[best]] > 0.5
    return float(np.median(SAMPLE_RATE / lags[best][voiced])) if voiced.any() else 160.0


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
