"""The model card of a recipe that measured how well its model listens, and speaks (`recipes.run_recorded`).

    python -m recipes.listening_card runs/recorded_small/results.json model_cards/recorded_small.yaml \\
        model_cards/recorded_small.md

The results become one evaluation report of the common form: the listening tests with the model, the floor (shuffled
audio) and the ceilings (recognisers on the recordings), then what the reports of the section `evaluation` found. The
YAML holds what no measurement can know (`speechllm.model_card.CardInfo`).
"""

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from speechllm.config import load_config
from speechllm.errors import DataError
from speechllm.evaluation.environment import describe_environment
from speechllm.evaluation.results import MODEL, ORIGINAL, SHUFFLED
from speechllm.model_card import CardInfo, model_card

COMMAND = "python -m recipes.run_recorded recipes/recorded_small/config.yaml"
SYSTEMS = {
    "real": MODEL,
    "characters": MODEL,
    "ceiling": ORIGINAL,
    "second_ceiling": ORIGINAL,
    "shuffled": SHUFFLED,
}
SECOND = "by Moonshine"
NOTES = {"pseudo": "{name}: the references were written by Whisper-base; the score is agreement with it, not accuracy."}


def listening_report(results: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results as the content of a report.json.

    Raises:
        DataError: they are no results of listening tests.
    """
    if "tests" not in results:
        raise DataError(f"results with keys {sorted(results)} are none of listening tests; give a results.json")
    measurements = [m for test in results["tests"] for m in _measurements(test)]
    judges = {m["direction"]: "Whisper, as the ceiling" for m in measurements if m["system"] == ORIGINAL}
    limits = []
    if perplexity := results.get("text_perplexity"):
        limits.append(
            f"Its perplexity on held-out text went from {perplexity['before']:.0f} to {perplexity['after']:.0f}."
        )
    for name, report in results.get("reports", {}).items():
        measurements += [{**m, "split": f"{name}, {m['split']}"} for m in report["measurements"]]
        judges |= report["judges"]
        limits += [limit for limit in report["limits"] if limit not in limits]
    return {
        "format_version": 1, "measurements": measurements, "limits": limits, "judges": judges,
        "corpus": {"folder": "the recipe's corpora"}, "config": {"seed": 0}, "environment": dict(environment),
    }  # fmt: skip


def _measurements(test: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the scores of one listening test."""
    for key, system in SYSTEMS.items():
        if test.get(key) is not None:
            score = test[key]
            yield {
                "split": test["name"],
                "task": "ASR",
                "direction": test["name"].rpartition("-")[2],
                "output": "transcript",
                "system": system,
                "score": {**score, "name": f"{score['name']} {SECOND}"} if key == "second_ceiling" else score,
                "note": NOTES.get(test["label_source"], "").format(name=test["name"]),
            }


def main(
    results: Annotated[Path, typer.Argument(help="results.json of the recipe.")],
    info: Annotated[Path, typer.Argument(help="YAML of CardInfo.")],
    out: Annotated[Path, typer.Argument(help="Where the card goes.")],
) -> None:
    """Write the model card; where the results do not say what made them, run it on their machine."""
    content = json.loads(results.read_text(encoding="utf-8"))
    measured = datetime.datetime.fromtimestamp(results.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")
    environment = content.get("environment") or {**describe_environment(), "command": COMMAND, "time": measured}
    out.write_text(model_card(listening_report(content, environment), load_config(CardInfo, info)), encoding="utf-8")
    typer.echo(out)


if __name__ == "__main__":
    typer.run(main)
