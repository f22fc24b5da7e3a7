"""A tokenizer for workers in processes of their own: no torch, as slow as wanted, and it says who is at work.

load = functools.partial(LoudTokenizer, folder, 0.01)      # takes a device, as `tokenize_on_ray` wants it
working(folder)                                             # ids of the processes that have loaded one
"""

import os
import time
from pathlib import Path

import numpy as np


class LoudTokenizer:
    """Codes from the loudness of frames of 40 ms."""

    sample_rate, frame_rate, codebook_size, fingerprint = 16_000, 25.0, 16, "loud"

    def __init__(self, folder: Path, pause: float, device: str = "cpu"):
        self.pause = pause
        (folder / str(os.getpid())).touch()

    def encode(self, audios):
        time.sleep(self.pause * len(audios))
        return [self._codes(audio.samples) for audio in audios]

    def _codes(self, samples):
        frames = np.pad(samples, (0, -len(samples) % 640)).reshape(-1, 640)
        return np.floor(np.abs(frames).mean(axis=1) * 1000).astype(np.int64) % self.codebook_size


class DeadlyTokenizer(LoudTokenizer):
    """Takes its process down with it over an utterance of 0.3 seconds, as a crash in native code does."""

    def encode(self, audios):
        if any(audio.num_samples == 4800 for audio in audios):
            os._exit(1)
        return super().encode(audios)


class OtherTokenizer(LoudTokenizer):
    """Has another fingerprint in every process, as if machines had different files."""

    def __init__(self, folder: Path, pause: float, device: str = "cpu"):
        super().__init__(folder, pause, device)
        self.fingerprint = f"of {os.getpid()}"


def working(folder: Path) -> list[int]:
    """Return the ids of the processes that have loaded a tokenizer, but for this one."""
    return [int(path.name) for path in folder.iterdir() if path.name != str(os.getpid())]
