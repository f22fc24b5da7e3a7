"""Stand-in for a semantic tokenizer: codes from loudness, nothing to train or download.

    tokenizer = FakeSemanticTokenizer(codebook_size=16)
    tokenizer.encode([Audio(np.zeros(16_000, np.float32), 16_000)])      # [array([0, 0, ...])], 25 codes

For tests and dry runs of whatever stands behind a tokenizer; it hears nothing but loudness and brightness.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.audio import Audio, num_frames


class FakeSemanticTokenizer:
    """The contract of `SemanticTokenizer` over two hand-made features; ceil(seconds * frame_rate) codes."""

    def __init__(self, codebook_size: int = 16, *, sample_rate: int = 16_000, frame_rate: float = 25.0):
        self.codebook_size, self.sample_rate, self.frame_rate = codebook_size, sample_rate, frame_rate

    @property
    def fingerprint(self) -> str:
        """Hash of the three numbers that make this tokenizer."""
        spec = f"fake {self.codebook_size} {self.sample_rate} {self.frame_rate}"
        return hashlib.sha256(spec.encode()).hexdigest()

    @property
    def centroids(self) -> Float[Tensor, "N D"]:
        """One point per code on a line in the plane of (loudness, brightness)."""
        line = torch.linspace(0, 1, self.codebook_size)
        return torch.stack([line, line], dim=1)

    def encode(self, audios: Sequence[Audio]) -> list[np.ndarray]:
        """Return codes int64 [T]: from the loudness and the zero crossings of each frame."""
        return [self._encode(audio.resampled(self.sample_rate).samples) for audio in audios]

    def _encode(self, samples: np.ndarray) -> np.ndarray:
        hop = round(self.sample_rate / self.frame_rate)
        T = max(1, num_frames(len(samples), hop))
        frames = np.pad(samples, (0, T * hop - len(samples))).reshape(T, hop)
        loudness = np.abs(frames).mean(axis=1)
        crossings = (np.diff(np.signbit(frames), axis=1) != 0).mean(axis=1)
        return (np.floor((loudness + crossings) * 64).astype(np.int64)) % self.codebook_size

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        content = {name: getattr(self, name) for name in ("codebook_size", "sample_rate", "frame_rate")}
        (Path(folder) / "config.json").write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what `save_pretrained` wrote."""
        content = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return cls(content["codebook_size"], sample_rate=content["sample_rate"], frame_rate=content["frame_rate"])
