"""The picture of AudioLM's language: pairs of sentences, what is heard of continuations, letters in tokens.

draw_language(results, Path("acoustic_language.png"))
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence.acoustic.continuations import COPY, KNOWN, OURS, RANDOM, REAL, WAY
from benchmarks.evidence.acoustic.language_summary import FROM_GRAMMAR, RIGHT, WORDS
from benchmarks.evidence.acoustic.likelihoods import FREQUENCIES, SUM
from benchmarks.evidence.acoustic.phones import KNOWN_SPEAKERS, UNSEEN_SPEAKERS
from benchmarks.evidence.acoustic.plot import bars as show_bars
from benchmarks.evidence.acoustic.summary import ABX, WHERE, Measure, Results, value
from benchmarks.evidence.acoustic.tokens import ACROSS, KINDS, WITHIN
from benchmarks.evidence.acoustic.word_pairs import KINDS as PAIRS
from benchmarks.measure import write_figure

TOKENS = dict(zip(KINDS, ("#3d6fa5", "#d09a6f", "#b0643c"), strict=True))
SYSTEMS = {COPY: "0.5", REAL: "#d09a6f", OURS: "#b0643c", RANDOM: "0.3"}
SCORERS = {SUM: "#b0643c", FREQUENCIES: "0.5"}


def draw_language(results: Results, path: Path) -> Path:
    """Write the picture (PNG, below 100 kB)."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = figure.subplots(2, 3)
    pairs = [(kind, f"likelihoods/{kind}/{scorer}", SCORERS[scorer]) for kind in PAIRS for scorer in SCORERS]
    _draw(panels[0, 0], results, RIGHT, pairs, "the right sentence is likelier, %")
    panels[0, 0].axhline(50, color="0.3", linewidth=0.6, linestyle="--")
    _explain(panels[0, 0], [(SUM, SCORERS[SUM]), ("by frequencies of codes", SCORERS[FREQUENCIES])])
    measures = ((WORDS, KNOWN, "words that the grammar has, %"), (FROM_GRAMMAR, WAY, "way to the grammar, %"))
    for column, (split, where) in enumerate(WHERE.items(), start=1):
        for row, (measure, what, title) in enumerate(measures):
            bars = [(name, f"continuations/{split}/{name}/{what}", colour) for name, colour in SYSTEMS.items()]
            _draw(panels[row, column], results, measure, bars, f"continuations, {where}\n{title}")
    places = [f"{place}, {group}" for group in (KNOWN_SPEAKERS, UNSEEN_SPEAKERS) for place in (WITHIN, ACROSS)]
    letters = [(place, f"phones/{place}/{kind}", TOKENS[kind]) for place in places for kind in KINDS]
    _draw(panels[1, 0], results, ABX, letters, "letters in context, ABX error, %")
    _explain(panels[1, 0], TOKENS.items())
    for panel in panels.flat:
        panel.tick_params(labelsize=6)
        panel.spines[["top", "right"]].set_visible(False)
    return write_figure(path, figure, dpi=60)


def _draw(panel: Any, results: Results, measure: Measure, bars: Sequence[tuple[str, str, str]], title: str) -> None:
    """Draw bars of (label, series, colour); of neighbours with one label the first is labelled."""
    labels = [label for label, _, _ in bars]
    shown = []
    for place, (label, key, colour) in enumerate(bars):
        is_first = place == 0 or labels[place - 1] != label
        shown.append((label if is_first else "", [value(measure, series[key]) for series in results.values()], colour))
    show_bars(panel, shown)
    panel.set_title(title, fontsize=8)


def _explain(panel: Any, colours: Iterable[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, alpha=0.6, label=label) for label, colour in colours]
    panel.legend(handles=handles, fontsize=6, frameon=False)
