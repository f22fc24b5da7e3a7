"""The picture of the miniature: voices, drift along half a minute, iterations, and tokens; every seed a dot or a line.

draw(results, budget, Path("acoustic.png"))
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.acoustic.long_speech import SEGMENT_SECONDS
from benchmarks.evidence.acoustic.plan import Budget
from benchmarks.evidence.acoustic.summary import (
    ABX,
    CER,
    MODELS,
    VOICE,
    WHERE,
    Measure,
    Results,
    drift_curve,
    value,
)
from benchmarks.evidence.acoustic.tokens import KINDS
from benchmarks.evidence.acoustic.voices import COPY, FLOOR, PROMPTED
from benchmarks.measure import write_figure

COLOURS = {"AudioLM": "#b0643c", "SoundStorm": "#2a7f62", COPY: "0.5"}


def draw(results: Results, budget: Budget, path: Path) -> Path:
    """Write the picture (PNG, below 100 kB)."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = figure.subplots(2, 4)
    for column, (split, where) in enumerate(WHERE.items()):
        _voices(panels[0, column], results, split, where)
        _drift(panels[1, column], results, split, where)
    _iterations(panels[0, 2], results, budget, CER, "cer", "CER, %")
    _iterations(panels[1, 2], results, budget, VOICE, "own voice", "similarity to the prompt")
    _tokens(panels[0, 3], results, ("abx within", "abx across", "abx against the voice"), ABX, "ABX error, %")
    _tokens(panels[1, 3], results, ("log-mel distance",), Measure(label=""), "log-mel distance to the original, dB")
    for panel in panels.flat:
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    return write_figure(path, figure, dpi=60)


def bars(panel: Any, shown: Sequence[tuple[str, Sequence[float], str]]) -> None:
    """Draw (label, a value for each seed, colour): the mean as a bar, every seed as a dot."""
    shown = [bar for bar in shown if len(bar[1])]
    for x, (_, values, colour) in enumerate(shown):
        panel.bar(x, np.mean(values), width=0.6, color=colour, alpha=0.35)
        panel.scatter([x] * len(values), values, color=colour, s=12, zorder=3)
    panel.set_xticks(range(len(shown)), [label for label, _, _ in shown], rotation=20, ha="right")


def _voices(panel: Any, results: Results, split: str, where: str) -> None:
    found = []
    shown = [("another", FLOOR, "0.5"), ("copy", COPY, "0.5")]
    for model in MODELS:
        shown[1:1] = [(model, model, COLOURS[model]), (f"{model}, prompt", f"{model} {PROMPTED}", COLOURS[model])]
    for label, name, colour in shown:
        key = f"voices/{split}/{name}/own voice"
        found.append((label, [value(VOICE, series[key]) for series in results.values()], colour))
    bars(panel, found)
    panel.set_title(f"similarity to the own voice\n{where}", fontsize=8)


def _drift(panel: Any, results: Results, split: str, where: str) -> None:
    for system in (COPY, *MODELS):
        curves = [np.nanmean(drift_curve(series, f"long/{split}/{system}"), axis=1) for series in results.values()]
        seconds = SEGMENT_SECONDS * (np.arange(len(curves[0])) + 0.5)
        for curve in curves:
            panel.plot(seconds, curve, color=COLOURS[system], linewidth=0.6, alpha=0.6)
        panel.plot(seconds, np.mean(curves, axis=0), color=COLOURS[system], linewidth=2, label=system)
    panel.legend(fontsize=6, frameon=False)
    panel.set_xlabel("s", fontsize=7)
    panel.set_title(f"similarity to the prompt along the output\n{where}", fontsize=8)


def _iterations(panel: Any, results: Results, budget: Budget, measure: Measure, what: str, title: str) -> None:
    curves = [
        [value(measure, series[f"iterations/{n}/{what}"]) for n in budget.iterations] for series in results.values()
    ]
    places = np.arange(len(budget.iterations))
    for curve in curves:
        panel.plot(places, curve, color=COLOURS["SoundStorm"], linewidth=0.6, alpha=0.6)
    panel.plot(places, np.mean(curves, axis=0), color=COLOURS["SoundStorm"], linewidth=2)
    panel.set_xticks(places, [str(n) for n in budget.iterations])
    panel.set_title(f"SoundStorm, iterations of the first level\n{title}", fontsize=8)


def _tokens(panel: Any, results: Results, whats: Sequence[str], measure: Measure, title: str) -> None:
    found = []
    for what in whats:
        for kind, colour in zip(KINDS, ("#3d6fa5", "#d09a6f", "#b0643c"), strict=True):
            values = [value(measure, series[f"tokens/{what}/{kind}"]) for series in results.values()]
            place = f", {what.split()[1]}" if len(whats) > 1 else ""
            found.append((f"{kind.replace('acoustic, coarse levels', 'coarse')}{place}", values, colour))
    bars(panel, found)
    panel.set_title(f"tokens\n{title}", fontsize=8)
