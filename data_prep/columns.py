"""From the columns of somebody's table to Records: which column is which field, and what is wrong if one is not.

    mapping = ColumnMapping.of({"audio": "path", "text": "sentence"}, header, "clips.tsv", language="fr")
    mapping.record(row, number=3)

A column that has the very name of a field is taken for it; everything else must be said.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechllm.data.records import Record, Translation
from speechllm.errors import DataError, TaskError
from speechllm.registry import suggest
from speechllm.tasks import language_code

FIELDS = (
    "id", "audio", "text", "language", "speaker", "split",
    "translation", "translation_language", "translation_audio", "translation_speaker",
)  # fmt: skip


@dataclass(frozen=True)
class ColumnMapping:
    """Which column holds which field, and what holds for all rows."""

    columns: Mapping[str, str]
    "Column name by field, only columns that are there."
    language: str
    translation_language: str
    split: str
    folder: Path | None
    "Where relative audio paths start."
    where: str
    "Name of the table, for messages."

    @classmethod
    def of(
        cls,
        columns: Mapping[str, str],
        available: Collection[str],
        where: str,
        *,
        language: str = "",
        translation_language: str = "",
        split: str = "train",
        folder: Path | None = None,
    ) -> "ColumnMapping":
        """Check a mapping against the columns that a table has.

        Raises:
            DataError: a field is unknown, a column is missing, or no column or option gives the language.
        """
        there = ", ".join(available)
        for field, column in columns.items():
            if field not in FIELDS:
                raise DataError(f"unknown field {field!r}{suggest(field, FIELDS)} (known: {', '.join(FIELDS)})")
            if column not in available:
                raise DataError(
                    f"{where} has no column {column!r} for {field}{suggest(column, available)} (columns: {there})"
                )
        found = {field: field for field in FIELDS if field in available} | dict(columns)
        if "audio" not in found and "text" not in found:
            raise DataError(
                f"{where} has neither a column for audio nor one for text; name one of its columns: {there}"
            )
        if not language and "language" not in found:
            raise DataError(
                f"{where} has no column for the language; give language=, or name one of its columns: {there}"
            )
        parallel = [field for field in ("translation", "translation_audio") if field in found]
        if parallel and not translation_language and "translation_language" not in found:
            raise DataError(f"{where} has a {parallel[0]} but no language for it; give translation_language=")
        return cls(found, language, translation_language, split, folder, where)

    def record(self, row: Mapping[str, Any], number: int) -> Record:
        """Turn a row (counted from 1) into a Record.

        Raises:
            DataError: its language is unknown, or it has neither text nor audio.
        """
        try:
            return Record(
                id=self._text(row, "id") or f"{number:07d}",
                split=self._text(row, "split") or self.split,
                language=language_code(self._text(row, "language") or self.language),
                text=self._text(row, "text"),
                audio=self._audio(row, "audio"),
                speaker=self._text(row, "speaker"),
                translation=self._translation(row),
            )
        except (TaskError, DataError) as error:
            raise DataError(f"{self.where} row {number}: {error}") from error

    def _translation(self, row: Mapping[str, Any]) -> Translation | None:
        text, audio = self._text(row, "translation"), self._audio(row, "translation_audio")
        if not text and audio is None:
            return None
        language = language_code(self._text(row, "translation_language") or self.translation_language)
        return Translation(language, text, audio, self._text(row, "translation_speaker"))

    def _text(self, row: Mapping[str, Any], field: str) -> str:
        value = row.get(self.columns[field]) if field in self.columns else None
        return "" if value is None else " ".join(str(value).split())

    def _audio(self, row: Mapping[str, Any], field: str) -> bytes | Path | None:
        value = row.get(self.columns[field]) if field in self.columns else None
        if isinstance(value, Mapping):
            # The form of `datasets`: the bytes where they are embedded, else the path.
            value = value.get("bytes") or value.get("path")
        if value is None or isinstance(value, bytes):
            return value
        if not str(value).strip():
            return None
        path = Path(str(value).strip())
        return path if self.folder is None else self.folder / path
