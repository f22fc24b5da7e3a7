"""A model card for the Hub, written from what was measured: README.md with a model-index, never a number by hand.

    info = CardInfo(model_name="quickstart", license="apache-2.0")
    write_model_card("report/report.json", info, "checkpoint/README.md")

Only scores of the checkpoint itself go into the model-index; ceilings and floors stand beside them in
the tables. Model cards: Mitchell et al. 2019 (arXiv:1810.03993).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from speechllm.evaluation.report import confidence, format_number, headline, read_report_json
from speechllm.evaluation.results import MODEL, SYSTEM_MEANING
from speechllm.tasks import TrainedFor

HUB_TASKS = {
    "transcript": ("automatic-speech-recognition", "Speech recognition"),
    "translation": ("translation", "Translation"),
    "audio": ("text-to-speech", "Text to speech"),
    "translated_audio": ("audio-to-audio", "Speech-to-speech translation"),
}
"Output field -> task id on the Hub and its name."


@dataclass(frozen=True, kw_only=True)
class CardInfo:
    """What a report cannot know."""

    model_name: str
    "Name of the model, without its owner."
    license: str | None
    "Licence of the weights, as an id of the Hub: apache-2.0, cc-by-sa-4.0, ...; None leaves it out."
    languages: Sequence[str] = ()
    "ISO codes; empty: those that it was trained for, or else those in the report."
    base_model: str | None = None
    "Hub id of the text LLM that was extended; None if it began from nothing."
    datasets: Sequence[str] = ()
    "Hub ids of the training data, for its metadata."
    data: str = "Not stated."
    "What the model was trained on, with licences, in words."
    intended_use: str = "Research on speech and text in one model."
    "What it is for."
    limits: Sequence[str] = ()
    "Known limits, beyond those of the evaluation."


def write_model_card(evaluation_json: str | Path, info: CardInfo, path: str | Path) -> Path:
    """Write a README.md with metadata, tables, limits and provenance, whole or not at all.

    Raises:
        DataError: the evaluation is missing or no report.
    """
    path = Path(path)
    text = model_card(read_report_json(evaluation_json), info)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def model_card(
    report: Mapping[str, Any],
    info: CardInfo,
    *,
    trained: TrainedFor | None = None,
    repository: str | None = None,
    remote_code: bool = False,
) -> str:
    """Return the text of the card.

    Args:
        report: content of report.json.
        info: what a report cannot know.
        trained: what the checkpoint was trained for, if it says so: its languages, unless `info` names some.
        repository: name on the Hub, for the lines that show how to use it.
        remote_code: whether it carries its code (`speechllm.remote_code`).
    """
    environment = report["environment"]
    parts = [
        f"---\n{_metadata(report, info, trained).to_yaml()}\n---",
        f"# {info.model_name}",
        "One language model that reads and writes speech and text, made with `speechllm`.",
        f"## Intended use\n\n{info.intended_use}",
        "Not for: speaking in the voice of somebody who did not agree, impersonation, decisions about people.",
        _usage(report, repository or info.model_name, remote_code),
        f"## Data\n\n{info.data}" + ("" if trained is None else f"\n\n{_trained_text(trained)}"),
        f"## Scores\n\nCorpus `{report['corpus'].get('folder', 'unknown')}`, held-out splits. In brackets: "
        f"{confidence(report['config'])} bootstrap interval over the items. Speech is transcribed by a recogniser; "
        "nobody has listened.",
        *_tables(report),
        "What the columns are:\n\n" + "\n".join(f"- **{name}**: {text}" for name, text in SYSTEM_MEANING.items()),
        "Judges: " + ("; ".join(f"{k}: {v}" for k, v in report["judges"].items()) or "no speech was judged") + ".",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in [*info.limits, *report["limits"], *_notes(report)]),
        "## Watermark and consent\n\nGenerated speech carries a watermark unless it is switched off; "
        "`speechllm.safety.detect_watermark` finds it. Its default key is public: it labels honest use and does not "
        "survive an attack. A voice prompt needs the statement that its speaker agreed.",
        "## How the numbers were made\n\n"
        f"    {environment['command']}\n\n"
        f"{environment['time']}, {environment['machine']}, seed {report['config'].get('seed')}; "
        + ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        + ".\n\nSignatures:\n\n"
        + "\n".join(f"- {name}: `{signature}`" for name, signature in _signatures(report)),
    ]
    return "\n\n".join(parts) + "\n"


def _trained_text(trained: TrainedFor) -> str:
    text = f"Tasks and languages of the training: {trained}."
    if trained.longest_seconds is None:
        return text
    return f"{text} The longest speech in it has {trained.longest_seconds:.1f} s; longer recordings are cut at pauses."


def _usage(report: Mapping[str, Any], name: str, remote_code: bool) -> str:
    """Return how to load it, with a language that it knows."""
    codes = sorted(m["direction"] for m in report["measurements"] if m["output"] == "transcript")
    option = f', generate_kwargs={{"language": "{codes[0].partition("-")[0]}"}}' if codes else ""
    text = (
        "## Use\n\n```python\n"
        "import speechllm  # teaches transformers.pipeline about this model\n"
        "from transformers import pipeline\n\n"
        f'recognise = pipeline("automatic-speech-recognition", model="{name}")\n'
        f'recognise("hello.wav"{option})  # {{"text": "..."}}\n```'
    )
    if not remote_code:
        return text
    return (
        f"{text}\n\nWithout speechllm, by the code that lies in `speechllm_code/` (its requirements are in "
        "`speechllm_code/requirements.txt`): leave out the first import and add `trust_remote_code=True`. Read that "
        "code first, and pin a `revision=`."
    )


def _metadata(report: Mapping[str, Any], info: CardInfo, trained: TrainedFor | None) -> ModelCardData:
    measured = {code for m in report["measurements"] for code in m["direction"].split("-")}
    codes = measured if trained is None else trained.languages
    return ModelCardData(
        model_name=info.model_name,
        license=info.license,
        language=list(info.languages) or sorted(codes),
        base_model=info.base_model,
        datasets=list(info.datasets) or None,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        tags=["speechllm", "speech", "speech-translation", "text-to-speech"],
        eval_results=[_result(m, report) for m in _own(report)] or None,
    )


def _own(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the headline measurements of the model that have a value."""
    return [
        m
        for m in report["measurements"]
        if m["system"] == MODEL
        and m["score"]["value"] is not None
        and headline(m["output"], m["direction"]) == m["score"]["name"]
    ]


