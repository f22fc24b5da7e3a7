"""The picture of windows, streaming, edits and dialogues; every seed a dot.

draw_quality(results, Path("acoustic_quality.png"))
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.acoustic.dialogues import BEFORE, BY_TURNS, ONE_PASS, UNMARKED
from benchmarks.evidence.acoustic.edits import CONVERTED, INFILLED, PASTED, RESPOKEN, SECOND, WHOLE
from benchmarks.evidence.acoustic.plot import bars
from benchmarks.evidence.acoustic.quality import ALL, JUMP, pool
from benchmarks.evidence.acoustic.streaming import OFFLINE, STREAMED
from benchmarks.evidence.acoustic.summary import CER, VOICE, WHERE, Measure, Results, value
from benchmarks.evidence.acoustic.voices import COPY, PROMPTED
from benchmarks.evidence.acoustic.windows import ONE_PASS as WITHOUT_WINDOWS
from benchmarks.evidence.acoustic.windows import WINDOWS
from benchmarks.measure import write_figure

OURS, BESIDE, TARGET = "#2a7f62", "0.5", "#3d6fa5"


def draw_quality(results: Results, path: Path) -> Path:
    """Write the picture (PNG, below 100 kB)."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    panels, pooled = figure.subplots(2, 4), pool(results)
    for row, (split, where) in enumerate(WHERE.items()):
        _dialogues(panels[row, 0], results, split, where)
        _conversion(panels[row, 1], results, split, where)
    sides = [
        (name, f"{start}/{name}", colour)
        for start, systems in (
            (f"windows/{ALL}/{PROMPTED}", (WINDOWS, WITHOUT_WINDOWS)),
            (f"streaming/{ALL}", (STREAMED, OFFLINE)),
            ("infilling", (INFILLED, SECOND, PASTED, WHOLE)),
        )
        for name, colour in zip(systems, (OURS, BESIDE, BESIDE, BESIDE), strict=False)
    ]
    for panel, measure, what in ((panels[0, 2], CER, "cer"), (panels[1, 2], JUMP, "jump")):
        bars(panel, [(name, _values(pooled, f"{key}/{what}", measure), colour) for name, key, colour in sides])
        panel.set_title(f"windows, streaming, a span said anew\n{measure.label}, {measure.unit}", fontsize=8)
    nearer = Measure(label="", scale=100)
    for panel, (split, where) in zip(panels[:, 3], WHERE.items(), strict=True):
        systems = (ONE_PASS, BY_TURNS, BEFORE, UNMARKED, COPY)
        shown = [(name, _values(results, f"dialogues/{split}/{name}/nearer", nearer), OURS) for name in systems]
        bars(panel, shown)
        panel.set_title(f"dialogues: turns nearer to their own speaker, %\n{where}", fontsize=8)
    for panel in panels.flat:
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    return write_figure(path, figure, dpi=60)


def _dialogues(panel: Any, results: Results, split: str, where: str) -> None:
    shown = [
        (f"{name}, {what.split()[0]}", _values(results, f"dialogues/{split}/{name}/{what}", VOICE), colour)
        for name in (ONE_PASS, BY_TURNS, COPY)
        for what, colour in (("own voice", OURS), ("other voice", BESIDE))
    ]
    bars(panel, shown)
    panel.set_title(f"dialogues: similarity of a turn to both speakers\n{where}", fontsize=8)


def _conversion(panel: Any, results: Results, split: str, where: str) -> None:
    shown = [
        (f"{name}, {what.split()[0]}", _values(results, f"conversion/{split}/{name}/{what}", VOICE), colour)
        for name in (COPY, RESPOKEN, CONVERTED)
        for what, colour in (("source voice", BESIDE), ("target voice", TARGET))
    ]
    bars(panel, shown)
    panel.set_title(f"conversion: similarity to source and target\n{where}", fontsize=8)


def _values(results: Results, key: str, measure: Measure) -> Sequence[float]:
    return [value(measure, series[key]) for series in results.values() if key in series]
