"""The Record: one utterance, and its translation if there is one. Every corpus yields these.

Record(id="greeting-17", split="train", language="en", text="good morning", audio=flac_bytes,
       speaker="slt", translation=Translation("fr", "bonjour", audio=other_bytes, speaker="siw"))
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from speechllm.errors import DataError
from speechllm.tasks import language_code

Split: TypeAlias = Literal["train", "validation", "test", "test_speakers"]
"`test` holds unseen sentences; `test_speakers` unseen sentences by unseen speakers."
LabelSource: TypeAlias = Literal["human", "synthetic", "pseudo"]
"Who wrote the text: a person, the generator of the speech, or a recogniser (a weak label)."


@dataclass(frozen=True)
class Translation:
    """The parallel side of a record."""

    language: str
    text: str = ""
    audio: bytes | Path | None = None
    speaker: str = ""
    label_source: LabelSource = "human"


@dataclass(frozen=True)
class Record:
    """One utterance: audio (the bytes of a file, or its path), text or both, in one language."""

    id: str
    split: str
    language: str
    text: str = ""
    audio: bytes | Path | None = None
    speaker: str = ""
    label_source: LabelSource = "human"
    translation: Translation | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise DataError("a record has an empty id; give each record a name of its own")
        language_code(self.language)
        if self.translation is not None:
            language_code(self.translation.language)
        if not self.text and self.audio is None:
            raise DataError(f"record {self.id!r} has neither text nor audio")


Corpus: TypeAlias = Callable[..., Iterator[Record]]
"What a file in data_prep/ offers as `records(...)`: keyword options in, Records out, in a fixed order."
