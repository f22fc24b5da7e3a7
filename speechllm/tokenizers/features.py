"""Features that k-means runs on: frames from a log-mel spectrogram or a speech encoder, at the rate of the codes.

    features = LogMelFeatures(LogMelFeaturesConfig(frame_rate=12.5))
    features(load_audio("greeting.flac", 16_000)).shape            # (16, 640): 1.25 s, 8 mel frames in each

kind           class                                        needs
log-mel        LogMelFeatures                               nothing; codes know the speaker better than the words
transformers   pretrained_features.TransformersFeatures     Whisper, HuBERT, wav2vec 2, w2v-BERT, WavLM weights
ctc            ctc_encoder.CTCFeatures                      an encoder trained by `training.ctc`

Audio is encoded one utterance at a time. It is padded with silence to whole frames, so S samples give
ceil(S / samples_per_frame) frames, at least one; longer than `chunk_seconds`, it is cut into chunks that
do not see each other, so memory is bounded.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.audio import Audio, num_frames
from speechllm.config import build_config, config_to_dict
from speechllm.errors import AudioError, CheckpointError, ConfigError
from speechllm.registry import Registry
from speechllm.tokenizers.mel import LogMel, LogMelConfig

FEATURES_FILE = "features.json"


@runtime_checkable
class FeatureExtractor(Protocol):
    """Audio in, frames out. Deterministic, and a function of the samples of one utterance alone."""

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio it takes."""
        ...

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 over config and weights."""
        ...

    def __call__(self, audio: Audio) -> Float[Tensor, "T D"]:
        """Return frames on the CPU, T = ceil(S / samples per frame), at least one."""
        ...

    def to(self, device: str | torch.device) -> Self:
        """Move the weights to a device."""
        ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and weights."""
        ...


feature_kinds = Registry[Any](
    "features",
    {
        "log-mel": "speechllm.tokenizers.features:LogMelFeatures",
        "transformers": "speechllm.tokenizers.pretrained_features:TransformersFeatures",
        "ctc": "speechllm.tokenizers.ctc_encoder:CTCFeatures",
    },
)
"Feature classes by the `kind` in features.json; each has `from_pretrained(folder)`."


def load_features(folder: str | Path) -> FeatureExtractor:
    """Load any features by the kind that `folder`/features.json names."""
    return feature_kinds[read_features_spec(folder)["kind"]].from_pretrained(folder)


def read_features_spec(folder: str | Path) -> dict[str, Any]:
    """Return features.json: `kind` and `config`."""
    path = Path(folder) / FEATURES_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); expected a folder by save_pretrained") from error


def write_features_spec(folder: str | Path, kind: str, config: Any) -> None:
    """Write features.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{FEATURES_FILE}.partial"
    partial.write_text(json.dumps({"kind": kind, "config": config_to_dict(config)}, indent=2), encoding="utf-8")
    partial.replace(folder / FEATURES_FILE)


def hash_features(kind: str, config: Any, tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over kind, config and weights, whatever device they are on."""
    digest = hashlib.sha256(json.dumps([kind, config_to_dict(config)], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def samples_per_frame(sample_rate: int, frame_rate: float) -> int:
    """Return the whole number of samples under one frame.

    Raises:
        ConfigError: the rates do not divide.
    """
    hop = round(sample_rate / frame_rate)
    if hop < 1 or not math.isclose(hop * frame_rate, sample_rate):
        raise ConfigError(f"frame_rate = {frame_rate} Hz does not divide {sample_rate} Hz; use 12.5, 25 or 50")
    return hop


def encode_in_chunks(
    audio: Audio,
    sample_rate: int,
    hop: int,
    chunk_seconds: float,
    encode: Callable[[Float[Tensor, " S"]], Float[Tensor, "T D"]],
) -> Float[Tensor, "T2 D"]:
    """Encode whole frames of `hop` samples, chunk by chunk; `encode` must return one row per frame.

    Raises:
        AudioError: there are no samples, or they are not at `sample_rate`.
    """
    if audio.sample_rate != sample_rate:
        raise AudioError(f"audio is at {audio.sample_rate} Hz, expected {sample_rate} Hz; use audio.resampled()")
    if audio.num_samples == 0:
        raise AudioError("audio is empty: it holds no samples to make codes of")
    T = num_frames(audio.num_samples, hop)
    samples = nn.functional.pad(torch.from_numpy(audio.samples), (0, T * hop - audio.num_samples))
    frames_in_chunk = max(1, int(chunk_seconds * audio.sample_rate / hop))
    rows: list[Tensor] = []
    with torch.inference_mode():
        for chunk in samples.split(frames_in_chunk * hop):
            frames = encode(chunk)
            assert len(frames) == len(chunk) // hop, f"{len(frames)} rows for {len(chunk) // hop} frames"
            rows.append(frames.float().cpu())
    return torch.cat(rows).clone()


@dataclass(frozen=True, kw_only=True)
class LogMelFeaturesConfig:
    """Stacked log-mel frames."""

    frame_rate: float = 25.0
    "Frames per second; a frame holds the 100 / frame_rate spectra under it."
    num_mels: int = 80
    "Mel bands."
    chunk_seconds: float = 30.0
    "Longest stretch that is encoded at once."


class LogMelFeatures:
    """Log-mel frames of 10 ms, those under one frame side by side, the loudest of the chunk at 0."""

    def __init__(self, config: LogMelFeaturesConfig):
        self.config = config
        self._mel = LogMel(LogMelConfig(num_mels=config.num_mels))
        self._hop = samples_per_frame(self.sample_rate, self.frame_rate)
        if self._hop % self._mel.config.hop_length:
            raise ConfigError(f"frame_rate = {config.frame_rate} Hz is no whole part of 100 Hz; use 12.5 or 25")

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio it takes."""
        return self._mel.config.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    @property
    def fingerprint(self) -> str:
        """sha256 over the config."""
        return hash_features("log-mel", self.config, {})

    def __call__(self, audio: Audio) -> Float[Tensor, "T D"]:
        """Return frames, D = num_mels * 100 / frame_rate."""
        return encode_in_chunks(audio, self.sample_rate, self._hop, self.config.chunk_seconds, self._encode)

    def _encode(self, samples: Float[Tensor, " S"]) -> Float[Tensor, "T D"]:
        mel = self._mel(samples[None])[0].T
        frames = mel.reshape(-1, mel.shape[1] * self._hop // self._mel.config.hop_length)
        return frames - frames.max()

    def to(self, device: str | torch.device) -> Self:
        """Stay where it is: there is nothing worth moving."""
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write features.json."""
        write_features_spec(folder, "log-mel", self.config)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what `save_pretrained` wrote."""
        return cls(build_config(LogMelFeaturesConfig, read_features_spec(folder)["config"], where=str(folder)))
