"""Utterances cut out of long recordings: a talk, an episode or a book with begin and end times.

    for audio in cut("audio/podcast/P0000/POD0000000025.opus", [(12.4, 15.1), (15.1, 19.0)]): ...

A recording is opened once and only the stretches that are asked for are decoded, so memory does not grow with its
length.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import soundfile

from speechllm.audio import Audio, encode_flac, seconds_to_samples


def cut(path: str | Path, spans: Iterable[tuple[float, float]]) -> Iterator[bytes | Path]:
    """Yield each stretch (begin, end, in seconds) as FLAC bytes, mono.

    A stretch that the recording does not have, as it is missing, broken or shorter, becomes the path of no file that
    says which stretch that is: so `prepare_corpus` leaves the record out, counts and names it. A stretch that goes
    beyond the end is cut there.
    """
    path = Path(path)
    spans = iter(spans)
    try:
        with soundfile.SoundFile(path) as file:
            for begin, end in spans:
                yield _stretch(file, begin, end) or _nowhere(path, begin, end)
    except (soundfile.LibsndfileError, OSError):
        pass
    # All of them where the file cannot be opened.
    for begin, end in spans:
        yield _nowhere(path, begin, end)


def _stretch(file: soundfile.SoundFile, begin_seconds: float, end_seconds: float) -> bytes | None:
    begin, end = (seconds_to_samples(seconds, file.samplerate) for seconds in (begin_seconds, end_seconds))
    try:
        if not 0 <= begin < file.frames:
            return None
        file.seek(begin)
        samples = file.read(max(min(end, file.frames) - begin, 0), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return None
    return encode_flac(Audio(samples.mean(axis=1), file.samplerate)) if len(samples) else None


def _nowhere(path: Path, begin_seconds: float, end_seconds: float) -> Path:
    return path.with_name(f"{path.name}, {begin_seconds:g} to {end_seconds:g} s")
