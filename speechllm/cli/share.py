"""Commands that share what was made: push, export."""

from pathlib import Path
from typing import Annotated

import typer

from speechllm.cli.console import results


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a checkpoint, adapters, a part, or a corpus.")],
    repository: Annotated[str, typer.Argument(help="name/repository on the Hub; made if there is none.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Who may read a repository made here.")] = True,
    report: Annotated[
        Path | None, typer.Option(help="report.json of `speechllm evaluate`; the model card is made from it.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence of the weights for that card: apache-2.0, cc-by-4.0, ...")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="YAML for that card: data, intended_use, limits, base_model, ... (`CardInfo`).")
    ] = None,
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="Send our code along, for those without speechllm (see export).")
    ] = False,
) -> None:
    """Send a checkpoint, or another folder that speechllm made, to the Hugging Face Hub, in one commit.

    Log in first with `hf auth login`, or set HF_TOKEN. A repository that is there already stays as private as it is,
    and keeps its card unless --report makes a new one. Corpora and tokens become datasets.

    Example: speechllm push runs/quickstart/checkpoint me/quickstart --report runs/quickstart/report/report.json
    """
    from speechllm.sharing import push_folder

    if report is None and (licence is not None or card is not None):
        raise typer.BadParameter("--license and --card go into the model card, which is made from --report")
    text = None if report is None else _card(report, repository, licence, card, remote_code, folder)
    if not remote_code:
        results.print(push_folder(folder, repository, private=private, card=text))
        return
    from speechllm.hub import checkpoint_folder, push_checkpoint
    from speechllm.remote_code import remote_code_files

    extra = remote_code_files(checkpoint_folder(folder))
    results.print(push_checkpoint(folder, repository, private=private, card=text, extra=extra))


def export(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.")],
    out: Annotated[Path, typer.Argument(help="Folder of the copy.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None,
) -> None:
    """Copy a checkpoint together with our code, for transformers without speechllm.

    The copy works in `transformers.pipeline(task, model=..., trust_remote_code=True)`; what must be installed stands in
    its speechllm_code/requirements.txt. Without that argument no code of it is run.

    Example: speechllm export runs/quickstart/checkpoint runs/quickstart/exported
    """
    from speechllm.remote_code import export_checkpoint

    results.print(export_checkpoint(model, out, revision=revision))


def _card(
    report: Path, repository: str, licence: str | None, card: Path | None, remote_code: bool, folder: Path
) -> str:
    import dataclasses

    from speechllm.config import load_config
    from speechllm.evaluation.report import read_report_json
    from speechllm.hub import read_trained
    from speechllm.model_card import CardInfo, model_card
    from speechllm.processor import MANIFEST_FILE, read_manifest

    name = repository.rpartition("/")[2]
    info = load_config(CardInfo, card) if card is not None else CardInfo(model_name=name, license=None)
    if licence is not None:
        info = dataclasses.replace(info, license=licence)
    trained = read_trained(read_manifest(folder)) if (folder / MANIFEST_FILE).exists() else None
    return model_card(read_report_json(report), info, trained=trained, repository=repository, remote_code=remote_code)
