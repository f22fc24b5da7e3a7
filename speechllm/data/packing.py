"""Packing: whole examples laid in rows of `max_tokens`, so that nearly nothing is padding.

    lengths 5 4 3 2 6, max_tokens 8, two rows open at a time
    row A: [5      ]  [5 3    ]  full
    row B: [4      ]  [4 2    ]  emitted when 6 fits nowhere and no more rows may be open
    row C: [6 ...

An example goes into the fullest open row that still has room for it (best fit); when none has, the
fullest row is emitted and a new one opened. Everything follows from the order of the examples alone.
Examples never span rows, so attention can stay inside them (positions restart, see `data.collate`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from torch.utils.data import IterableDataset

from speechllm.errors import ConfigError, DataError
from speechllm.processor import EncodedExample

Row: TypeAlias = list[EncodedExample]
"The examples of one row, in order."
MAX_TOO_LONG_RUN = 10_000
"So many examples in a row without one that fits mean that none ever will."


@dataclass
class PackingReport:
    """What packing did so far."""

    examples: int = 0
    "Examples laid in rows."
    tokens: int = 0
    "Their tokens."
    rows: int = 0
    "Rows emitted."
    capacity: int = 0
    "Tokens that these rows could have held."
    too_long: int = 0
    "Examples longer than a row: left out, and counted here."
    too_long_tags: dict[str, int] = field(default_factory=dict)
    "The same, by task tag."

    @property
    def non_pad_share(self) -> float:
        """Share of the emitted rows that is tokens, 0 before the first row."""
        return self.tokens / self.capacity if self.capacity else 0.0


def pack(
    examples: Iterator[EncodedExample], max_tokens: int, *, open_rows: int = 16, report: PackingReport | None = None
) -> Iterator[Row]:
    """Yield rows of whole examples with at most `max_tokens` tokens; the last rows may be emptier.

    `report` is filled as rows come out.

    Raises:
        ConfigError: `max_tokens` or `open_rows` is below 1.
        DataError: no example fits for a very long time.
    """
    if max_tokens < 1 or open_rows < 1:
        raise ConfigError(f"max_tokens = {max_tokens}, open_rows = {open_rows}: expected at least 1 each")
    report = PackingReport() if report is None else report
    rows: list[tuple[int, Row]] = []
    run = 0
    for example in examples:
        if len(example) > max_tokens:
            run += 1
            report.too_long += 1
            report.too_long_tags[example.tag] = report.too_long_tags.get(example.tag, 0) + 1
            if run >= MAX_TOO_LONG_RUN:
                raise DataError(f"{run} examples in a row are longer than max_tokens = {max_tokens}; raise max_tokens")
            continue
        run = 0
        fitting = [i for i, (used, _) in enumerate(rows) if used + len(example) <= max_tokens]
        if fitting:
            best = max(fitting, key=lambda i: (rows[i][0], -i))
            used, row = rows[best]
            row.append(example)
            rows[best] = (used + len(example), row)
        else:
            if len(rows) == open_rows:
                yield _emit(rows, report, max_tokens)
            rows.append((len(example), [example]))
    while rows:
        yield _emit(rows, report, max_tokens)


def _emit(rows: list[tuple[int, Row]], report: PackingReport, max_tokens: int) -> Row:
    fullest = max(range(len(rows)), key=lambda i: (rows[i][0], -i))
    used, row = rows.pop(fullest)
    report.examples += len(row)
    report.tokens += used
    report.rows += 1
    report.capacity += max_tokens
    return row


class PackedRows(IterableDataset[Row]):
    """An endless torch dataset of packed rows, the same on every pass: what makes skip-and-replay resume exact."""

    def __init__(self, example: Callable[[int], EncodedExample], max_tokens: int, *, open_rows: int = 16):
        super().__init__()
        self.example, self.max_tokens, self.open_rows = example, max_tokens, open_rows
        self.report = PackingReport()

    def __iter__(self) -> Iterator[Row]:
        self.report = PackingReport()
        return pack(self._examples(), self.max_tokens, open_rows=self.open_rows, report=self.report)

    def _examples(self) -> Iterator[EncodedExample]:
        index = 0
        while True:
            yield self.example(index)
            index += 1
