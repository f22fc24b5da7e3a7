"""Stands for a tokenizer whose encoder runs on an accelerator: takes time and no core, and no import of torch.

load = functools.partial(SleepingTokenizer, 0.02)       # takes a device, as `tokenize_on_ray` wants it
"""

import time
from collections.abc import Sequence

import numpy as np

from speechllm.audio import Audio


class SleepingTokenizer:
    """Codes from the loudness of frames of 40 ms, late."""

    sample_rate, frame_rate, codebook_size, fingerprint = 16_000, 25.0, 1024, "sleeping"

    def __init__(self, seconds_per_second: float, device: str = "cpu"):
        self.seconds_per_second = seconds_per_second

    def encode(self, audios: Sequence[Audio]) -> list[np.ndarray]:
        """Return the codes of each audio after as many seconds as an encoder would take."""
        time.sleep(self.seconds_per_second * sum(audio.duration_seconds for audio in audios))
        return [self._codes(audio.samples) for audio in audios]

    def _codes(self, samples: np.ndarray) -> np.ndarray:
        frames = np.pad(samples, (0, -len(samples) % 640)).reshape(-1, 640)
        return np.floor(np.abs(frames).mean(axis=1) * 20_000).astype(np.int64) % self.codebook_size
