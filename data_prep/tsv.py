"""Tables as corpora ship them: tab-separated, unquoted, with a header or with known columns.

    for row in tsv_rows(lines, "train.tsv", needed=("path", "sentence")): row["sentence"]
    for row in tsv_rows(lines, "dev.tsv", needed=("id",), names=("id", "file_name", "raw_transcription")): ...

A quotation mark is a character like any other (csv.QUOTE_NONE): a sentence such as `5" nails` would otherwise swallow
the lines below it. `unquoted` undoes what the writers of some corpora did to such sentences.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from speechllm.errors import DataError
from speechllm.registry import suggest


def tsv_rows(
    lines: Iterable[str],
    where: str,
    needed: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    delimiter: str = "\t",
    escape: str | None = None,
) -> Iterator[dict[str, str]]:
    """Yield the rows of a table by column.

    Args:
        lines: without line ends.
        where: name of the table, for messages.
        needed: columns that must be there, and filled in every row, if only by an empty text.
        names: the columns, where the first line is a row already.
        delimiter: between cells.
        escape: the character that makes the next one literal.

    Raises:
        DataError: the table is empty, a column is missing, or a row has too many or too few cells.
    """
    reader: csv.DictReader[Any] = csv.DictReader(
        lines, names, delimiter=delimiter, quoting=csv.QUOTE_NONE, escapechar=escape, strict=True
    )
    try:
        columns = reader.fieldnames
        if not columns:
            raise DataError(f"{where} is empty, expected a table with the columns {', '.join(needed)}")
        for name in needed:
            if name not in columns:
                raise DataError(
                    f"{where} has no column {name!r}{suggest(name, columns)} (columns: {', '.join(columns)}); "
                    "is it a file of this corpus, and whole?"
                )
        for row in reader:
            if None in row:
                raise DataError(f"{where} line {reader.line_num} has more cells than there are columns: {len(columns)}")
            if any(row[name] is None for name in needed):
                raise DataError(
                    f"{where} line {reader.line_num} has fewer cells than there are columns: the file is cut short"
                )
            yield {name: value or "" for name, value in row.items()}
    except csv.Error as error:
        raise DataError(f"{where} line {reader.line_num} cannot be read: {error}") from error


def unquoted(text: str) -> str:
    r"""Return a sentence without the marks of a writer that quoted it or doubled its quotation marks.

    `"Say ""no"" now"` and `Say ""no"" now` become `Say "no" now`; one mark alone, as in `5" nails`, stays.
    """
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else None
    if inner is not None and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return text if '"' in text.replace('""', "") else text.replace('""', '"')