def _result(measurement: Mapping[str, Any], report: Mapping[str, Any]) -> EvalResult:
    task, task_name = HUB_TASKS[measurement["output"]]
    score, corpus = measurement["score"], str(report["corpus"].get("folder", "unknown"))
    return EvalResult(
        task_type=task,
        task_name=f"{task_name} ({measurement['task']})",
        dataset_type=corpus,
        dataset_name=corpus,
        dataset_config=measurement["direction"],
        dataset_split=measurement["split"],
        metric_type=score["name"].lower(),
        metric_name=f"{score['name']} ({measurement['task']}, {measurement['direction']})",
        metric_value=round(score["value"], 2),
    )


def _tables(report: Mapping[str, Any]) -> list[str]:
    tables = []
    for output, (_, title) in HUB_TASKS.items():
        rows = [m for m in report["measurements"] if m["output"] == output]
        if rows:
            tables.append(f"### {title}\n\n{_table(rows)}")
    return tables


def _table(measurements: Sequence[Mapping[str, Any]]) -> str:
    systems = [name for name in SYSTEM_MEANING if any(m["system"] == name for m in measurements)]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for m in measurements:
        unit = f" ({m['score']['unit']})" if m["score"]["unit"] else ""
        key = (m["split"], m["task"], m["direction"], m["score"]["name"] + unit)
        rows.setdefault(key, {})[m["system"]] = _cell(m["score"])
    header = ["split", "task", "direction", "metric", *systems]
    lines = [header, ["---"] * len(header)]
    lines += [[*key, *(cells.get(system, "") for system in systems)] for key, cells in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(score: Mapping[str, Any]) -> str:
    if score["value"] is None:
        return "not measured"
    interval = score["interval"]
    spread = f" [{format_number(interval[0])}, {format_number(interval[1])}]" if interval else ""
    failed = f", {score['num_failed']} failed" if score["num_failed"] else ""
    return f"{format_number(score['value'])}{spread} (n {score['num_scored']}{failed})"


def _notes(report: Mapping[str, Any]) -> list[str]:
    reasons = {f"Not measured: {m['score']['reason']}" for m in report["measurements"] if m["score"]["value"] is None}
    return sorted({m["note"] for m in report["measurements"] if m["note"]} | reasons)


def _signatures(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return sorted({(m["score"]["name"], m["score"]["signature"]) for m in report["measurements"]})
