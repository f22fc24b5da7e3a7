"""The child process that speaks: one JSON request per line in, one length-prefixed FLAC file out.

    in   {"text": "bonjour anna", "voice": "fr-FR", "pitch": 1.1, "speed": 0.9}
    out  4 bytes (big endian) length, then that many bytes; the length ERROR_MARK announces an error message of
         the same form.

Pico reads memory that it has not written, so that its output depends, in the last bits, on what the
process did before. `pico_pool` starts this process with MALLOC_MMAP_THRESHOLD_ set: each call then gets fresh
zeros from the kernel, and the same request gives the same bytes. It is run as a file and imports nothing of
ours, so that it starts in a moment.
"""

import io
import json
import struct
import sys

import numpy as np
import soundfile
from py_nanotts import NanoTTS

SAMPLE_RATE = 16_000
"Pico speaks at this rate and no other (Hz)."
VOLUME = 0.6
"Below the level at which loud vowels clip."
EDGE_SECONDS = 0.1
"Silence kept at both ends; Pico leaves up to 0.7 s at the end of a sentence."
SILENCE = 0.01
"Amplitude below which a sample counts as silence."
ERROR_MARK = 0xFFFFFFFF


def trim(samples: np.ndarray) -> np.ndarray:
    """Cut the silence at both ends of samples float32 [S] down to EDGE_SECONDS."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if len(loud) == 0:
        return samples
    edge = int(EDGE_SECONDS * SAMPLE_RATE)
    return samples[max(loud[0] - edge, 0) : loud[-1] + edge]


def speak(engine: NanoTTS, text: str, voice: str, pitch: float, speed: float) -> bytes:
    """Return the FLAC file of one utterance."""
    pcm = engine.speak(text, voice=voice, pitch=pitch, speed=speed, volume=VOLUME)
    samples = trim(np.frombuffer(pcm, dtype="<i2").astype(np.float32) / 32768)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def main() -> None:
    """Serve requests until standard input ends."""
    engine = NanoTTS()
    out = sys.stdout.buffer
    for line in sys.stdin:
        try:
            content, length = speak(engine, **json.loads(line)), None
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            content, length = str(error).encode(), ERROR_MARK
        if length is not None:
            out.write(struct.pack(">I", length))
        out.write(struct.pack(">I", len(content)) + content)
        out.flush()


if __name__ == "__main__":
    main()
