"""Corpus cards: what a corpus is, under which licence, how large, and what is wrong with it, as facts with sources.

    card = CorpusCard(name="fleurs", title="FLEURS", homepage="https://huggingface.co/datasets/google/fleurs", ...)
    print(render_card(card))

A corpus offers its card as a function `card()` beside `records(...)` in its module (docs/extend.md). A figure that
its makers did not publish is left out, not estimated.
"""

from dataclasses import dataclass

from speechllm.errors import DataError
from speechllm.tasks import language_name


@dataclass(frozen=True)
class Figure:
    """A published number, with who published it."""

    value: str
    "As published: `2,880 hours of speech`."
    source: str
    "Paper and section, or page."


@dataclass(frozen=True, kw_only=True)
class CorpusCard:
    """The facts of one corpus."""

    name: str
    "Its name on the command line."
    title: str
    "What people call it."
    summary: str
    "What is in it, in a sentence or two."
    homepage: str
    "Where it is described and found."
    licence: str
    "SPDX id where there is one, otherwise in words."
    licence_note: str = ""
    "Whose licence, and what it asks for."
    languages: tuple[str, ...]
    "ISO codes of what is spoken; empty where that is the user's choice."
    tasks: tuple[str, ...]
    "Tasks whose fields its records have."
    figures: tuple[Figure, ...] = ()
    "Hours, speakers and the like."
    papers: tuple[str, ...] = ()
    "arXiv ids or other references: what to cite."
    layout: str
    "The files that `records` reads."
    hub: str = ""
    "Name on the Hugging Face Hub that `source=hub` streams; empty if it cannot."
    example: str
    "Options after `speechllm prepare NAME OUT`."
    problems: tuple[str, ...] = ()
    "What is known to be wrong, and traps."

    def __post_init__(self) -> None:
        for language in self.languages:
            language_name(language)
        for field in ("name", "title", "summary", "homepage", "licence", "layout", "example"):
            if not getattr(self, field):
                raise DataError(f"the card of {self.name or 'a corpus'} has no {field}")


def render_card(card: CorpusCard) -> str:
    """Return a card as Markdown."""
    languages = ", ".join(f"{language_name(code)} (`{code}`)" for code in card.languages)
    lines = [
        f"## {card.title}",
        "",
        f"`{card.name}` · <{card.homepage}>",
        "",
        card.summary,
        "",
        f"- **Licence**: {card.licence}{'. ' + card.licence_note if card.licence_note else ''}",
        f"- **Languages**: {languages or 'whatever the files are in'}",
        f"- **Tasks**: {', '.join(card.tasks)}",
        *(f"- **Size**: {figure.value} ({figure.source})" for figure in card.figures),
        *([f"- **Cite**: {'; '.join(card.papers)}"] if card.papers else []),
        f"- **Files**: {card.layout}",
        *([f"- **Hub**: `source=hub` streams `{card.hub}`"] if card.hub else []),
        *(f"- **Mind**: {problem}" for problem in card.problems),
        "",
        "```bash",
        f"speechllm prepare {card.name} runs/{card.name} {card.example}",
        "```",
    ]
    return "\n".join(lines) + "\n"


def render_cards(cards: list[CorpusCard]) -> str:
    """Return a page of cards as Markdown: a table of contents, then each card."""
    head = [
        "# Corpora",
        "",
        "Made by `speechllm corpora --markdown`; the facts stand in `card()` of each file in `data_prep/`.",
        "Licences and sizes are as published by the makers; check the licence at its source before you use a corpus.",
        "",
        "| name | corpus | licence | languages | tasks | Hub |",
        "|---|---|---|---:|---|---|",
    ]
    rows = [
        f"| `{card.name}` | {card.title} | {card.licence} | {len(card.languages) or 'any'} | {', '.join(card.tasks)} | "
        f"{'yes' if card.hub else ''} |"
        for card in cards
    ]
    # The tests run the blocks of all pages, but have no corpora.
    shown = [render_card(card).replace("```bash", "<!-- not run: needs the corpus -->\n```bash") for card in cards]
    return "\n".join([*head, *rows, ""]) + "\n" + "\n".join(shown)
