"""The quickstart's model card, from its report.

python -m recipes.quickstart.card runs/quickstart/report/report.json model_cards/quickstart.md
"""

from pathlib import Path
from typing import Annotated

import typer

from speechllm.model_card import CardInfo, write_model_card

INFO = CardInfo(
    model_name="speechllm quickstart",
    license="apache-2.0",
    languages=("en", "fr"),
    data="1,400 sentences of a small grammar (numbers, dates, places, commands, dialogues) in English and French, "
    "spoken by SVOX Pico (Apache-2.0) in twelve pitches and speeds: 1.8 hours, all synthetic. "
    "No person's voice or text is in it.",
    intended_use="To see every part of a speech language model at work in minutes, and as a fixture for tests.",
    limits=(
        "It knows one grammar and one synthesiser's voices, and is of no use on any other speech.",
        "Its codec is residual k-means over mel patches with Griffin-Lim: intelligible, not pleasant.",
        "French speech is not judged unless a multilingual recogniser is given.",
    ),
)


def main(
    report: Annotated[Path, typer.Argument(help="report.json of a quickstart.")],
    out: Annotated[Path, typer.Argument(help="Where the card goes.")],
) -> None:
    """Write the card."""
    typer.echo(write_model_card(report, INFO, out))


if __name__ == "__main__":
    typer.run(main)
