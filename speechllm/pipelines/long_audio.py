"""Cut long audio at its quietest moments, so that each piece fits the model. Pieces cover everything.

    pieces = split_at_silence(audio, max_seconds=20.0)
    np.concatenate([piece.samples for piece in pieces])      # the samples of `audio`, none lost, none twice

A piece ends at the quietest moment of the second half of what fits; ties go to the latest, so that pieces are long.
The last piece is never a splinter, of which a model would only make up words: it has a second, or half of what fits.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from speechllm.audio import Audio, seconds_to_samples
from speechllm.errors import AudioError

WINDOW_SECONDS = 0.2
"Loudness is the mean square over this long: shorter than a pause, longer than a stop consonant's gap."
STEP_SECONDS = 0.01
"Cuts fall on this grid."
LEAST_SECONDS = 1.0
"Of the last piece."
SILENT_SHARE = 1e-5
"A piece whose loudest moment has less than this share of the recording's loudest (50 dB below) holds no speech."


def split_at_silence(audio: Audio, max_seconds: float) -> list[Audio]:
    """Return consecutive pieces of at most `max_seconds`; a single one if all of it fits.

    Raises:
        AudioError: `max_seconds` is too short to look for a pause in.
    """
    if max_seconds < 4 * WINDOW_SECONDS:
        raise AudioError(
            f"pieces of {max_seconds} s are too short to cut at a pause; use {4 * WINDOW_SECONDS} s or more"
        )
    longest = seconds_to_samples(max_seconds, audio.sample_rate)
    least = min(seconds_to_samples(LEAST_SECONDS, audio.sample_rate), longest // 2)
    step = _step(audio)
    pieces, start = [], 0
    while audio.num_samples - start > longest:
        half = start + longest // 2
        loudness = _loudness(audio, half, min(start + longest, audio.num_samples - least), step)
        # The last of the quietest: np.argmin gives the first, so look from the end.
        quietest = len(loudness) - 1 - int(np.argmin(loudness[::-1]))
        stop = half + quietest * step
        pieces.append(Audio(audio.samples[start:stop], audio.sample_rate))
        start = stop
    return [*pieces, Audio(audio.samples[start:], audio.sample_rate)]


def holds_speech(pieces: Sequence[Audio]) -> list[bool]:
    """Say of each piece of one recording whether anything is heard in it; of silence a model would make up words.

    A recording that is silent altogether is left to the model: nothing in it says how loud speech would be.
    """
    peaks = np.array([_loudness(piece, 0, piece.num_samples, _step(piece)).max() for piece in pieces])
    return (peaks >= SILENT_SHARE * peaks.max()).tolist()


def _step(audio: Audio) -> int:
    return max(seconds_to_samples(STEP_SECONDS, audio.sample_rate), 1)


def _loudness(audio: Audio, start: int, stop: int, step: int) -> Float[np.ndarray, " N"]:
    """Return the mean square around start, start + step, ... (up to stop)."""
    window = seconds_to_samples(WINDOW_SECONDS, audio.sample_rate)
    first, last = max(start - window // 2, 0), min(stop + window // 2, audio.num_samples)
    energy = np.concatenate([[0.0], np.cumsum(audio.samples[first:last].astype(np.float64) ** 2)])
    centres = np.arange(start, stop + 1, step)
    left = np.clip(centres - window // 2, first, last) - first
    right = np.clip(centres + window // 2, first, last) - first
    # Sums of zeros come out of cumulated sums with rounding; a floor makes equal silences equal.
    return np.round((energy[right] - energy[left]) / np.maximum(right - left, 1), 12)
