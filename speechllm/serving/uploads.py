"""An uploaded file as pieces of audio that fit the model, with its limits checked before it is decoded.

    upload = read_upload(content, rate=16_000, longest_piece=20.0, max_seconds=600)
    [(piece.start_seconds, piece.stop_seconds) for piece in upload.pieces]       # [(0.0, 18.2), (18.2, 25.3)]

What arrives is bytes and stays bytes: no name, path or address in a request is ever opened. A few kilobytes of FLAC
can hold hours of silence, so the header's length counts before a sample is decoded.
"""

import io
from dataclasses import dataclass

import soundfile

from speechllm.audio import Audio, load_audio
from speechllm.errors import AudioError
from speechllm.pipelines.long_audio import find_utterances
from speechllm.pipelines.pauses import PauseFinder, energy_pauses

MAX_CHANNELS = 8
MOST_SAMPLES_PER_SECOND = 2 * 96_000
"Over all channels: no more is decoded than this times the longest duration."


@dataclass(frozen=True, eq=False)
class Piece:
    """Audio that fits the model, and where it begins in the recording."""

    audio: Audio
    start_seconds: float

    @property
    def stop_seconds(self) -> float:
        """Where it ends in the recording."""
        return self.start_seconds + self.audio.duration_seconds


@dataclass(frozen=True, eq=False)
class Upload:
    """A whole recording."""

    pieces: list[Piece]
    "The utterances of a long recording, in order; the silence between them is left out."
    duration_seconds: float


def read_upload(
    content: bytes,
    *,
    rate: int,
    longest_piece: float,
    max_seconds: float,
    find_pauses: PauseFinder = energy_pauses,
) -> Upload:
    """Decode a file and cut it at pauses.

    Args:
        content: of the file, in any format of libsndfile (wav, flac, ogg, mp3, ...).
        rate: sample rate wanted, Hz.
        longest_piece: in seconds.
        max_seconds: longest recording.
        find_pauses: where it may be cut.

    Raises:
        AudioError: it is not audio, is cut short, empty or too long.
    """
    if not content:
        raise AudioError("the file is empty: it holds no bytes")
    _check_length(content, max_seconds)
    audio = load_audio(content, rate)
    pieces = [
        Piece(Audio(audio.samples[start:stop], rate), start / rate)
        for start, stop in find_utterances(audio, longest_piece, find_pauses=find_pauses)
    ]
    return Upload(pieces, audio.duration_seconds)


def _check_length(content: bytes, max_seconds: float) -> None:
    try:
        info = soundfile.info(io.BytesIO(content))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"the file of {len(content)} bytes is not audio that can be read ({error.error_string.rstrip('.')}); "
            "send wav, flac, ogg or mp3"
        ) from error
    if info.channels > MAX_CHANNELS:
        raise AudioError(f"the audio has {info.channels} channels, expected at most {MAX_CHANNELS}")
    if (
        info.frames / info.samplerate > max_seconds
        or info.frames * info.channels > max_seconds * MOST_SAMPLES_PER_SECOND
    ):
        raise AudioError(
            f"the audio has {info.frames} samples at {info.samplerate} Hz in {info.channels} channels, "
            f"expected at most {max_seconds:g} s; cut it into shorter files"
        )
