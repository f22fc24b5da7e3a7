"""The README's table of results, from the reports of several seeds.

    python -m recipes.quickstart.summary runs/quickstart runs/quickstart-1 --expected recipes/quickstart/expected.json

Each argument is the folder of a finished quickstart; the table has one column for each, and one for what is wanted.
`--expected` also stores the figures, with machine and versions, for those who ask whether theirs are normal.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer


@dataclass(frozen=True)
class Row:
    """One line of the table: which measurements (averaged over directions), and what is wanted of them."""

    label: str
    split: str
    task: str
    directions: tuple[str, ...]
    output: str
    system: str
    metric: str
    wanted: str = ""


BOTH, PAIRS = ("en", "fr"), ("en-fr", "fr-en")
ROWS = (
    Row("ASR, unseen sentences: WER", "test", "ASR", BOTH, "transcript", "model", "WER", "at most 10"),
    Row("… with the audio of another sentence (floor)", "test", "ASR", BOTH, "transcript", "shuffled audio", "WER"),
    Row("ASR, unseen voices: WER", "test_speakers", "ASR", BOTH, "transcript", "model", "WER", "at most 25"),
    Row("AST, unseen sentences: BLEU", "test", "AST", PAIRS, "translation", "model", "BLEU", "at least 70"),
    Row("MT, unseen sentences: BLEU", "test", "MT", PAIRS, "translation", "model", "BLEU"),
    Row("TTS English: CER by Moonshine", "test", "TTS", ("en",), "audio", "model", "CER", "codec copy + 15"),
    Row("… semantic codes of the recording", "test", "TTS", ("en",), "audio", "resynthesis", "CER"),
    Row("… codec copy (ceiling)", "test", "TTS", ("en",), "audio", "codec copy", "CER"),
    Row("… original speech (ceiling)", "test", "TTS", ("en",), "audio", "original speech", "CER"),
    Row("S2ST fr-en, chain: ASR-BLEU by Moonshine", "test", "ASR AST S2ST", ("fr-en",), "translated_audio", "model",
        "ASR-BLEU", "60 % of codec copy"),
    Row("… direct", "test", "S2ST", ("fr-en",), "translated_audio", "model", "ASR-BLEU"),
    Row("… codec copy (ceiling)", "test", "ASR AST S2ST", ("fr-en",), "translated_audio", "codec copy", "ASR-BLEU"),
    Row("… original speech (ceiling)", "test", "ASR AST S2ST", ("fr-en",), "translated_audio", "original speech",
        "ASR-BLEU"),
)  # fmt: skip


def summarise(folders: Sequence[str | Path]) -> str:
    """Return the table in Markdown; a measurement that a report lacks is a dash."""
    reports = [_report(Path(folder)) for folder in folders]
    names = " | ".join(f"seed {_seed(folder)}" for folder in folders)
    lines = [f"| | {names} | wanted |", f"|---|{'---:|' * len(folders)}---|"]
    for row in ROWS:
        values = " | ".join(_value(report, row) for report in reports)
        lines.append(f"| {row.label} | {values} | {row.wanted} |")
    minutes = " | ".join(_minutes(Path(folder)) for folder in folders)
    return "\n".join([*lines, f"| minutes from clone to report, installation apart | {minutes} | at most 10 |"])


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "report" / "report.json"
    if not path.is_file():
        raise typer.BadParameter(f"{path} is missing; give folders of finished quickstarts")
    return json.loads(path.read_text(encoding="utf-8"))


def _value(report: dict[str, Any], row: Row) -> str:
    scores = [
        measurement["score"]["value"]
        for measurement in report["measurements"]
        if (measurement["split"], measurement["task"], measurement["output"], measurement["system"])
        == (row.split, row.task, row.output, row.system)
        and measurement["direction"] in row.directions
        and measurement["score"]["name"] == row.metric
    ]
    if len(scores) != len(row.directions) or None in scores:
        return "-"
    return f"{sum(scores) / len(scores):.1f}"


def _seed(folder: str | Path) -> int:
    import yaml

    return yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))["seed"]


def _minutes(folder: Path) -> str:
    """Return the wall-clock minutes of a run in one go, from its first step to its last; a dash for another."""
    path = folder / "steps" / "total.json"
    return f"{json.loads(path.read_text(encoding='utf-8'))['wall_seconds'] / 60:.1f}" if path.exists() else "-"


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished quickstarts.")],
    expected: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    """Print the table."""
    typer.echo(summarise(folders))
    if expected is not None:
        expected.write_text(json.dumps(figures(folders), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def figures(folders: Sequence[str | Path]) -> dict[str, Any]:
    """Return every row's value by seed, with the command, the machine and what each step took."""
    runs = {}
    for folder in map(Path, folders):
        report = _report(folder)
        steps = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((folder / "steps").glob("*.json"))}
        runs[f"seed {_seed(folder)}"] = {
            "scores": {
                f"{row.task} {row.output} {row.system} {row.split} {row.metric}": _value(report, row) for row in ROWS
            },
            "steps": steps,
            "machine": report["environment"]["machine"],
            "versions": report["environment"]["versions"],
        }
    return {"command": "speechllm quickstart seed=N", "runs": runs}


if __name__ == "__main__":
    typer.run(main)
