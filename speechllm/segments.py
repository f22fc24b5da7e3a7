"""What a sequence is made of before it becomes ids: text segments and code segments.

The task `[ASR AST English French]` on one record is

    Example(prompt=(TextSegment("[ASR AST English French]"), CodeSegment([17, 4, ...])),
            target=(TextSegment("good morning"), TextSegment("bonjour")),
            tag="[ASR AST English French]")

The processor alone turns examples into ids and back; nothing here knows a vocabulary.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Modality: TypeAlias = Literal["text", "audio"]
PLAIN_TEXT = "text"
"What stands in the place of a task's name for text without a task."


@dataclass(frozen=True)
class TextSegment:
    """A stretch of text. Whitespace runs become single blanks when it is encoded."""

    text: str
    modality: Modality = "text"


@dataclass(frozen=True, eq=False)
class CodeSegment:
    """A stretch of audio codes (one codebook), `codes` int64 [T], of the block named `block`."""

    codes: np.ndarray
    block: str = "semantic"
    modality: Modality = "audio"

    def __post_init__(self) -> None:
        codes = np.asarray(self.codes, dtype=np.int64)
        if codes.ndim != 1:
            raise ValueError(f"codes have shape {codes.shape}, expected one dimension [T]")
        object.__setattr__(self, "codes", codes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CodeSegment) and self.block == other.block and np.array_equal(self.codes, other.codes)

    def __hash__(self) -> int:
        return hash((self.block, self.codes.tobytes()))


Segment: TypeAlias = TextSegment | CodeSegment


@dataclass(frozen=True)
class Example:
    """One training or test item: the model reads `prompt` and writes the parts of `target`."""

    prompt: tuple[Segment, ...]
    target: tuple[Segment, ...]
    tag: str = ""
    "The task tag, kept for counting and logging; it is also the prompt's first segment."
