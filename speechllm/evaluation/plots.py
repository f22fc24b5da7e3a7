"""Pictures for the report, as data URIs: bars with intervals, training curves, spectrograms.

Figures are made without pyplot, so nothing global changes.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speechllm.audio import Audio
from speechllm.errors import MissingDependencyError
from speechllm.evaluation.results import CODEC_COPY, MODEL, ORIGINAL, OTHERS, RESYNTHESIS, SHUFFLED, Measurement

COLOURS = {
    MODEL: "#2563eb",
    ORIGINAL: "#15803d",
    CODEC_COPY: "#65a30d",
    RESYNTHESIS: "#ca8a04",
    SHUFFLED: "#b91c1c",
    OTHERS: "#b91c1c",
}
"One colour for each system: blue is under test, greens are ceilings, red is a floor."


def bar_chart(measurements: Sequence[Measurement], title: str) -> str:
    """Return horizontal bars with intervals, one group for each task and direction, one bar for each system."""
    shown = [m for m in measurements if m.score.value is not None]
    groups = list(dict.fromkeys(_group(m) for m in shown))
    systems = [name for name in COLOURS if any(m.system == name for m in shown)]
    height = 0.22 * len(groups) * len(systems) + 0.25 * len(groups) + 0.9
    figure, axes = _figure(7.2, height)
    slot = {group: i * (len(systems) + 1.2) for i, group in enumerate(groups)}
    for number, system in enumerate(systems):
        mine = [m for m in shown if m.system == system]
        values = np.array([m.score.value for m in mine], dtype=float)
        places = [slot[_group(m)] + number for m in mine]
        axes.barh(places, values, height=0.86, color=COLOURS[system], label=system, zorder=2)
        for place, value, m in zip(places, values, mine, strict=True):
            low, high = m.score.interval or (value, value)
            axes.plot([low, high], [place, place], color="#111827", linewidth=1.1, zorder=3)
            axes.annotate(
                f" {value:.3g}", (max(value, high), place), va="center", fontsize=7, color="#374151",
            )  # fmt: skip
    axes.set_yticks([slot[g] + (len(systems) - 1) / 2 for g in groups], groups, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _svg(figure)


def curve(stage: str, rows: Sequence[Mapping[str, float | int]]) -> str | None:
    """Return the loss curves of a stage: every column whose name contains "loss" against `step`. None without any."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if "loss" in name]
    if not names:
        return None
    figure, axes = _figure(5.2, 2.8)
    for name in names:
        points = [(row.get("step", i), row[name]) for i, row in enumerate(rows) if name in row]
        axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1.2, label=name)
    axes.set_xlabel("step", fontsize=8)
    axes.set_title(stage, fontsize=10, loc="left", fontweight="bold")
    axes.legend(fontsize=7, frameon=False)
    return _svg(figure)


def spectrogram(audio: Audio) -> str:
    """Return a log-frequency-power picture of the audio up to 8 kHz, 80 dB deep."""
    from matplotlib.figure import Figure

    heard = audio.resampled(16_000).samples
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(heard, 256), 512)[::128]
    power = np.abs(np.fft.rfft(frames * np.hanning(512), axis=1)).T ** 2
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    figure = Figure(figsize=(3.4, 1.15), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    top = float(decibels.max())
    axes.imshow(decibels, origin="lower", aspect="auto", cmap="magma", vmin=top - 80, vmax=top)
    axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _group(m: Measurement) -> str:
    return f"{m.task} {m.direction}\n{m.split}"


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "eval", "drawing the report") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.7, zorder=0)
    axes.tick_params(labelsize=8)
    return figure, axes


def _svg(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
