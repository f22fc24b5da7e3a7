"""Text without speech, to train on beside it: files of lines, or of JSON rows.

    texts/en.txt         one text a line
    texts/wiki.jsonl     {"text": "Il est midi.", "language": "fr", "split": "train"}      only "text" is needed

    rows = read_plain_text("texts", "train")        # TokenRows without codes, in the order of files and lines

A row without a split belongs to `train`. What else a JSON row holds is not looked at.
(Text data among the training data of AudioPaLM's tasks: arXiv:2306.12925, section 4. Replay against forgetting.)
"""

import json
from collections.abc import Iterator
from pathlib import Path

from speechllm.data.tokenize import TokenRow
from speechllm.errors import DataError

SUFFIXES = (".txt", ".jsonl")


def is_plain_text(source: str | Path) -> bool:
    """Return whether this is a file of text, or a folder that has one directly below it (token shards have none)."""
    return bool(text_files(source))


def read_plain_text(source: str | Path, split: str = "train") -> Iterator[TokenRow]:
    """Yield the texts of a file or of a folder of files that are not empty.

    Raises:
        DataError: a file cannot be read, or a line of a .jsonl file is no row with a text.
    """
    for path in text_files(source):
        try:
            with path.open(encoding="utf-8") as lines:
                yield from _rows(path, lines, split)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise DataError(f"cannot read text from {path}: {reason}") from error


def text_files(source: str | Path) -> list[Path]:
    """Return the files of text that this is, or that lie directly in it."""
    source = Path(source)
    if source.suffix in SUFFIXES:
        return [source]
    return sorted(path for path in source.glob("*") if path.suffix in SUFFIXES) if source.is_dir() else []


def _rows(path: Path, lines: Iterator[str], split: str) -> Iterator[TokenRow]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _json_row(path, number, line) if path.suffix == ".jsonl" else {"text": line}
        if row["text"].strip() and row.get("split", "train") == split:
            text, language = " ".join(row["text"].split()), str(row.get("language", ""))
            yield TokenRow(id=f"{path.name}:{number}", split=split, language=language, text=text)


def _json_row(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number} is no JSON: {error.msg}") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise DataError(
            f'{path}, line {number}: expected a row like {{"text": "good morning"}}, got {line.strip()[:60]!r}'
        )
    return row
