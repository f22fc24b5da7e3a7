"""Cut long audio in its pauses, so that each piece is an utterance that fits the model; only silence is left out.

    spans = find_utterances(audio, max_seconds=20.0)         # [(start, stop), ...] in samples, in order, none twice
    pieces = split_at_silence(audio, max_seconds=20.0)       # consecutive pieces that cover everything

Audio that fits stays whole. Longer audio is cut in the middle of every pause: a model reads utterances best if it was
trained on them, and forgets words of several in a row. Of a pause longer than a second only its edges are kept, since
of silence a model would make up words. What has no pause, or too few, is cut at the quietest moment of the second half
of what fits; ties go to the latest. No piece is a splinter: it has a second, or half of what fits.

A pause is found by energy: 0.3 seconds below a level between the recording's own loud and quiet moments.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from speechllm.audio import Audio, seconds_to_samples
from speechllm.errors import AudioError

WINDOW_SECONDS = 0.2
"Loudness is the mean square over this long: shorter than a pause, longer than a stop consonant's gap."
STEP_SECONDS = 0.01
"Cuts fall on this grid."
LEAST_SECONDS = 1.0
"Of a piece."
PAUSE_SECONDS = 0.3
"Shortest pause."
PAUSE_WINDOW_SECONDS = 0.03
"Over which the loudness of pauses is taken."
PAUSE_LEVEL = 0.35
"Where a pause begins on the way from quiet to loud, in decibels."
QUIET_PERCENTILE = 5.0
"Of the loudness. The loudest is its peak over `WINDOW_SECONDS`: speech may be a small part of the whole."
LEAST_RANGE_DB, MOST_RANGE_DB = 20.0, 60.0
"Between loud and quiet: below this there are no pauses; what is quieter counts as this quiet."
EDGE_SECONDS = 0.3
"Of a long pause, kept on either side."
LONG_PAUSE_SECONDS = 1.0


def find_utterances(audio: Audio, max_seconds: float) -> list[tuple[int, int]]:
    """Return start and stop, in samples, of pieces of at most `max_seconds`; what lies between them is silence.

    Raises:
        AudioError: `max_seconds` is too short to look for a pause in.
    """
    if audio.duration_seconds <= max_seconds:
        return [(0, audio.num_samples)]
    found = []
    for start, stop in _between_pauses(audio, min(LEAST_SECONDS, max_seconds / 2)):
        for piece in split_at_silence(Audio(audio.samples[start:stop], audio.sample_rate), max_seconds):
            found.append((start, start + piece.num_samples))
            start += piece.num_samples
    return found


def _between_pauses(audio: Audio, least_seconds: float) -> Iterator[tuple[int, int]]:
    """Yield the pieces between pauses; a pause after less than `least_seconds` of a piece does not end it."""
    least, start = seconds_to_samples(least_seconds, audio.sample_rate), 0
    edge, long = (seconds_to_samples(s, audio.sample_rate) for s in (EDGE_SECONDS, LONG_PAUSE_SECONDS))
    for begin, end in _pauses(audio):
        is_long = end - begin > long
        stop, again = (begin + edge, end - edge) if is_long else ((begin + end) // 2,) * 2
        if begin == 0 and is_long:
            start = again
        elif end == audio.num_samples and is_long:
            yield start, stop
            return
        elif stop - start >= least and (is_long or audio.num_samples - again >= least):
            yield start, stop
            start = again
    yield start, audio.num_samples


def _pauses(audio: Audio) -> list[tuple[int, int]]:
    """Return start and stop of every pause, in samples."""
    step = _step(audio)
    loudness, smooth = (
        10 * np.log10(_loudness(audio, 0, audio.num_samples, step, seconds) + 1e-12)
        for seconds in (PAUSE_WINDOW_SECONDS, WINDOW_SECONDS)
    )
    loud = smooth.max()
    quiet = max(np.percentile(loudness, QUIET_PERCENTILE), loud - MOST_RANGE_DB)
    if loud - quiet < LEAST_RANGE_DB:
        return []
    is_quiet = np.concatenate([[False], loudness < quiet + PAUSE_LEVEL * (loud - quiet), [False]])
    edges = np.flatnonzero(is_quiet[1:] != is_quiet[:-1]).reshape(-1, 2)
    shortest = PAUSE_SECONDS / STEP_SECONDS
    return [
        (int(first) * step, min(int(last) * step, audio.num_samples))
        for first, last in edges
        if last - first >= shortest
    ]


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


def _step(audio: Audio) -> int:
    return max(seconds_to_samples(STEP_SECONDS, audio.sample_rate), 1)


def _loudness(
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
