"""The audit of encoded examples: what each sampled one must be, and how it reads in print.

    audit_example(mixture.example(0), processor)         # raises if it would train wrongly
    print(describe_example(mixture.example(0), processor))

    no loss | [ASR English] <17 codes: 3 3 250 ...> <|next|>
    loss    | good morning <eos>

Ids lie inside the matrix; loss is on all targets and on nothing else; the last id is EOS; the output parts are of the
modalities that the tag promises, with a `<|next|>` between them. An id that trains nothing and a mask that is off by
one train without complaint and give a model that never stops or never listens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from speechllm.data.collate import task_name
from speechllm.errors import DataError
from speechllm.processor import EncodedExample, UnifiedProcessor
from speechllm.segments import PLAIN_TEXT
from speechllm.tasks import TaskTag
from speechllm.vocabulary import SEMANTIC, SPECIAL, TEXT

CODES_SHOWN = 6
"Codes that stand in print for all the codes of a part."


@dataclass
class TaskCount:
    """What the sampled examples of one task hold."""

    name: str
    examples: int = 0
    too_long: int = 0
    "Examples that no packed row can hold."
    prompt: int = 0
    "Ids without loss."
    text: int = 0
    "Target ids of the text block, EOS and marks included."
    audio: int = 0
    "Target ids of the semantic block."


def audit_example(example: EncodedExample, processor: UnifiedProcessor) -> None:
    """Check the layout of one encoded example.

    Raises:
        DataError: ids out of range, a mask that is not the targets, no EOS, or parts that the tag does not promise.
    """
    for check in (check_ids, check_loss_mask, check_end, check_parts):
        check(example, processor)


def check_ids(example: EncodedExample, processor: UnifiedProcessor) -> None:
    """Raise unless every id has a row in the matrix (of text: one in the text block)."""
    ids, vocabulary = np.asarray(example.input_ids), processor.vocabulary
    if example.tag == PLAIN_TEXT and max(ids, default=0) >= vocabulary[TEXT].stop:
        raise DataError("plain text has ids outside the text block; was it encoded by another processor?")
    if len(ids) == 0 or ids.min() < 0 or ids.max() >= vocabulary.size:
        raise DataError(f"{example.tag} has ids outside 0..{vocabulary.size - 1}; was it encoded by another processor?")


def check_loss_mask(example: EncodedExample, processor: UnifiedProcessor) -> None:
    """Raise unless loss is on what stands behind the mark that ends the input, and on all of that."""
    ids, mask = np.asarray(example.input_ids), np.asarray(example.loss_mask)
    if example.tag == PLAIN_TEXT:
        if not mask.all():
            raise DataError("plain text has ids without loss; it is learnt as a whole")
        return
    start = int(mask.argmax())
    if not mask.any() or not mask[start:].all():
        raise DataError(f"{example.tag} has a loss mask that is not one run up to the end; loss belongs on all targets")
    if ids[start - 1] != processor.vocabulary.next_id:
        raise DataError(f"{example.tag} has its first target at {start}, not right behind the mark that ends the input")


def check_end(example: EncodedExample, processor: UnifiedProcessor) -> None:
    """Raise unless a task's example ends with EOS (of text only a stretch may have been taken)."""
    last = int(example.input_ids[-1])
    if example.tag != PLAIN_TEXT and last != processor.eos_id:
        raise DataError(f"{example.tag} ends with id {last}, expected EOS = {processor.eos_id}: it would never stop")


def check_parts(example: EncodedExample, processor: UnifiedProcessor) -> None:
    """Raise unless the target has the parts that the tag promises."""
    if example.tag == PLAIN_TEXT:
        return
    target, mark = np.asarray(example.input_ids)[np.asarray(example.loss_mask)][:-1], processor.vocabulary.next_id
    parts = np.split(target, np.flatnonzero(target == mark))
    found = tuple(_modality(part[part != mark], processor) for part in parts)
    expected = TaskTag.parse(example.tag).output_modalities
    if found != expected:
        raise DataError(f"{example.tag} has target parts {found}, expected {expected}")


def _modality(part: np.ndarray, processor: UnifiedProcessor) -> str:
    names = {processor.vocabulary.blocks[i].name for i in processor.vocabulary.block_indices(part)}
    return {frozenset({TEXT}): "text", frozenset({SEMANTIC}): "audio"}.get(frozenset(names), f"of {sorted(names)}")


def count_tasks(examples: Iterable[EncodedExample], processor: UnifiedProcessor, *, max_tokens: int) -> list[TaskCount]:
    """Return what the examples of each task hold, by name."""
    counts: dict[str, TaskCount] = {}
    for example in examples:
        name = task_name(example.tag)
        count = counts.setdefault(name, TaskCount(name))
        targets = example.input_ids[example.loss_mask]
        audio = int((targets >= processor.vocabulary[SEMANTIC].start).sum())
        count.examples += 1
        count.too_long += len(example) > max_tokens
        count.prompt += len(example) - len(targets)
        count.audio += audio
        count.text += len(targets) - audio
    return sorted(counts.values(), key=lambda count: count.name)


def describe_example(example: EncodedExample, processor: UnifiedProcessor) -> str:
    """Return an example as a person reads it: text decoded, codes counted, what has loss on a line of its own."""
    mask = np.asarray(example.loss_mask, dtype=bool)
    cuts = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    lines = []
    for ids, flags in zip(np.split(example.input_ids, cuts), np.split(mask, cuts), strict=True):
        lines.append(f"{'loss   ' if flags[0] else 'no loss'} | {' '.join(_pieces(ids, processor))}")
    return "\n".join(lines)


def _pieces(ids: np.ndarray, processor: UnifiedProcessor) -> Iterator[str]:
    """Yield every run of ids of one block in print."""
    vocabulary, tokenizer = processor.vocabulary, processor.text_tokenizer
    blocks = vocabulary.block_indices(ids)
    for run in np.split(ids, np.flatnonzero(np.diff(blocks)) + 1):
        block = vocabulary.blocks[int(vocabulary.block_indices(run[:1])[0])]
        if block.name == SPECIAL:
            yield " ".join(["<|next|>"] * len(run))
        elif block.name == SEMANTIC:
            codes = " ".join(map(str, vocabulary.to_codes(SEMANTIC, run)[:CODES_SHOWN]))
            yield f"<{len(run)} codes: {codes}{' ...' if len(run) > CODES_SHOWN else ''}>"
        else:
            yield str(tokenizer.decode(run.tolist(), skip_special_tokens=False)).strip()
