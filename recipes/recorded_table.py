"""The results of a recorded recipe as one page of tables, each figure beside its floor and its ceilings.

    python -m recipes.recorded_table runs/smollm2_whisper_cpu/results.json benchmarks/results/smollm2_whisper.md \\
        --expected recipes/smollm2_whisper/expected.json

Recognition: the model on real and on shuffled audio, the paired difference, what recognisers make of the recordings.
The other tasks: a row for each metric; the columns are the systems that were scored alike. `--expected` also stores the
figures, for those who ask whether theirs are normal.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from speechllm.evaluation.report import format_number
from speechllm.evaluation.results import CODEC_COPY, MODEL, ORIGINAL, RESYNTHESIS, SHUFFLED, SYSTEM_MEANING
from speechllm.training.planning import markdown

COLUMNS = (MODEL, SHUFFLED, RESYNTHESIS, CODEC_COPY, ORIGINAL)
LEFT_OUT = ("chrF", "speaker similarity")
"How scores begin that stand in the report and not on this page."
NOT_MEASURED = "Not measured: the ceiling of translation, text MT of the reference; no MT model was at hand."


def results_page(results: Mapping[str, Any], title: str) -> str:
    """Return the page in Markdown."""
    environment = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    perplexity = results["text_perplexity"]
    parts = [
        f"# {title}",
        f"`{environment['command']}`",
        f"{environment['machine']}, accelerator: {environment['accelerator']}; {environment['time']}; {versions}. "
        "In brackets: 95 % bootstrap interval over the items of this one run.",
        f"## Does it listen?\n\nWord error rate, percent.\n\n{listening_table(results['tests'])}",
        f"Perplexity on held-out text of the corpora, before {perplexity['before']:.0f}, "
        f"after {perplexity['after']:.0f}.",
        *(f"## {name}\n\n{report_table(report)}" for name, report in results["reports"].items()),
        "\n".join(f"- **{name}**: {SYSTEM_MEANING[name]}" for name in COLUMNS),
        "\n".join(f"- {note}" for note in _notes(results["reports"])),
        NOT_MEASURED,
        f"## What it took\n\n{steps_table(results['steps'])}",
    ]
    return "\n\n".join(parts) + "\n"


def listening_table(tests: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each test."""
    header = ["test", "texts by", "items", "real audio", "shuffled (floor)", "real - shuffled", "Whisper", "Moonshine"]
    rows = []
    for test in tests:
        scores = [_as_score(test[n]) for n in ("real", "shuffled", "gain", "ceiling", "second_ceiling")]
        items = str(test["real"]["num_scored"])
        rows.append([test["name"], test["label_source"], items, *(cell(score) for score in scores)])
    return markdown(header, rows)


def report_table(report: Mapping[str, Any]) -> str:
    """Return a row for each metric of each task; columns that no row fills are left out.

    `items` is the model's number, or of what else stands first in the row; cells with another say so.
    """
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for one in report["measurements"]:
        score = one["score"]
        if score["name"].startswith(LEFT_OUT) or one["system"] not in COLUMNS:
            continue
        key = (one["output"], f"[{one['task']}]", one["direction"], score["name"])
        cells = rows.setdefault(key, {"items": str(score["num_scored"])})
        fewer = "" if cells["items"] == str(score["num_scored"]) else f" (n {score['num_scored']})"
        cells[one["system"]] = cell(score) + fewer
    filled = [name for name in COLUMNS if any(name in cells for cells in rows.values())]
    lines = [
        [task, direction, output.replace("_", " "), metric, cells["items"], *(cells.get(name, "") for name in filled)]
        for (output, task, direction, metric), cells in rows.items()
    ]
    return markdown(["task", "direction", "scored", "metric", "items", *filled], lines)


def steps_table(steps: Mapping[str, Mapping[str, float]]) -> str:
    """Return what each step took, in the call that finished it."""
    rows = [[name, f"{step['wall_seconds']:.0f}", f"{step['cpu_seconds']:.0f}"] for name, step in steps.items()]
    total = [str(round(sum(step[kind] for step in steps.values()))) for kind in ("wall_seconds", "cpu_seconds")]
    return markdown(["step", "wall, s", "CPU, s"], [*rows, ["all", *total]])


def cell(score: Mapping[str, Any] | None) -> str:
    """Return a value with its interval; a dash for what was not asked for, n/a for what could not be measured."""
    if score is None:
        return "-"
    if score["value"] is None:
        return "n/a"
    interval = score.get("interval")
    spread = f" [{format_number(interval[0])}, {format_number(interval[1])}]" if interval else ""
    return f"{format_number(score['value'])}{spread}"


def expected_figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return every figure of the page with command, machine and times, as plain data."""
    environment = results["environment"]
    scores = ("real", "characters", "shuffled", "gain", "ceiling", "second_ceiling")
    return {
        "command": environment["command"],
        "machine": environment["machine"],
        "versions": environment["versions"],
        "tests": {test["name"]: {name: cell(_as_score(test[name])) for name in scores} for test in results["tests"]},
        "reports": {
            name: {
                " ".join([m["task"], m["direction"], m["output"], m["score"]["name"], m["system"]]): cell(m["score"])
                for m in report["measurements"]
            }
            for name, report in results["reports"].items()
        },
        "text_perplexity": results["text_perplexity"],
        "steps": results["steps"],
    }


def _as_score(found: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a score, or a paired difference in the form of one."""
    return {**found, "value": found["difference"]} if found is not None and "difference" in found else found


def _notes(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what a reader must know of the scores of each report, once."""
    notes = []
    for name, report in reports.items():
        found = report["measurements"]
        reasons = {f"n/a: {m['score']['reason']}" for m in found if m["score"]["value"] is None}
        said = {part for m in found for part in m["note"].split("; ") if part and not part.startswith("transcribed by")}
        notes += [f"{name}: {note}" for note in sorted(said | reasons)]
    return notes


def main(
    results: Annotated[Path, typer.Argument(help="results.json of the recipe.")],
    out: Annotated[Path, typer.Argument(help="Where the page goes.")],
    title: Annotated[str, typer.Option(help="Heads it.")] = "SmolLM2-135M with Whisper-base tokens",
    expected: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    """Write the page."""
    content = json.loads(results.read_text(encoding="utf-8"))
    out.write_text(results_page(content, title), encoding="utf-8")
    if expected is not None:
        text = json.dumps(expected_figures(content), indent=2, ensure_ascii=False)
        expected.write_text(text + "\n", encoding="utf-8")
    typer.echo(out)


if __name__ == "__main__":
    typer.run(main)
