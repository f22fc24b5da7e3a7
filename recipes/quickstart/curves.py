"""The table of normal losses in docs/normal.md, from finished quickstarts.

    python -m recipes.quickstart.curves runs/quickstart runs/quickstart-1

One row for each stage and loss; the columns are shares of its training, the entries the runs in the order given.
"""

from pathlib import Path
from typing import Annotated

import typer

from recipes.quickstart.steps import history_files, read_history

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
LOSSES = {
    "CTC encoder": ("loss",),
    "SoundStorm": ("loss", "cross_entropy"),
    "text LM": ("loss",),
    "speech LM": ("loss_text", "loss_audio", "loss_text/ASR", "loss_audio/TTS"),
}


def curves(folders: list[Path]) -> str:
    """Return the table as markdown."""
    lines = [f"| stage | loss | {' | '.join(f'{share:.0%}' for share in SHARES)} |", "|---|---" + "|---:" * 5 + "|"]
    histories = [{stage: read_history(path) for stage, path in history_files(folder).items()} for folder in folders]
    for stage, names in LOSSES.items():
        for name in names:
            columns = [" / ".join(f"{_at(run[stage], share)[name]:.2f}" for run in histories) for share in SHARES]
            lines.append(f"| {stage} | `{name}` | {' | '.join(columns)} |")
    return "\n".join(lines)


def _at(rows: list[dict[str, float]], share: float) -> dict[str, float]:
    """Return the logged row nearest to a share of the steps."""
    return min(rows, key=lambda row: abs(row["step"] - share * rows[-1]["step"]))


def main(folders: Annotated[list[Path], typer.Argument(help="Folders of finished quickstarts.")]) -> None:
    """Print the table."""
    typer.echo(curves(folders))


if __name__ == "__main__":
    typer.run(main)
