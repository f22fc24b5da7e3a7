"""The model card of a recipe that measured how well its model listens (`recipes.listening`).

    python -m recipes.listening_card runs/recorded_small/results.json model_cards/recorded_small.yaml \\
        model_cards/recorded_small.md

The results become an evaluation report of the common form: the model, the floor (shuffled audio) and the ceiling
(Whisper on the recordings). The YAML holds what no measurement can know (`speechllm.model_card.CardInfo`).
"""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from speechllm.config import load_config
from speechllm.errors import DataError
from speechllm.evaluation.environment import describe_environment
from speechllm.evaluation.results import MODEL, ORIGINAL, SHUFFLED
from speechllm.model_card import CardInfo, model_card

COMMAND = "python -m recipes.run_recorded recipes/recorded_small/config.yaml"
SYSTEMS = {"real": MODEL, "characters": MODEL, "ceiling": ORIGINAL, "shuffled": SHUFFLED}
NOTES = {"pseudo": "{name}: the references were written by Whisper-base; the score is agreement with it, not accuracy."}


def listening_report(results: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results as the content of a report.json.

    Raises:
        DataError: they are no results of listening tests.
    """
    if "tests" not in results:
        raise DataError(f"results with keys {sorted(results)} are none of listening tests; give a results.json")
    measurements = [
        {
            "split": test["name"],
            "task": "ASR",
            "direction": test["name"].rpartition("-")[2],
            "output": "transcript",
            "system": system,
            "score": test[key],
            "note": NOTES.get(test["label_source"], "").format(name=test["name"]),
        }
        for test in results["tests"]
        for key, system in SYSTEMS.items()
        if test[key] is not None
    ]
    limits = []
    if perplexity := results.get("text_perplexity"):
        limits.append(
            f"Its perplexity on held-out text rose from {perplexity['before']:.0f} to {perplexity['after']:.0f}: of "
            "its short pretraining on text little is left."
        )
    return {
        "format_version": 1, "measurements": measurements, "limits": limits,
        "judges": {m["direction"]: "Whisper, as the ceiling" for m in measurements if m["system"] == ORIGINAL},
        "corpus": {"folder": "listening tests"}, "config": {"seed": 0}, "environment": dict(environment),
    }  # fmt: skip


def main(
    results: Annotated[Path, typer.Argument(help="results.json of the recipe.")],
    info: Annotated[Path, typer.Argument(help="YAML of CardInfo.")],
    out: Annotated[Path, typer.Argument(help="Where the card goes.")],
) -> None:
    """Write the model card; run it on the machine, and in the environment, that made the results."""
    content = json.loads(results.read_text(encoding="utf-8"))
    measured = datetime.datetime.fromtimestamp(results.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")
    environment = {**describe_environment(), "command": COMMAND, "time": measured}
    out.write_text(model_card(listening_report(content, environment), load_config(CardInfo, info)), encoding="utf-8")
    typer.echo(out)


if __name__ == "__main__":
    typer.run(main)
