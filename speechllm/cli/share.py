"""Commands that share a checkpoint: push."""

from pathlib import Path
from typing import Annotated

import typer

from speechllm.cli.console import results


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    repository: Annotated[str, typer.Argument(help="name/repository on the Hub; made if there is none.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Who may read a repository made here.")] = True,
    report: Annotated[
        Path | None, typer.Option(help="report.json of `speechllm evaluate`; the model card is made from it.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence of the weights for that card: apache-2.0, cc-by-4.0, ...")
    ] = None,
) -> None:
    """Send a whole checkpoint to the Hugging Face Hub, in one commit.

    Log in first with `hf auth login`, or set HF_TOKEN. A repository that is there already stays as private as it is,
    and keeps its card unless --report makes a new one.

    Example: speechllm push runs/quickstart/checkpoint me/quickstart --report runs/quickstart/report/report.json
    """
    from speechllm.hub import push_checkpoint

    if licence is not None and report is None:
        raise typer.BadParameter("--license goes into the model card, which is made from --report")
    card = None
    if report is not None:
        from speechllm.evaluation.report import read_report_json
        from speechllm.model_card import CardInfo, model_card

        info = CardInfo(model_name=repository.rpartition("/")[2], license=licence)
        card = model_card(read_report_json(report), info)
    results.print(push_checkpoint(folder, repository, private=private, card=card))
