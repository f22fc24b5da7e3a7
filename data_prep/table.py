"""Your own recordings: a CSV, TSV or JSONL file with one utterance per row.

    clips.tsv      path          sentence       client_id
                   0001.mp3      bonjour        anna

    records("clips.tsv", audio="path", text="sentence", language="fr", columns={"speaker": "client_id"})

Audio paths are relative to the table's folder, or to `folder`. A file that is not there, or is no audio, is
counted and named by `prepare_corpus`, which goes on or stops as it was told to.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.columns import ColumnMapping
from speechllm.data.records import Record
from speechllm.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")


def records(
    table: str | Path,
    audio: str | None = None,
    text: str | None = None,
    language: str = "",
    translation: str | None = None,
    translation_language: str = "",
    columns: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
) -> Iterator[Record]:
    """Yield the rows of a table as records, in its order.

    Args:
        table: a .csv, .tsv (first row: names) or .jsonl file.
        audio: the column with paths of audio files; "audio" if there is one of that name.
        text: the column with what is said; "text" if there is one of that name.
        language: of all rows; not needed where a column gives it.
        translation: the column with the text in the other language.
        translation_language: of that text.
        columns: further columns by field: id, language, speaker, split, translation_audio, ...
        folder: where relative paths start; the table's own folder if None.

    Raises:
        DataError: the table cannot be read, a column is missing, or a row's language is unknown.
    """
    table = Path(table)
    given = {"audio": audio, "text": text, "translation": translation}
    named = {field: column for field, column in given.items() if column is not None} | dict(columns or {})
    mapping: ColumnMapping | None = None
    for number, row in enumerate(_rows(table), start=1):
        if mapping is None:
            mapping = ColumnMapping.of(
                named,
                _names(table, row),
                str(table),
                language=language,
                translation_language=translation_language,
                folder=Path(folder) if folder is not None else table.parent,
            )
        if None in row:
            raise DataError(
                f"{table} row {number} has more cells than there are columns; check its quotes and separators"
            )
        yield mapping.record(row, number)
    if mapping is None:
        raise DataError(f"{table} has no rows")


def _names(table: Path, first: Mapping[Any, Any]) -> list[str]:
    """Return the names of all columns: those of the first row, and in JSON lines those that only later rows have."""
    names = dict.fromkeys(name for name in first if name is not None)
    if table.suffix.lower() in JSON_LINES:
        for row in _rows(table):
            names |= dict.fromkeys(row)
    return list(names)


def _rows(table: Path) -> Iterator[dict[Any, Any]]:
    suffix = table.suffix.lower()
    if suffix not in DELIMITERS and suffix not in JSON_LINES:
        raise DataError(f"{table} is {suffix or 'without a suffix'}, expected .csv, .tsv or .jsonl")
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            if suffix in DELIMITERS:
                yield from csv.DictReader(file, delimiter=DELIMITERS[suffix])
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _json_row(table, number, line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {table}: {error}") from error


def _json_row(table: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{table} line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{table} line {number} holds {type(row).__name__}, expected an object of columns")
    return row
