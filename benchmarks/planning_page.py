"""Bring tables in Markdown up to date that a command prints: `speechllm plan` in the docs and in recipes.

    python -m benchmarks.planning_page docs/planning.md recipes/llm_8b/README.md

Such a table stands right below the block of code with its command. Everything else on the page is left as it is.
"""

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from benchmarks.measure import write_text

TABLE = re.compile(r"(?<=^```bash\n)(speechllm plan[^\n]*)\n```\n\n(?:\|[^\n]*\n)+", re.MULTILINE)


def up_to_date(text: str) -> str:
    """Return a page with every table as its command prints it now."""
    return TABLE.sub(lambda found: f"{found[1]}\n```\n\n{printed(found[1])}", text)


def printed(command: str) -> str:
    """Return what a command of ours prints."""
    from speechllm.cli.main import app

    result = CliRunner().invoke(app, shlex.split(command)[1:])
    if result.exit_code != 0:
        raise typer.BadParameter(f"{command!r} fails: {result.output}")
    return result.stdout


def main(pages: Annotated[list[Path], typer.Argument(help="Markdown files.")]) -> None:
    """Write the pages anew."""
    for page in pages:
        write_text(page, up_to_date(page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    typer.run(main)
