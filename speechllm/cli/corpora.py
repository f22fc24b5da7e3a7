"""The command that shows which corpora can be prepared, and what each of them is.

Corpora are found by entry points (`speechllm.corpora`); the module of each may have a function `card()`.
"""

import importlib
from importlib.metadata import entry_points
from typing import Annotated

import typer
from rich.table import Table

from speechllm.cli.build import find_plugin
from speechllm.cli.console import results
from speechllm.data.cards import CorpusCard, render_card, render_cards


def corpora(
    name: Annotated[str | None, typer.Argument(help="Show the card of this corpus.")] = None,
    markdown: Annotated[bool, typer.Option(help="All cards as one page of Markdown.")] = False,
) -> None:
    """List the corpora that `prepare` reads, or show the card of one: licence, languages, hours, files, traps.

    Example: speechllm corpora covost2
    """
    if name is not None:
        card = card_of(find_plugin("corpora", name).__module__)
        text = render_card(card) if card is not None else f"{name} reads your own data and has no card\n"
        results.print(text, end="")
        return
    found = all_cards()
    cards = [card for card in found.values() if card is not None]
    if markdown:
        results.print(render_cards(cards), end="")
        return
    table = Table("name", "corpus", "licence", "languages", "tasks", box=None)
    for card in cards:
        table.add_row(card.name, card.title, card.licence, str(len(card.languages) or "any"), " ".join(card.tasks))
    for other, card in found.items():
        if card is None:
            table.add_row(other, "your own data", "", "any", "")
    results.print(table)


def all_cards() -> dict[str, CorpusCard | None]:
    """Return the cards of all installed corpora by name; None for those that read a user's own data."""
    points = sorted(entry_points(group="speechllm.corpora"), key=lambda point: point.name)
    return {point.name: card_of(point.module) for point in points}


def card_of(module: str) -> CorpusCard | None:
    """Return the card that a corpus's module offers, or None."""
    make = getattr(importlib.import_module(module), "card", None)
    return make() if make is not None else None
