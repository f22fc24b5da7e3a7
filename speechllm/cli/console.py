"""Where the command line writes: results to stdout, progress and messages to stderr."""

from rich.console import Console

console = Console(stderr=True)
results = Console(soft_wrap=True, highlight=False)
