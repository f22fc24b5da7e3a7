"""Write an evaluation as JSON and as one HTML file that needs nothing else: tables, plots, spectrograms, sound.

    write_report(report, "runs/report")          # report.json and report.html; returns the path of the page
    read_report_json("runs/report/report.json")  # the numbers again, as plain data

Every text that comes from data is escaped. Audio is inline FLAC, pictures are inline SVG and PNG.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechllm.audio import Audio, encode_flac
from speechllm.errors import DataError, MissingDependencyError
from speechllm.evaluation.plots import COLOURS, bar_chart, curve, spectrogram
from speechllm.evaluation.results import SYSTEM_MEANING, EvaluationReport, Measurement
from speechllm.metrics.bootstrap import DEFAULT_CONFIDENCE
from speechllm.metrics.score import Score
from speechllm.metrics.text import NO_BLANKS

JSON_FILE, HTML_FILE = "report.json", "report.html"
TEMPLATE_FOLDER = Path(__file__).parent / "templates"


def write_report(report: EvaluationReport, folder: str | Path) -> Path:
    """Write both files, each whole or not at all, and return the path of the HTML page.

    Raises:
        DataError: the folder cannot be written.
        MissingDependencyError: jinja2 or matplotlib is missing.
    """
    folder = Path(folder)
    page = render_html(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False, default=str)
        _write(folder / JSON_FILE, text + "\n")
        _write(folder / HTML_FILE, page)
    except OSError as error:
        raise DataError(f"cannot write the report to {folder}: {error.strerror}") from error
    return folder / HTML_FILE


def read_report_json(path: str | Path) -> dict[str, Any]:
    """Return the content of a report.json.

    Raises:
        DataError: it is missing or no report.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no evaluation report: {error}") from error
    if not isinstance(content, dict) or content.get("format_version") != 1 or "measurements" not in content:
        raise DataError(f"{path} is no evaluation report; expected a {JSON_FILE} that write_report made")
    return content


def render_html(report: EvaluationReport) -> str:
    """Return the page."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError("jinja2", "eval", "writing the report") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = format_number
    used = {m.system for m in report.measurements}
    return environment.get_template("report.html.j2").render(
        report=report,
        headlines=_rows([m for m in report.measurements if _is_headline(m)]),
        tables=_tables(report.measurements),
        charts=_charts(report.measurements),
        curves=[c for stage, rows in report.histories.items() if (c := curve(stage, rows))],
        samples=[_sample(sample) for sample in report.samples],
        colours=COLOURS,
        meaning={name: text for name, text in SYSTEM_MEANING.items() if name in used},
        signatures=_signatures(report.measurements),
        notes=sorted({m.note for m in report.measurements if m.note}),
        unmeasured=sorted({m.score.reason for m in report.measurements if m.score.value is None}),
        confidence=confidence(report.config),
        config=json.dumps(report.config, indent=2, ensure_ascii=False),
    )  # fmt: skip


def confidence(config: Mapping[str, Any]) -> str:
    """Return the confidence of a report's intervals, such as "95 %"."""
    return f"{100 * config.get('bootstrap', {}).get('confidence', DEFAULT_CONFIDENCE):g} %"


def format_number(value: float | None) -> str:
    """Return a value with as many digits as a reader wants."""
    if value is None:
        return "n/a"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.1f}"


@dataclass(frozen=True)
class _Row:
    """A line of a table: one metric of one output, with a score for each system that has one."""

    split: str
    task: str
    direction: str
    output: str
    metric: str
    unit: str
    better: str
    scores: dict[str, Score]


@dataclass(frozen=True)
class _Table:
    title: str
    systems: list[str]
    rows: list[_Row]


HEADLINE = {"transcript": "WER", "translation": "BLEU", "audio": "CER", "translated_audio": "ASR-BLEU"}
"The metric of each output that stands at the top of the page; see `headline`."
OUTPUT_TITLES = {
    "transcript": "Transcripts",
    "translation": "Translations",
    "audio": "Speech from text",
    "translated_audio": "Translated speech",
}


def headline(output: str, direction: str) -> str:
    """Return the name of the metric that stands for an output: CER for transcripts of languages without blanks."""
    language = direction.split("-")[0]
    return "CER" if output == "transcript" and language in NO_BLANKS else HEADLINE[output]


def _is_headline(m: Measurement) -> bool:
    return headline(m.output, m.direction) == m.score.name


def _rows(measurements: Sequence[Measurement]) -> _Table:
    found: dict[tuple[str, ...], _Row] = {}
    for m in measurements:
        key = (m.split, m.task, m.direction, m.output, m.score.name)
        if key not in found:
            better = "higher" if m.score.higher_is_better else "lower"
            found[key] = _Row(*key, m.score.unit, better, {})
        found[key].scores[m.system] = m.score
    systems = [name for name in COLOURS if any(name in row.scores for row in found.values())]
    return _Table("At a glance", systems, list(found.values()))


def _tables(measurements: Sequence[Measurement]) -> list[_Table]:
    tables = []
    for output, title in OUTPUT_TITLES.items():
        mine = [m for m in measurements if m.output == output]
        if mine:
            table = _rows(mine)
            tables.append(_Table(title, table.systems, table.rows))
    return tables


def _charts(measurements: Sequence[Measurement]) -> list[str]:
    charts = []
    for output, title in OUTPUT_TITLES.items():
        mine = [m for m in measurements if m.output == output and _is_headline(m) and m.score.value is not None]
        if mine:
            better = "higher" if mine[0].score.higher_is_better else "lower"
            names = " or ".join(sorted({m.score.name for m in mine}))
            charts.append(bar_chart(mine, f"{title}: {names} ({better} is better)"))
    return charts


def _signatures(measurements: Sequence[Measurement]) -> list[tuple[str, str]]:
    return sorted({(m.score.name, m.score.signature) for m in measurements})


def _sample(sample: Any) -> dict[str, Any]:
    sounds = [
        {
            "name": name,
            "seconds": audio.duration_seconds,
            "picture": spectrogram(audio),
            "sound": _sound(audio),
        }
        for name, audio in sample.audios.items()
    ]
    return {"split": sample.split, "tag": sample.tag, "item": sample.item, "texts": sample.texts, "sounds": sounds}


def _sound(audio: Audio) -> str:
    return f"data:audio/flac;base64,{base64.b64encode(encode_flac(audio)).decode()}"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
