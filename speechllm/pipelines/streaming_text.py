"""Text while the model writes it, as pieces that join to what `SpeechSystem.run` returns in the end.

    for piece in stream_text(system, TaskTag.of("ASR AST", "en", "fr"), "hello.wav"):
        print(piece.field, piece.text)             # transcript "good", transcript " morning", translation "bonjour"

A word is given once the next one has begun: until then its last letters may still change. Long audio is written one
piece after the other. A streamer of transformers (`TextStreamer`, `TextIteratorStreamer`) is fed on request.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from speechllm.generation.decoded import Decoded
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.pipelines.output import TaskOutput, join
from speechllm.pipelines.system import Input, SpeechSystem
from speechllm.processor import UnifiedProcessor
from speechllm.segments import TextSegment
from speechllm.tasks import Field, TaskTag

FIRST_WIDE_LETTER = "\u2e80"
"Letters from here on (Chinese, Japanese, Korean) stand without spaces between words."


@dataclass(frozen=True)
class TextPiece:
    """Some more text of an output field."""

    field: Field
    text: str


def stream_text(
    system: SpeechSystem,
    tag: TaskTag,
    given: Input,
    *,
    decoding: DecodingConfig | None = None,
    streamer: Any = None,
) -> Generator[TextPiece, None, TaskOutput]:
    """Yield the text fields of one task on one input as they are written, and return the whole output.

    Args:
        system: the checkpoint.
        tag: the task; spoken fields are written as codes, without sound.
        given: text or audio, as the task reads it.
        decoding: in place of the system's own; without beams.
        streamer: has `put(ids)` and `end()`; gets the prompt, then the ids of the text fields.

    Raises:
        ConfigError: beams.
        TaskError: the input is of the wrong kind.
    """
    (prompt,) = system.prompts(tag, [given])
    writers: dict[Field, _Writer] = {name: _Writer(system.processor) for name in tag.targets}
    pieces: list[Decoded] = []
    for place, ids in enumerate(prompt.ids):
        if streamer is not None:
            streamer.put(torch.from_numpy(ids)[None] if place == 0 else _blank(system.processor))
        steps = system.decoder.stream(ids, tag.output_modalities, decoding or system.decoding)
        pieces.append((yield from _written(system.processor, tag, steps, writers, streamer)))
    if streamer is not None:
        streamer.end()
    return join(tag, pieces, prompt.spans)


def _written(
    processor: UnifiedProcessor,
    tag: TaskTag,
    steps: Generator[int, None, Decoded],
    writers: "dict[Field, _Writer]",
    streamer: Any,
) -> Generator[TextPiece, None, Decoded]:
    """Yield the text of one piece of the input, and return its decoding."""
    closing, part = processor.closing_ids, 0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            yield from (TextPiece(name, text) for name, one in writers.items() if (text := one.close()))
            return end.value
        name = tag.targets[part]
        if step in closing:
            part += 1
            text = writers[name].close()
        elif tag.output_modalities[part] == "text":
            text = writers[name].push(step)
        else:
            continue
        if streamer is not None and tag.output_modalities[part - (step in closing)] == "text":
            streamer.put(torch.tensor([step]) if step not in closing else _blank(processor))
        if text:
            yield TextPiece(name, text)


def _blank(processor: UnifiedProcessor) -> torch.Tensor:
    """Return the ids of a space, which parts texts in a stream of ids."""
    return torch.tensor(processor.text_tokenizer(" ", add_special_tokens=False)["input_ids"], dtype=torch.int64)


@dataclass(eq=False)
class _Writer:
    """Turns the ids of a field into pieces of text, over all pieces of the input."""

    processor: UnifiedProcessor
    ids: list[int] = field(default_factory=list)
    given: str = ""
    "What was given of the piece at hand."
    has_text: bool = False
    "Whether anything was given before it."

    def push(self, step: int) -> str:
        """Add an id and return the text that is now certain."""
        self.ids.append(step)
        text = self._text()
        # The last word is held back; its last letter may be half of a character.
        return self._give(text if text[-1:] >= FIRST_WIDE_LETTER and text[-1] != "\ufffd" else text.rpartition(" ")[0])

    def close(self) -> str:
        """End the piece and return what was held back."""
        text = self._give(self._text())
        self.has_text = self.has_text or bool(self.given)
        self.ids, self.given = [], ""
        return text

    def _text(self) -> str:
        segment = self.processor.decode_segment(np.array(self.ids, np.int64), "text")
        assert isinstance(segment, TextSegment), "a text was asked for"
        return segment.text

    def _give(self, text: str) -> str:
        if len(text) <= len(self.given):
            return ""
        new = text[len(self.given) :]
        blank = " " if self.has_text and not self.given else ""
        self.given = text
        return blank + new
