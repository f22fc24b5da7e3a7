"""The picture of the miniature: every seed a dot, the mean a bar, one panel for each finding and measure.

draw(findings, Path("audiopalm.png"))
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evidence.summary import Finding
from benchmarks.measure import write_figure

BETTER, WORSE = "#2a7f62", "#b0643c"


def draw(findings: Sequence[Finding], path: Path) -> Path:
    """Write the picture of all findings on unseen sentences by known speakers (PNG, below 100 kB)."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    shown = [finding for finding in findings if "speakers" not in finding.claim.measure]
    figure = Figure(figsize=(2.4 * len(shown), 3.4), layout="constrained")
    for axis, finding in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        claim = finding.claim
        sides = ((claim.worse.label, finding.worse, WORSE), (claim.better.label, finding.better, BETTER))
        for x, (_, values, colour) in enumerate(sides):
            axis.bar(x, statistics.mean(values), width=0.6, color=colour, alpha=0.35)
        for low, high in zip(finding.worse, finding.better, strict=True):
            axis.plot([0, 1], [low, high], color="0.6", linewidth=0.8, zorder=2)
            axis.scatter([0, 1], [low, high], color=[WORSE, BETTER], s=16, zorder=3)
        axis.set_xticks([0, 1], [label for label, _, _ in sides])
        axis.set_xlim(-0.6, 1.6)
        axis.set_ylim(bottom=0)
        better = "higher" if claim.better.field == "translation" else "lower"
        axis.set_title(f"{claim.finding}\n{claim.measure.split(',')[0]} ({better} is better)", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    return write_figure(path, figure, dpi=80)
