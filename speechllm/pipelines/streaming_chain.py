"""Text and sound of a task that speaks, while they are made: what was said so far, then its sound, piece by piece.

    for event in stream_chain(system, TaskTag.of("ASR AST S2ST", "en", "fr"), [system.encode(["talk.wav"])[0]]):
        event        # {"transcript": ..., "text": ...} of a piece of the talk, or {"audio": [S], "sampling_rate": ...}

Texts join to the whole text and sounds to one recording with one watermark. The first sound waits for the first piece
of the input (`generation.streaming_speech` says for how much of it), not for the others.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from speechllm.audio import AudioSource
from speechllm.generation.cascade import require_match
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.generation.streaming_speech import stream_speech
from speechllm.pipelines.system import EncodedSpeech, Input, SpeechSystem
from speechllm.pipelines.voices import marked
from speechllm.safety import require_consent
from speechllm.tasks import TaskTag

Event: TypeAlias = dict[str, Any]
"Some more text, or some more sound, by the names that the whole output has."


def stream_chain(
    system: SpeechSystem,
    tag: TaskTag,
    inputs: Iterable[Input],
    *,
    decoding: DecodingConfig | None = None,
    voice: AudioSource | None = None,
    consent: bool = False,
) -> Iterator[Event]:
    """Return an iterator over the (watermarked) speech of a task, and the texts of each piece before its sound.

    Args:
        system: a checkpoint that can speak.
        tag: a task with one spoken field.
        inputs: in order, all spoken as one; long audio counts as several.
        decoding: in place of the system's own; its seed is that of all draws.
        voice: some seconds of a voice, or None: one is drawn and kept.
        consent: the statement that the speaker of `voice` agreed.

    Raises:
        ConsentError: a voice without consent; at once, as all that is wrong with the checkpoint or the voice.
        CheckpointError: the checkpoint cannot speak, or its acoustic model was trained with another codec.
        TaskError: an input is of the wrong kind; when its turn comes.
    """
    if voice is not None:
        require_consent(consent)
    acoustic, codec = system.sound_parts()
    require_match(acoustic, codec)
    prompt = system.voice_prompts(voice, 1)
    decoding = decoding or system.decoding
    said: deque[Event] = deque()

    def codes() -> Iterator[np.ndarray]:
        joint: dict[str, str] = {}
        for piece in _pieces(inputs):
            (output,) = system.run(tag, [piece], decoding=decoding, sound=False)
            said.extend(_texts(output.texts, joint))
            yield np.zeros(0, np.int64) if output.codes is None else output.codes

    def events() -> Iterator[Event]:
        for audio in marked(stream_speech(codes(), acoustic, codec, voice=prompt, seed=decoding.seed)):
            while said:
                yield said.popleft()
            yield {"audio": audio.samples, "sampling_rate": audio.sample_rate}
        yield from said

    return events()


def text_key(name: str, fields: Iterable[str]) -> str:
    """Return the key of a text in an output: "text" for the last one of a task, else the name of its field."""
    return "text" if name == list(fields)[-1] else name


def _pieces(inputs: Iterable[Input]) -> Iterator[Input]:
    """Yield inputs one by one, and encoded long audio piece by piece."""
    for given in inputs:
        if isinstance(given, EncodedSpeech):
            spans = given.spans or ((0.0, 0.0),) * len(given.pieces)
            for piece, span in zip(given.pieces, spans, strict=True):
                yield dataclasses.replace(given, pieces=(piece,), spans=(span,))
        else:
            yield given


def _texts(texts: Any, joint: dict[str, str]) -> Iterator[Event]:
    """Yield the texts of a piece, with a blank before all but the first; `joint` remembers which have begun."""
    event = {}
    for name, text in texts.items():
        if text:
            event[text_key(name, texts)] = joint.get(name, "") + text
            joint[name] = " "
    if event:
        yield event
