"""Random crops out of hours of audio: prepared corpora, or folders of audio files.

    recordings = load_recordings(corpora=["runs/corpus"], folders=["~/music"], sample_rate=16_000)
    train, held_out = recordings.split(0.02, seed=0)
    train.crop(position, 16_000)                    # a second, at one of `train.num_positions` places

Corpora are held in memory as 16-bit samples (115 MB an hour at 16 kHz); files are read when a crop needs them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.audio import load_audio, seconds_to_samples
from speechllm.errors import AudioError, DataError
from speechllm.training.codec import training_audio

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
PCM_STEPS = 32_768
"16-bit steps between 0 and 1: what FLAC in a prepared corpus holds comes back to the bit."


class Recordings:
    """Mono recordings at one rate, int16 arrays or paths of files."""

    def __init__(self, sources: Sequence[np.ndarray | Path], sample_rate: int):
        self.sources, self.sample_rate = list(sources), sample_rate
        self._lengths = [_num_samples(source, sample_rate) for source in self.sources]
        self._ends = np.cumsum(self._lengths)
        if not self.sources or self._ends[-1] == 0:
            raise DataError("there is no audio to train on; give prepared corpora or folders with audio files")

    def __len__(self) -> int:
        """Return the number of recordings."""
        return len(self.sources)

    @property
    def num_positions(self) -> int:
        """Places where a crop may be taken: one for each sample, so that long recordings give more crops."""
        return int(self._ends[-1])

    def crop(self, position: int, num_samples: int) -> Float[Tensor, " S"]:
        """Return `num_samples` samples of one recording; silence follows one that is shorter."""
        index = int(np.searchsorted(self._ends, position, side="right"))
        offset = position - (int(self._ends[index]) - self._lengths[index])
        samples = self.samples(index)
        room = max(0, len(samples) - num_samples)
        start = offset * (room + 1) // max(1, self._lengths[index])
        cropped = samples[start : start + num_samples]
        return torch.nn.functional.pad(cropped, (0, num_samples - len(cropped)))

    def samples(self, index: int) -> Float[Tensor, " S"]:
        """Return a whole recording."""
        source = self.sources[index]
        if isinstance(source, Path):
            return torch.from_numpy(load_audio(source, self.sample_rate).samples)
        return torch.from_numpy(source.astype(np.float32) / PCM_STEPS)

    def split(self, share: float, *, seed: int) -> tuple["Recordings", "Recordings"]:
        """Return two sets: most, and a random `share` (at least one) that is held out.

        Raises:
            DataError: one recording cannot be both.
        """
        if len(self) < 2:
            raise DataError(f"{len(self)} recording cannot be split to hold some out; give at least two")
        order = np.random.default_rng(seed).permutation(len(self))
        count = min(len(self) - 1, max(1, round(share * len(self))))
        sets = [[self.sources[i] for i in sorted(part)] for part in (order[count:], order[:count])]
        return Recordings(sets[0], self.sample_rate), Recordings(sets[1], self.sample_rate)


def load_recordings(*, corpora: Sequence[str | Path], folders: Sequence[str | Path], sample_rate: int) -> Recordings:
    """Return the training splits of prepared corpora (both sides) and all audio files below the folders.

    Raises:
        DataError: there is none, or a folder is no prepared corpus.
        AudioError: a file cannot be read.
    """
    sources: list[np.ndarray | Path] = []
    for corpus in corpora:
        for _, _, audio in training_audio(corpus, sample_rate):
            steps = np.round(audio.samples * PCM_STEPS)
            sources.append(steps.clip(-PCM_STEPS, PCM_STEPS - 1).astype(np.int16))
    for folder in folders:
        found = [path for path in sorted(Path(folder).expanduser().rglob("*")) if path.suffix.lower() in SUFFIXES]
        if not found:
            raise DataError(f"{folder} holds no audio file ({', '.join(SUFFIXES)}); give a folder that does")
        sources += found
    return Recordings(sources, sample_rate)


def _num_samples(source: np.ndarray | Path, sample_rate: int) -> int:
    if not isinstance(source, Path):
        return len(source)
    import soundfile

    try:
        return seconds_to_samples(soundfile.info(source).duration, sample_rate)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{source} is not an audio file that can be read: {error.error_string}") from error
