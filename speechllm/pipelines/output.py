"""What a task gives back: each output field as text, codes or sound, and how the decoding ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from speechllm.audio import Audio
from speechllm.generation.decoded import Decoded, StopReason
from speechllm.segments import CodeSegment, Segment, TextSegment
from speechllm.tasks import Field, TaskTag


@dataclass(frozen=True, eq=False)
class TaskOutput:
    """The outputs of one task on one input; `[ASR AST English French]` has a transcript and a translation."""

    tag: TaskTag
    segments: Mapping[Field, Segment]
    "Text or semantic codes of each output field, in the order of the tag."
    audio: Audio | None = None
    "Speech, if a field is audio and the checkpoint can make sound (codec/ and acoustic/)."
    is_watermarked: bool = False
    "True if the speech carries the mark of generated speech."
    decoded: Sequence[Decoded] = field(default=())
    "The decodings behind it: one, or one per piece of long audio."
    spans: Sequence[tuple[float, float]] = field(default=())
    "Start and end in seconds of the piece of audio behind each decoding; empty where the input is text."

    @property
    def text(self) -> str:
        """The last text output: the translation if there is one, else the transcript; empty without text."""
        texts = [segment.text for segment in self.segments.values() if isinstance(segment, TextSegment)]
        return texts[-1] if texts else ""

    @property
    def texts(self) -> dict[Field, str]:
        """All text outputs by field."""
        return {name: segment.text for name, segment in self.segments.items() if isinstance(segment, TextSegment)}

    def chunks(self, name: Field) -> list[tuple[str, tuple[float, float]]]:
        """Return the text of a field piece by piece, with the start and end of each piece in seconds."""
        place = list(self.segments).index(name)
        texts = [piece.segments[place] for piece in self.decoded]
        return [
            (segment.text, span)
            for segment, span in zip(texts, self.spans, strict=True)
            if isinstance(segment, TextSegment)
        ]

    @property
    def codes(self) -> np.ndarray | None:
        """The semantic codes int64 [T] of the audio output, if there is one."""
        return next((s.codes for s in self.segments.values() if isinstance(s, CodeSegment)), None)

    @property
    def stop_reason(self) -> StopReason:
        """How decoding ended: eos, or the guard that ended (a piece of) it."""
        for piece in self.decoded:
            if piece.stop_reason != "eos":
                return piece.stop_reason
        return "eos"

    @property
    def score(self) -> float:
        """Sum of the log probabilities of the ids."""
        return sum(d.score for d in self.decoded)


def join(tag: TaskTag, pieces: Sequence[Decoded], spans: Sequence[tuple[float, float]] = ()) -> TaskOutput:
    """Join the outputs of consecutive pieces of one input: texts by a blank, codes end to end."""
    segments: dict[Field, Segment] = {}
    for part, name in enumerate(tag.targets):
        found = [piece.segments[part] for piece in pieces]
        codes = [segment.codes for segment in found if isinstance(segment, CodeSegment)]
        texts = [segment.text for segment in found if isinstance(segment, TextSegment)]
        segments[name] = CodeSegment(np.concatenate(codes)) if codes else TextSegment(" ".join(filter(None, texts)))
    return TaskOutput(tag, segments, decoded=tuple(pieces), spans=tuple(spans))
