"""One table from the reports of several corpora, one for each language, and their mean: how AudioPaLM reports.

    python -m recipes.average_reports runs/covost2/report/*

Each argument is a folder that `speechllm evaluate --out` wrote; rows carry its name. A score that a report lacks is a
dash and counts in no mean; the last line says over how many each mean is. (arXiv:2306.12925, section 5: corpus BLEU of
each language, then the mean over languages.)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from speechllm.evaluation.report import JSON_FILE, read_report_json
from speechllm.evaluation.results import MODEL

HEADLINES = ("WER", "CER", "BLEU", "ASR-BLEU")


def scores_of(folder: Path) -> dict[str, float]:
    """Return the model's scores by task, output and name, as means over splits and directions."""
    found: dict[str, list[float]] = {}
    for one in read_report_json(folder / JSON_FILE)["measurements"]:
        score = one["score"]
        if one["system"] == MODEL and score["name"] in HEADLINES and score["value"] is not None:
            found.setdefault(f"[{one['task']}] {one['output']} {score['name']}", []).append(score["value"])
    return {name: sum(values) / len(values) for name, values in found.items()}


def average_table(folders: Sequence[Path]) -> str:
    """Return the table in Markdown."""
    reports = {folder.name: scores_of(folder) for folder in folders}
    names = sorted({name for scores in reports.values() for name in scores})
    lines = [f"| corpus | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for corpus, scores in reports.items():
        cells = [f"{scores[name]:.1f}" if name in scores else "-" for name in names]
        lines.append(f"| {corpus} | {' | '.join(cells)} |")
    means = []
    for name in names:
        values = [scores[name] for scores in reports.values() if name in scores]
        means.append(f"{sum(values) / len(values):.1f} (of {len(values)})")
    return "\n".join([*lines, f"| mean | {' | '.join(means)} |"])


def main(folders: Annotated[list[Path], typer.Argument(help="Folders with report.json.")]) -> None:
    """Print the table."""
    typer.echo(average_table(folders))


if __name__ == "__main__":
    typer.run(main)
