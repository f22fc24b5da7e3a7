"""What a prompt became: ids, parts, why it ended; and counts over many.

report = DecodeReport.of(decoded)       # how many did not end by themselves, looped, were too long, stayed empty
report + DecodeReport.of(more)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np

from speechllm.generation.grammar import Grammar
from speechllm.processor import UnifiedProcessor
from speechllm.segments import CodeSegment, Segment

StopReason: TypeAlias = Literal["eos", "too_long", "loop"]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What one prompt became."""

    ids: np.ndarray
    "int64 [T], closing marks included."
    segments: list[Segment]
    "One per part of the grammar."
    stop_reason: StopReason
    "eos if every part ended by itself; else the first guard that had to end one."
    score: float
    "Sum of the log probabilities (natural) of the ids, each among the ids that were legal there."


@dataclass(frozen=True, kw_only=True)
class DecodeReport:
    """Counts over many decoded sequences; several can be added."""

    num_sequences: int = 0
    num_tokens: int = 0
    no_eos: int = 0
    "Sequences that a guard had to end: loops + too_long."
    loops: int = 0
    too_long: int = 0
    empty: int = 0
    "Sequences with at least one part without content."

    @classmethod
    def of(cls, decoded: Iterable[Decoded]) -> Self:
        """Count."""
        items = list(decoded)
        loops = sum(item.stop_reason == "loop" for item in items)
        too_long = sum(item.stop_reason == "too_long" for item in items)
        return cls(
            num_sequences=len(items),
            num_tokens=sum(len(item.ids) for item in items),
            no_eos=loops + too_long,
            loops=loops,
            too_long=too_long,
            empty=sum(any(_is_empty(segment) for segment in item.segments) for item in items),
        )

    def __add__(self, other: "DecodeReport") -> "DecodeReport":
        return DecodeReport(**{name: getattr(self, name) + getattr(other, name) for name in vars(self)})


def decoded_from(
    processor: UnifiedProcessor, ids: np.ndarray, grammar: Grammar, stops: Sequence[str], score: float
) -> Decoded:
    """Return the result for the ids that were written and the reasons why their parts ended."""
    reason = next((stop for stop in stops if stop != "closed"), "eos")
    assert reason in ("eos", "too_long", "loop"), f"unknown stop reason {reason}"
    return Decoded(ids, processor.decode_target(ids, grammar), reason, score)


def _is_empty(segment: Segment) -> bool:
    return len(segment.codes) == 0 if isinstance(segment, CodeSegment) else not segment.text.strip()
