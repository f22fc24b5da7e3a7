"""A transcript in the formats of OpenAI's interface: json, text, verbose_json, srt, vtt.

    write_transcript("srt", transcript)
    # 1
    # 00:00:00,000 --> 00:00:02,500
    # good morning

A segment is a piece of the recording between two pauses; shorter recordings are one segment. Words have no times.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speechllm.tasks import language_name

TRANSCRIPT_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")


@dataclass(frozen=True)
class TranscriptSegment:
    """What is said in one piece of a recording."""

    start_seconds: float
    stop_seconds: float
    text: str
    tokens: tuple[int, ...] = ()
    "Ids that the model wrote for the piece."
    score: float = 0.0
    "Sum of their log probabilities."


@dataclass(frozen=True)
class Transcript:
    """A whole recording as text."""

    task: str
    "transcribe or translate."
    language: str
    "Code of the language of the text."
    duration_seconds: float
    segments: Sequence[TranscriptSegment]
    temperature: float = 0.0

    @property
    def text(self) -> str:
        """All segments, joined by a blank."""
        return " ".join(segment.text for segment in self.segments if segment.text)


def write_transcript(kind: str, transcript: Transcript) -> tuple[str, str]:
    """Return (content, media type) of a transcript in one of TRANSCRIPT_FORMATS."""
    if kind == "json":
        usage = {"type": "duration", "seconds": round(transcript.duration_seconds)}
        return json.dumps({"text": transcript.text, "usage": usage}, ensure_ascii=False), "application/json"
    if kind == "verbose_json":
        return json.dumps(_verbose(transcript), ensure_ascii=False), "application/json"
    if kind == "srt":
        return _subtitles(transcript.segments, ",", numbered=True), "application/x-subrip; charset=utf-8"
    if kind == "vtt":
        return "WEBVTT\n\n" + _subtitles(transcript.segments, ".", numbered=False), "text/vtt; charset=utf-8"
    assert kind == "text", f"unknown format {kind}; the caller checks"
    return transcript.text + "\n", "text/plain; charset=utf-8"


def _verbose(transcript: Transcript) -> dict[str, Any]:
    return {
        "task": transcript.task,
        "language": language_name(transcript.language).lower(),
        "duration": round(transcript.duration_seconds, 3),
        "text": transcript.text,
        "segments": [_segment(i, segment, transcript) for i, segment in enumerate(transcript.segments)],
        "usage": {"type": "duration", "seconds": round(transcript.duration_seconds)},
    }


def _segment(number: int, segment: TranscriptSegment, transcript: Transcript) -> dict[str, Any]:
    content = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start_seconds, 3),
        "end": round(segment.stop_seconds, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": transcript.temperature,
        "avg_logprob": segment.score / max(len(segment.tokens), 1),
        "compression_ratio": len(content) / len(zlib.compress(content)),
        # The model has no such figure; a made-up one would be believed.
        "no_speech_prob": None,
    }


def _subtitles(segments: Sequence[TranscriptSegment], comma: str, *, numbered: bool) -> str:
    blocks = []
    for number, segment in enumerate((segment for segment in segments if segment.text), 1):
        times = f"{_clock(segment.start_seconds, comma)} --> {_clock(segment.stop_seconds, comma)}"
        blocks.append("\n".join([str(number)] * numbered + [times, _one_line(segment.text)]) + "\n")
    return "\n".join(blocks)


def _one_line(text: str) -> str:
    # "-->" would begin another cue, and an empty line end this one.
    return " ".join(text.split()).replace("-->", "->")


def _clock(seconds: float, comma: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{comma}{rest % 1000:03d}"
