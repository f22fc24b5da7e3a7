"""Cut long audio in its pauses, so that each piece is an utterance that fits the model; only silence is left out.

    spans = find_utterances(audio, max_seconds=20.0)         # [(start, stop), ...] in samples, in order, none twice
    pieces = split_at_silence(audio, max_seconds=20.0)       # consecutive pieces that cover everything

Audio that fits is one piece. Longer audio is cut in every pause: a model reads utterances best if it was trained on
them, and forgets words of several in a row. A piece begins just before its speech and ends just behind it: of silence
a model makes up words, and a small one that has learnt from trimmed utterances stumbles over a tenth of a second. What
has no pause, or too few, is cut at the quietest moment of the second half of what fits; ties go to the latest. No piece
of longer audio is a splinter: it has a second, or half of what fits.
"""

from collections.abc import Iterator

import numpy as np

from speechllm.audio import Audio, seconds_to_samples
from speechllm.errors import AudioError
from speechllm.pipelines.pauses import WINDOW_SECONDS, PauseFinder, energy_pauses, loudness, step_samples

LEAST_SECONDS = 1.0
"Of a piece."
LEAD_SECONDS, TAIL_SECONDS = 0.03, 0.1
"Of the pauses, kept before speech and behind it, where sounds fade."
LONG_PAUSE_SECONDS = 1.0
"Behind such a pause even a short rest is a piece of its own."


def find_utterances(
    audio: Audio, max_seconds: float, *, find_pauses: PauseFinder = energy_pauses
) -> list[tuple[int, int]]:
    """Return start and stop, in samples, of pieces of at most `max_seconds`; what lies between them is silence.

    Raises:
        AudioError: `max_seconds` is too short to look for a pause in.
    """
    pauses = find_pauses(audio)
    if audio.duration_seconds <= max_seconds:
        return [_without_ends(audio, pauses)]
    found = []
    for start, stop in _between_pauses(audio, pauses, min(LEAST_SECONDS, max_seconds / 2)):
        for piece in split_at_silence(Audio(audio.samples[start:stop], audio.sample_rate), max_seconds):
            found.append((start, start + piece.num_samples))
            start += piece.num_samples
    return found


def _without_ends(audio: Audio, pauses: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the piece between a pause at the beginning and one at the end; all of it if there is nothing else."""
    start, stop = 0, audio.num_samples
    for begin, end in pauses:
        if begin == 0 and end < audio.num_samples:
            start = end - seconds_to_samples(LEAD_SECONDS, audio.sample_rate)
        elif begin > 0 and end == audio.num_samples:
            stop = begin + seconds_to_samples(TAIL_SECONDS, audio.sample_rate)
    return start, stop


def _between_pauses(audio: Audio, pauses: list[tuple[int, int]], least_seconds: float) -> Iterator[tuple[int, int]]:
    """Yield the pieces between pauses; a pause after less than `least_seconds` of a piece does not end it."""
    least, start = seconds_to_samples(least_seconds, audio.sample_rate), 0
    lead, tail, long = (
        seconds_to_samples(s, audio.sample_rate) for s in (LEAD_SECONDS, TAIL_SECONDS, LONG_PAUSE_SECONDS)
    )
    for begin, end in pauses:
        again, is_long = end - lead, end - begin > long
        stop = min(begin + tail, again)
        if begin == 0:
            start = again
        elif end == audio.num_samples:
            yield start, stop
            return
        elif stop - start >= least and (is_long or audio.num_samples - again >= least):
            yield start, stop
            start = again
    yield start, audio.num_samples


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
    step = step_samples(audio)
    pieces, start = [], 0
    while audio.num_samples - start > longest:
        half = start + longest // 2
        heard = loudness(audio, half, min(start + longest, audio.num_samples - least), step)
        # The last of the quietest: np.argmin gives the first, so look from the end.
        quietest = len(heard) - 1 - int(np.argmin(heard[::-1]))
        stop = half + quietest * step
        pieces.append(Audio(audio.samples[start:stop], audio.sample_rate))
        start = stop
    return [*pieces, Audio(audio.samples[start:], audio.sample_rate)]
