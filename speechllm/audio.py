"""Audio in and out: load, resample, save, and the one rounding rule between seconds and samples.

    audio = load_audio("greeting.flac", sample_rate=16_000)     # float32 mono in [-1, 1]
    audio.duration_seconds, audio.samples.shape                 # 1.25, (20000,)

Files are read by libsndfile (wav, flac, ogg, mp3, ...), rates are changed by soxr.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np

from speechllm.errors import AudioError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 384_000


@dataclass(frozen=True, eq=False)
class Audio:
    """A mono waveform, `samples` float32 [S] in [-1, 1], with its sample rate in Hz."""

    samples: np.ndarray
    sample_rate: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.ndim != 1:
            raise AudioError(f"samples have shape {samples.shape}, expected mono [S]; use load_audio to mix down")
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise AudioError(f"sample rate is {self.sample_rate} Hz, expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}")
        object.__setattr__(self, "samples", np.ascontiguousarray(samples, dtype=np.float32))

    @property
    def num_samples(self) -> int:
        """Number of samples S."""
        return len(self.samples)

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sample_rate

    def resampled(self, sample_rate: int) -> Self:
        """Return this audio at another rate (soxr, high quality); the same object if it already fits."""
        if sample_rate == self.sample_rate:
            return self
        import soxr

        return type(self)(soxr.resample(self.samples, self.sample_rate, sample_rate), sample_rate)

    def cropped(self, start_seconds: float, stop_seconds: float) -> Self:
        """Return the part from start to stop (clipped to what is there)."""
        start, stop = (seconds_to_samples(s, self.sample_rate) for s in (start_seconds, stop_seconds))
        return type(self)(self.samples[max(start, 0) : max(stop, 0)], self.sample_rate)


AudioSource: TypeAlias = str | Path | bytes | np.ndarray | Mapping[str, Any] | Audio
"A path, the bytes of a file, an array [S] or [C, S], a dict of array and sampling_rate, or `Audio`."


def seconds_to_samples(seconds: float, sample_rate: int) -> int:
    """Return the nearest whole number of samples, halves up: the only rounding of time in the library."""
    return int(np.floor(seconds * sample_rate + 0.5))


def num_frames(num_samples: int, samples_per_frame: int) -> int:
    """Return how many frames cover `num_samples`: the last, partial frame counts."""
    return -(-num_samples // samples_per_frame)


def load_audio(source: AudioSource, sample_rate: int | None = None) -> Audio:
    """Read any audio source as mono float32, resampled to `sample_rate` when that is given.

    Channels are averaged. Samples beyond [-1, 1] are clipped.

    Raises:
        AudioError: nothing there, not audio, cut short, empty, or not finite; the message names the source.
    """
    name = _name(source)
    audio = _checked(_read(source), name)
    # Resampling may overshoot, and leaves nothing of a sample or two.
    return audio if sample_rate in (None, audio.sample_rate) else _checked(audio.resampled(sample_rate), name)


def save_audio(audio: Audio, path: str | Path) -> Path:
    """Write audio as 16-bit PCM (format by suffix: .wav, .flac, .ogg), whole or not at all."""
    import soundfile

    path = Path(path)
    _checked(audio, str(path))
    known = {f.lower() for f in soundfile.available_formats()}
    kind = path.suffix.lstrip(".").lower()
    if kind not in known:
        raise AudioError(f"cannot write {path}: unknown format {kind!r}; use a name that ends in .wav or .flac")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        soundfile.write(partial, audio.samples, audio.sample_rate, format=kind.upper())
        os.replace(partial, path)
    except (OSError, soundfile.LibsndfileError) as error:
        partial.unlink(missing_ok=True)
        raise AudioError(f"cannot write {path}: {error}") from error
    return path


def encode_flac(audio: Audio) -> bytes:
    """Return the bytes of a 16-bit FLAC file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio.samples, audio.sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _read(source: AudioSource) -> Audio:
    if isinstance(source, Audio):
        return source
    if isinstance(source, str | Path | bytes):
        return _read_file(source)
    if isinstance(source, Mapping):
        return _read_mapping(source)
    raise AudioError(
        f"{_name(source)} has no sample rate; pass {{'array': samples, 'sampling_rate': rate}} or Audio(samples, rate)"
    )


def _read_mapping(source: Mapping[str, Any]) -> Audio:
    rate = source.get("sampling_rate", source.get("sample_rate"))
    array = source.get("array", source.get("raw"))
    if array is not None and rate is not None:
        return Audio(_mono(np.asarray(array), channels_first=True), int(rate))
    content = source.get("bytes") or source.get("path")
    if content is None:
        raise AudioError(
            f"a dict with keys {sorted(source)} is no audio; expected array and sampling_rate, bytes, or path"
        )
    return _read_file(content)


def _read_file(source: str | Path | bytes) -> Audio:
    import soundfile

    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError(f"no audio file at {source}")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as content:
            if content.seek(0, io.SEEK_END) == 0:
                raise AudioError(f"{_name(source)} is empty: it holds no bytes")
            missing = _missing_wav_bytes(content)
            content.seek(0)
            with soundfile.SoundFile(content) as file:
                promised, rate = file.frames, file.samplerate
                samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.error_string
        raise AudioError(f"{_name(source)} is not an audio file that can be read: {reason}") from error
    if missing > 0:
        raise AudioError(f"{_name(source)} is cut short: {missing} bytes that its header promises are not there")
    if 0 < promised < 2**60 and len(samples) < promised:
        raise AudioError(
            f"{_name(source)} is cut short: its header promises {promised} samples, {len(samples)} are there"
        )
    return Audio(_mono(samples, channels_first=False), rate)


def _missing_wav_bytes(file: io.BufferedIOBase) -> int:
    """Return how many bytes of a WAV file's data chunk are not there; libsndfile quietly reads what is left."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    header = file.read(12)
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return 0
    while len(header := file.read(8)) == 8:
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            # Programs that write to a pipe cannot know the length and put the largest number, or 0, there.
            return 0 if length >= 2**31 - 1 else file.tell() + length - size
        file.seek(length + length % 2, io.SEEK_CUR)
    return 0


def _mono(samples: np.ndarray, channels_first: bool) -> np.ndarray:
    if np.issubdtype(samples.dtype, np.integer):
        # Unsigned samples are silent half-way up.
        lowest, highest = np.iinfo(samples.dtype).min, np.iinfo(samples.dtype).max
        samples = (samples - (lowest + highest + 1) / 2) / ((highest - lowest + 1) / 2)
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise AudioError(f"audio has shape {samples.shape}, expected [S] or [C, S]")
    channel_axis = 0 if channels_first else 1
    if channels_first and samples.shape[0] > samples.shape[1]:
        raise AudioError(f"audio has shape {samples.shape}, more channels than samples; expected [C, S]: transpose it")
    return samples.mean(axis=channel_axis)


def _checked(audio: Audio, name: str) -> Audio:
    if audio.num_samples == 0:
        raise AudioError(f"{name} is empty: it holds no samples")
    if not np.isfinite(audio.samples).all():
        bad = int((~np.isfinite(audio.samples)).sum())
        raise AudioError(f"{name} holds {bad} samples that are NaN or infinite; expected numbers in [-1, 1]")
    peak = float(np.abs(audio.samples).max())
    return audio if peak <= 1 else Audio(np.clip(audio.samples, -1, 1), audio.sample_rate)


def _name(source: AudioSource) -> str:
    if isinstance(source, bytes):
        return f"audio of {len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"array of shape {source.shape}"
    if isinstance(source, Audio | Mapping):
        return "the audio given"
    return str(source)
