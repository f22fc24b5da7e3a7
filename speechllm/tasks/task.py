"""Tasks as data: what goes in, what comes out. A new task is one entry here and one test.

A record of parallel speech has four fields (AudioPaLM, arXiv:2306.12925, section 4):

    audio             transcript           what was said, in the source language
    translated_audio  translation          the same in the target language

    ASR   audio      -> transcript         AST   audio      -> translation
    TTS   transcript -> audio              S2ST  audio      -> translated_audio
    MT    transcript -> translation
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from speechllm.registry import Registry
from speechllm.segments import Modality

Field: TypeAlias = Literal["audio", "transcript", "translated_audio", "translation"]

FIELD_MODALITY: dict[Field, Modality] = {
    "audio": "audio",
    "transcript": "text",
    "translated_audio": "audio",
    "translation": "text",
}


@dataclass(frozen=True)
class Task:
    """One mapping from an input field to an output field, under the name that stands in the tag."""

    name: str
    source: Field
    target: Field

    @property
    def translates(self) -> bool:
        """True if the output is in the target language, so that the tag names two languages."""
        return self.target.startswith("transl")


TASKS: Registry[Task] = Registry("task")


def register_task(task: Task) -> Task:
    """Make `task` usable in tags and configs, in this process: each program that names it registers it first."""
    TASKS.register(task.name, task)
    return task


ASR = register_task(Task("ASR", "audio", "transcript"))
AST = register_task(Task("AST", "audio", "translation"))
S2ST = register_task(Task("S2ST", "audio", "translated_audio"))
TTS = register_task(Task("TTS", "transcript", "audio"))
MT = register_task(Task("MT", "transcript", "translation"))
