"""How well sound goes through a seam: what a listener would hear as a jump or a click, beside places without a seam.

    jumps(audio, [9.0, 16.8])        # dB between the spectra on both sides of each place
    clicks(audio, [9.0, 16.8])       # dB by which high bands are louder across each place than beside it

Both are made of 16 ms windows and bands of 500 Hz at 16 kHz. Speech jumps by itself, so a value means something only
beside that of another version of the same speech at the same places.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.evidence.acoustic.world import Series
from speechllm.audio import Audio, seconds_to_samples

SAMPLE_RATE = 16_000
WINDOW = 256
BAND = 8
"Bins of a band: 500 Hz."
HIGH = 8
"First band of those above 4 kHz, where speech has little and a click has much."
RANGE_DB = 60.0
"Below the loudest band of the audio; what is quieter counts as silence."


def jumps(audio: Audio, places: Sequence[float]) -> Series:
    """Return for each place (s) the root mean square difference of the bands after and before it, in dB."""
    return [None if sides is None else (_rms(sides[2] - sides[0]), 1.0) for sides in _around(audio, places)]


def clicks(audio: Audio, places: Sequence[float]) -> Series:
    """Return for each place (s) how much louder the high bands are across it than on the louder side, in dB."""
    return [
        None if sides is None else (float((sides[1] - np.maximum(sides[0], sides[2]))[HIGH:].mean()), 1.0)
        for sides in _around(audio, places)
    ]


def _around(audio: Audio, places: Sequence[float]) -> list[np.ndarray | None]:
    """Return bands [3, B] in dB before, across and after each place; None too close to an end."""
    samples = audio.resampled(SAMPLE_RATE).samples
    found: list[np.ndarray | None] = []
    loudest = _bands(np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::WINDOW]).max()
    for place in places:
        centre = seconds_to_samples(place, SAMPLE_RATE)
        if not WINDOW <= centre <= len(samples) - WINDOW:
            found.append(None)
            continue
        windows = [samples[start : start + WINDOW] for start in (centre - WINDOW, centre - WINDOW // 2, centre)]
        found.append(np.maximum(_bands(np.stack(windows)), loudest - RANGE_DB))
    return found


def _bands(windows: np.ndarray) -> np.ndarray:
    """Return the level of each band in dB, [windows, bands]."""
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), axis=1)[:, :-1]) ** 2
    return 10 * np.log10(power.reshape(len(power), -1, BAND).sum(2) + 1e-12)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))
