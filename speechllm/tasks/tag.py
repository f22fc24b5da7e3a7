"""The task tag: `[ASR French]`, `[AST English French]`, `[ASR AST S2ST English French]`.

    tag = TaskTag.of("ASR AST S2ST", "en", "fr")
    str(tag)                      # "[ASR AST S2ST English French]"
    TaskTag.parse(str(tag))       # the same tag
    tag.source, tag.targets       # "audio", ("transcript", "translation", "translated_audio")

A combined task is one leading tag and one decode: the outputs follow each other in the order of the
names, and each later part can look at the earlier ones. (AudioPaLM, arXiv:2306.12925, section 4.2)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np

from speechllm.errors import RegistryError, TaskError
from speechllm.segments import CodeSegment, Example, Modality, Segment, TextSegment
from speechllm.tasks.languages import language_code, language_name
from speechllm.tasks.task import FIELD_MODALITY, TASKS, Field, Task

FieldValue: TypeAlias = Segment | str | Sequence[int] | np.ndarray
"What a field may hold: a segment, a text, or codes [T]."


@dataclass(frozen=True)
class TaskTag:
    """One or more tasks with a common input, the source language and, to translate, the target language."""

    tasks: tuple[Task, ...]
    source_language: str
    "ISO code."
    target_language: str | None = None
    "ISO code; None if no task translates."

    def __post_init__(self) -> None:
        names = " ".join(task.name for task in self.tasks)
        if not self.tasks:
            raise TaskError("a tag needs at least one task, for example [ASR French]")
        if len({task.source for task in self.tasks}) > 1:
            raise TaskError(f"tasks {names} read different inputs; combine only tasks that share one")
        if len({task.target for task in self.tasks}) < len(self.tasks):
            raise TaskError(f"tasks {names} write the same output twice; name each once")
        translates = any(task.translates for task in self.tasks)
        if translates and self.target_language is None:
            raise TaskError(f"{names} needs two languages, source and target, for example [{names} English French]")
        if not translates and self.target_language is not None:
            raise TaskError(f"{names} needs one language, two were given; drop {self.target_language!r}")

    @classmethod
    def of(cls, tasks: str | Sequence[str], source_language: str, target_language: str | None = None) -> Self:
        """Build a tag from task names ("ASR AST" or a list) and languages (codes or English names).

        The target language is ignored when no task translates.
        """
        names = tasks.split() if isinstance(tasks, str) else list(tasks)
        found = tuple(_task(name) for name in names)
        target = language_code(target_language) if target_language else None
        translates = any(task.translates for task in found)
        return cls(found, language_code(source_language), target if translates else None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a tag as written by `str(tag)`."""
        if not (text.startswith("[") and text.endswith("]")):
            raise TaskError(f"{text!r} is no task tag; expected the form [ASR French]")
        words = text[1:-1].split()
        num_tasks = next((i for i, word in enumerate(words) if word not in TASKS), len(words))
        names, languages = words[:num_tasks], words[num_tasks:]
        if not names and words:
            _task(words[0])  # names the unknown task and the closest known one
        if not names or not 1 <= len(languages) <= 2:
            raise TaskError(
                f"{text!r} is no task tag; expected task names ({', '.join(TASKS)}), then one or two languages"
            )
        target = language_code(languages[1]) if len(languages) == 2 else None
        return cls(tuple(TASKS[name] for name in names), language_code(languages[0]), target)

    def __str__(self) -> str:
        languages = [self.source_language] + ([self.target_language] if self.target_language else [])
        words = [task.name for task in self.tasks] + [language_name(code) for code in languages]
        return f"[{' '.join(words)}]"

    @property
    def name(self) -> str:
        """The task names without languages: "ASR AST"."""
        return " ".join(task.name for task in self.tasks)

    @property
    def direction(self) -> str:
        """The languages by code: "fr", or "en-fr" where a task translates."""
        return self.source_language + (f"-{self.target_language}" if self.target_language else "")

    def only(self, name: str) -> Self:
        """Return the tag of one task in the same languages."""
        return type(self).of(name, self.source_language, self.target_language)

    @property
    def source(self) -> Field:
        """The field that goes in."""
        return self.tasks[0].source

    @property
    def targets(self) -> tuple[Field, ...]:
        """The fields that come out, in order."""
        return tuple(task.target for task in self.tasks)

    @property
    def output_modalities(self) -> tuple[Modality, ...]:
        """The modality of each output part: the grammar that decoding obeys."""
        return tuple(FIELD_MODALITY[target] for target in self.targets)

    def output_language(self, field: Field) -> str:
        """Return the ISO code of the language in which an output field is."""
        if not field.startswith("transl"):
            return self.source_language
        assert self.target_language is not None, "checked on construction"
        return self.target_language

    def prompt(self, source: FieldValue) -> tuple[Segment, ...]:
        """Return what the model reads: the tag, then the input."""
        return (TextSegment(str(self)), _segment(source, self.source, self))

    def example(self, fields: Mapping[Field, FieldValue]) -> Example:
        """Return prompt and targets from the fields of a record; fields that play no part are ignored.

        Raises:
            TaskError: a field that the task needs is missing or empty.
        """
        for field in (self.source, *self.targets):
            if field not in fields or len(_content(fields[field])) == 0:
                raise TaskError(f"{self} needs the field {field!r}; got only {sorted(fields)} with content")
        targets = tuple(_segment(fields[field], field, self) for field in self.targets)
        return Example(self.prompt(fields[self.source]), targets, str(self))


def _task(name: str) -> Task:
    try:
        return TASKS[name]
    except RegistryError as error:
        raise TaskError(str(error)) from error


def _content(value: FieldValue) -> str | Sequence[int] | np.ndarray:
    if isinstance(value, TextSegment):
        return value.text
    return value.codes.tolist() if isinstance(value, CodeSegment) else value


def _segment(value: FieldValue, field: Field, tag: TaskTag) -> Segment:
    expected = FIELD_MODALITY[field]
    if isinstance(value, str):
        value = TextSegment(value)
    elif not isinstance(value, TextSegment | CodeSegment):
        value = CodeSegment(np.asarray(value))
    if value.modality != expected:
        raise TaskError(f"{tag}: field {field!r} is {value.modality}, expected {expected}")
    return value
