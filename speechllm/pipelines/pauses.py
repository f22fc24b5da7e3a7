"""Where a recording has pauses: by its energy, or by a small network that tells speech from noise (Silero VAD).

    find = pause_finder("energy")
    find(audio)                        # [(start, stop), ...] in samples, in order

By energy, a pause is 0.3 seconds below a level between the recording's own loud and quiet moments. That needs no
package, and in a quiet room takes no word for a pause; where noise is nearly as loud as speech it finds none. There
`silero` still does (https://github.com/snakers4/silero-vad, MIT; extra `vad`, which brings the weights). It takes music
and rustling for pauses, too.
"""

import importlib
import threading
import warnings
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Float

from speechllm.audio import Audio, seconds_to_samples
from speechllm.errors import ConfigError, MissingDependencyError
from speechllm.registry import suggest

VadName: TypeAlias = Literal["energy", "silero"]
PauseFinder: TypeAlias = Callable[[Audio], list[tuple[int, int]]]
"Start and stop of every pause, in samples: in order, apart from one another, inside the recording."
PAUSE_SECONDS = 0.3
"Shortest pause."
WINDOW_SECONDS = 0.2
"Loudness is the mean square over this long: shorter than a pause, longer than a stop consonant's gap."
STEP_SECONDS = 0.01
"Cuts fall on this grid."
PAUSE_WINDOW_SECONDS = 0.03
"Over which the loudness of pauses is taken."
PAUSE_LEVEL = 0.35
"On the way from quiet to loud, in decibels: a pause is below this for `PAUSE_SECONDS`."
SILENCE_LEVEL = 0.2
"... and what is given of it is between its first and last moment below this: faint consonants are no silence."
LEAST_SILENCE_SECONDS = 0.1
NOISY_RANGE_DB, NOISY_PAD_SECONDS = 40.0, 0.15
"Where quiet is no further below loud, faint consonants may hide in it: so much of a pause is left to either side."
QUIET_PERCENTILE = 5.0
"Of the loudness. The loudest is its peak over `WINDOW_SECONDS`: speech may be a small part of the whole."
LEAST_RANGE_DB, MOST_RANGE_DB = 20.0, 60.0
"Between loud and quiet: below this there are no pauses; what is quieter counts as this quiet."
SILERO_RATE = 16_000
SILERO_PAD_SECONDS = 0.15
"Silero's speech begins late, at the vowel, where noise hides the consonant before it."


def pause_finder(name: str) -> PauseFinder:
    """Return what finds pauses.

    Raises:
        ConfigError: there is no such finder.
        MissingDependencyError: its package is not installed.
    """
    known = get_args(VadName)
    if name not in known:
        raise ConfigError(f"vad is {name!r}{suggest(name, known)}, expected one of {', '.join(known)}")
    return SileroPauses() if name == "silero" else energy_pauses


def energy_pauses(audio: Audio) -> list[tuple[int, int]]:
    """Return the pauses of a recording that is much louder between them."""
    step = step_samples(audio)
    short, smooth = (
        10 * np.log10(loudness(audio, 0, audio.num_samples, step, seconds) + 1e-12)
        for seconds in (PAUSE_WINDOW_SECONDS, WINDOW_SECONDS)
    )
    loud = smooth.max()
    quiet = max(np.percentile(short, QUIET_PERCENTILE), loud - MOST_RANGE_DB)
    if loud - quiet < LEAST_RANGE_DB:
        return []
    is_quiet = np.concatenate([[False], short < quiet + PAUSE_LEVEL * (loud - quiet), [False]])
    edges = np.flatnonzero(is_quiet[1:] != is_quiet[:-1]).reshape(-1, 2)
    pad = round(NOISY_PAD_SECONDS / STEP_SECONDS) if loud - quiet < NOISY_RANGE_DB else 0
    found = []
    for first, last in edges[edges[:, 1] - edges[:, 0] >= PAUSE_SECONDS / STEP_SECONDS]:
        silent = first + np.flatnonzero(short[first:last] < quiet + SILENCE_LEVEL * (loud - quiet))
        if len(silent) == 0:
            continue
        begin = silent[0] + (pad if first > 0 else 0)
        end = silent[-1] + 1 - (pad if last < len(short) else 0)
        if end - begin >= LEAST_SILENCE_SECONDS / STEP_SECONDS:
            found.append((int(begin) * step, min(int(end) * step, audio.num_samples)))
    return found


class SileroPauses:
    """Pauses by Silero VAD; one network, so one recording at a time."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        try:
            self._package: Any = importlib.import_module("silero_vad")
        except ImportError as error:
            raise MissingDependencyError("silero-vad", "vad", "vad='silero'") from error
        finally:
            torch.set_num_threads(threads)  # that import sets them to one, for the whole process
        with warnings.catch_warnings():
            # Its weights come as TorchScript, which torch 2.13 calls old.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._model = self._package.load_silero_vad()
        self._lock = threading.Lock()

    def __call__(self, audio: Audio) -> list[tuple[int, int]]:
        """Return the pauses; none where no speech is found at all."""
        heard = audio.resampled(SILERO_RATE)
        with self._lock:
            speech = self._package.get_speech_timestamps(
                torch.from_numpy(heard.samples), self._model, sampling_rate=SILERO_RATE, speech_pad_ms=0,
                min_silence_duration_ms=round(1000 * PAUSE_SECONDS),
            )  # fmt: skip
        if not speech:
            return []
        scale, pad = audio.sample_rate / SILERO_RATE, seconds_to_samples(SILERO_PAD_SECONDS, audio.sample_rate)
        stops = [0, *(min(round(part["end"] * scale) + pad, audio.num_samples) for part in speech)]
        starts = [*(max(round(part["start"] * scale) - pad, 0) for part in speech), audio.num_samples]
        shortest = seconds_to_samples(PAUSE_SECONDS, audio.sample_rate)
        return [(begin, end) for begin, end in zip(stops, starts, strict=True) if end - begin >= shortest]


def step_samples(audio: Audio) -> int:
    """Return the grid of cuts, in samples."""
    return max(seconds_to_samples(STEP_SECONDS, audio.sample_rate), 1)


def loudness(
    audio: Audio, start: int, stop: int, step: int, window_seconds: float = WINDOW_SECONDS
) -> Float[np.ndarray, " N"]:
    """Return the mean square around start, start + step, ... (up to stop)."""
    window = seconds_to_samples(window_seconds, audio.sample_rate)
    first, last = max(start - window // 2, 0), min(stop + window // 2, audio.num_samples)
    energy = np.concatenate([[0.0], np.cumsum(audio.samples[first:last].astype(np.float64) ** 2)])
    centres = np.arange(start, stop + 1, step)
    left = np.clip(centres - window // 2, first, last) - first
    right = np.clip(centres + window // 2, first, last) - first
    # Sums of zeros come out of cumulated sums with rounding; a floor makes equal silences equal.
    return np.round((energy[right] - energy[left]) / np.maximum(right - left, 1), 12)
