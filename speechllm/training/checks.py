"""What is looked at before the first step: mistakes that would otherwise cost a night, in a second.

    print_table(check_training_data(mixture, model, max_tokens=512))

    task          examples  too long  prompt   text  audio
    ASR                410         0  18,040  4,100      0
    ASR AST S2ST       102         3   4,500  2,200  4,600
    ...

Every sampled example is audited: ids inside the matrix, loss on targets alone and on all of them, EOS last,
output parts of the modalities that its tag promises, and as many `<|next|>` marks as parts. An id that trains nothing
and a mask that is off by one train without complaint and give a model that never stops or never listens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from speechllm.data.collate import task_name
from speechllm.data.mixture import Mixture
from speechllm.errors import DataError, VocabularyError
from speechllm.models.causal_lm import num_text_rows
from speechllm.processor import EncodedExample, UnifiedProcessor
from speechllm.segments import PLAIN_TEXT
from speechllm.tasks import TaskTag
from speechllm.vocabulary import SEMANTIC, TEXT


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


def check_training_data(
    mixture: Mixture, model: PreTrainedModel, *, max_tokens: int, num_examples: int = 512
) -> list[TaskCount]:
    """Audit the first `num_examples` examples and return their counts by task.

    Raises:
        VocabularyError: model and processor have different numbers of ids.
        DataError: an example is laid out wrongly, or a task has none that fits into a row.
    """
    processor = mixture.processor
    if num_text_rows(model) != processor.vocabulary.size:
        raise VocabularyError(
            f"the model has {num_text_rows(model):,} rows, the vocabulary (hash {processor.vocabulary.hash}) "
            f"{processor.vocabulary.size:,} ids; extend the model with this vocabulary"
        )
    counts: dict[str, TaskCount] = {}
    for index in range(num_examples):
        example = mixture.example(index)
        try:
            audit_example(example, processor)
        except DataError as error:
            raise DataError(f"training example {index}: {error}") from error
        name = task_name(example.tag)
        _add(counts.setdefault(name, TaskCount(name)), example, processor, max_tokens)
    for count in counts.values():
        if count.too_long == count.examples:
            raise DataError(
                f"all {count.examples} sampled examples of {count.name!r} are longer than max_tokens = {max_tokens}; "
                "raise max_tokens or drop the task"
            )
    return sorted(counts.values(), key=lambda count: count.name)


def audit_example(example: EncodedExample, processor: UnifiedProcessor) -> None:
    """Check the layout of one encoded example.

    Raises:
        DataError: ids out of range, a mask that is not the targets, no EOS, or parts that the tag does not promise.
    """
    if example.tag == PLAIN_TEXT:
        return _audit_plain_text(example, processor)
    ids, mask, vocabulary = np.asarray(example.input_ids), np.asarray(example.loss_mask), processor.vocabulary
    if len(ids) == 0 or ids.min() < 0 or ids.max() >= vocabulary.size:
        raise DataError(f"{example.tag} has ids outside 0..{vocabulary.size - 1}; was it encoded by another processor?")
    start = int(mask.argmax())
    if not mask.any() or not mask[start:].all():
        raise DataError(f"{example.tag} has a loss mask that is not one run up to the end; loss belongs on all targets")
    if ids[start - 1] != vocabulary.next_id:
        raise DataError(f"{example.tag} has its first target at {start}, not right behind the mark that ends the input")
    if ids[-1] != processor.eos_id:
        raise DataError(f"{example.tag} ends with id {ids[-1]}, expected EOS = {processor.eos_id}: it would never stop")
    expected = TaskTag.parse(example.tag).output_modalities
    parts = np.split(ids[start:-1], np.flatnonzero(ids[start:-1] == vocabulary.next_id))
    parts = [part[part != vocabulary.next_id] for part in parts]
    found = tuple(_modality(part, processor) for part in parts)
    if found != expected:
        raise DataError(f"{example.tag} has target parts {found}, expected {expected}")


def _audit_plain_text(example: EncodedExample, processor: UnifiedProcessor) -> None:
    ids = np.asarray(example.input_ids)
    if not np.isin(ids, np.arange(processor.vocabulary[TEXT].stop)).all():
        raise DataError("plain text has ids outside the text block; was it encoded by another processor?")
    if not np.asarray(example.loss_mask).all():
        raise DataError("plain text has ids without loss; it is learnt as a whole")


def _modality(part: np.ndarray, processor: UnifiedProcessor) -> str:
    names = {processor.vocabulary.blocks[i].name for i in processor.vocabulary.block_indices(part)}
    return {frozenset({TEXT}): "text", frozenset({SEMANTIC}): "audio"}.get(frozenset(names), f"of {sorted(names)}")


def _add(count: TaskCount, example: EncodedExample, processor: UnifiedProcessor, max_tokens: int) -> None:
    targets = example.input_ids[example.loss_mask]
    audio = int((targets >= processor.vocabulary[SEMANTIC].start).sum())
    count.examples += 1
    count.too_long += len(example) > max_tokens
    count.prompt += len(example) - len(targets)
    count.audio += audio
    count.text += len(targets) - audio


def print_table(counts: Sequence[TaskCount]) -> None:
    """Print the counts as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "examples", "too long", "prompt", "text", "audio", title="first examples of the mixture")
    for count in counts:
        numbers = (count.examples, count.too_long, count.prompt, count.text, count.audio)
        table.add_row(count.name, *[f"{number:,}" for number in numbers])
    Console().print(table)
