"""Speech in the formats of OpenAI's interface, and text cut into the sentences that are streamed.

    encode_speech(audio, "flac")                     # bytes of a file
    stream = SpeechStream("wav"); stream.push(audio) + stream.push(more)      # a header, then samples as they come
    split_sentences("Good morning. Where is it?")    # ["Good morning.", "Where is it?"]

wav and pcm can be sent while later sentences are still being made; mp3, opus and flac are sent whole. As in that
interface, pcm is 16-bit little-endian mono at 24 kHz without a header; the others keep the codec's rate.
"""

import io
import re
import struct
from collections.abc import Sequence

import numpy as np
import soundfile

from speechllm.audio import Audio
from speechllm.errors import AudioError

PCM_RATE = 24_000
MEDIA_TYPES = {
    "mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm",
}  # fmt: skip
STREAMED = ("wav", "pcm")
UNKNOWN_LENGTH = 0xFFFFFFFF
"What stands in a WAV header whose file is still being made; readers then read to the end."
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
SENTENCE_END = re.compile(r"(?<=[.!?\u2026])\s+|(?<=[\u3002\uff01\uff1f])\s*|\n+")
"Behind a full stop, question or exclamation mark (Chinese and Japanese ones need no blank), or a new line."
LONGEST_SENTENCE = 200
"Characters; a longer one is cut at a comma or a blank, so that no answer of the LM runs into its limits."


def encode_speech(audio: Audio, kind: str) -> bytes:
    """Return a whole file of audio in a format of MEDIA_TYPES.

    Raises:
        AudioError: this libsndfile cannot write the format.
    """
    if kind in STREAMED:
        return SpeechStream(kind, num_samples=audio.num_samples).push(audio)
    rates = {"mp3": MP3_RATES, "opus": OPUS_RATES}.get(kind, (audio.sample_rate,))
    audio = audio.resampled(next((rate for rate in rates if rate >= audio.sample_rate), rates[-1]))
    file, subtype = {"mp3": ("MP3", None), "opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}[kind]
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, audio.samples, audio.sample_rate, format=file, subtype=subtype)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioError(f"cannot write {kind} here ({error}); ask for wav or flac") from error
    return buffer.getvalue()


def join_speech(audios: Sequence[Audio]) -> Audio:
    """Return consecutive pieces of one rate as one."""
    return Audio(np.concatenate([audio.samples for audio in audios]), audios[0].sample_rate)


class SpeechStream:
    """Turns pieces of speech into bytes that can be sent at once."""

    def __init__(self, kind: str, *, num_samples: int | None = None):
        self.kind, self.num_samples, self._begun = kind, num_samples, False

    def push(self, audio: Audio) -> bytes:
        """Return the bytes of the next piece, behind the header if it is the first."""
        audio = audio if self.kind == "wav" else audio.resampled(PCM_RATE)
        samples = np.round(np.clip(audio.samples, -1, 1) * 32767).astype("<i2").tobytes()
        header = b"" if self._begun or self.kind == "pcm" else self._header(audio.sample_rate)
        self._begun = True
        return header + samples

    def _header(self, rate: int) -> bytes:
        data = UNKNOWN_LENGTH if self.num_samples is None else 2 * self.num_samples
        riff = UNKNOWN_LENGTH if self.num_samples is None else data + 36
        form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + form + b"data" + struct.pack("<I", data)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, none longer than LONGEST_SENTENCE; together they have all its words."""
    sentences = SENTENCE_END.split(text.strip())
    return [part for sentence in sentences for part in _cut(" ".join(sentence.split())) if part]


def _cut(sentence: str) -> list[str]:
    parts = []
    while len(sentence) > LONGEST_SENTENCE:
        head = sentence[:LONGEST_SENTENCE]
        place = max((head.rfind(mark) + 1 for mark in (", ", "; ", ": ")), default=0) or head.rfind(" ")
        place = place if place > 0 else LONGEST_SENTENCE
        parts.append(sentence[:place].strip())
        sentence = sentence[place:].strip()
    return [*parts, sentence]
