"""The Record: one utterance, and its translation if there is one. Every corpus yields these.

Record(id="greeting-17", split="train", language="en", text="good morning", audio=flac_bytes,
       speaker="slt", translation=Translation("fr", "bonjour", audio=other_bytes, speaker="siw"))
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self, TypeAlias

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
        if not re.fullmatch(r"\w[\w.-]*", self.split):
            raise DataError(f"record {self.id!r} has split {self.split!r}; expected a word such as train or test")
        language_code(self.language)
        if self.translation is not None:
            language_code(self.translation.language)
        if not self.text and self.audio is None:
            raise DataError(f"record {self.id!r} has neither text nor audio; give one of them or leave the record out")

    @property
    def digest(self) -> str:
        """A sha256 that changes with anything in the record; a file counts by name and size, so that none is read."""
        parts: list[object] = [self.id, self.split]
        for side in (self, self.translation):
            if side is not None:
                audio = (
                    _name_and_size(side.audio)
                    if isinstance(side.audio, Path)
                    else sha256(side.audio or b"").hexdigest()
                )
                parts += [side.language, side.text, side.speaker, side.label_source, side.audio is None, audio]
        return sha256(json.dumps(parts).encode()).hexdigest()

    def reversed(self) -> Self:
        """Return the record with its two sides exchanged, under the same id: the other direction of translation.

        Raises:
            DataError: there is no parallel side.
        """
        other = self.translation
        if other is None:
            raise DataError(f"record {self.id!r} has no translation, so it cannot be turned round")
        here = Translation(self.language, self.text, self.audio, self.speaker, self.label_source)
        return type(self)(
            id=self.id,
            split=self.split,
            language=other.language,
            text=other.text,
            audio=other.audio,
            speaker=other.speaker,
            label_source=other.label_source,
            translation=here,
        )


def _name_and_size(path: Path) -> list[object]:
    return [path.name, path.stat().st_size if path.is_file() else None]


Corpus: TypeAlias = Callable[..., Iterator[Record]]
"What a file in data_prep/ offers as `records(...)`: keyword options in, Records out, in a fixed order."
