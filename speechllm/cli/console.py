"""Where the command line writes: results to stdout, progress and messages to stderr.

What is written comes from users and files (paths, transcripts, lists such as `[a, b]`), so neither console reads markup
or emoji codes in it; a style is given by `rich.text.Text`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(stderr=True, markup=False, emoji=False)
results = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def counting(task: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show how far a long task is; yields the function that takes the number of units done so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(pulse_style="cyan"),
        TextColumn(f"{{task.completed:,}} {unit}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(task, total=total)
        yield lambda done: bars.update(bar, completed=done)
