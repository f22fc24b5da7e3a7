"""Commands that offer a checkpoint to others: serve, demo."""

import logging
import os
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from speechllm.cli.console import console
from speechllm.cli.use import AllowUntrained, Device, Vad, load_system


def serve(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Limits to change, see docs/serving.md.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    voices: Annotated[Path | None, typer.Option(help="YAML of voices that requests may name.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of limits.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="SPEECHLLM_API_KEY", help="Key that requests must carry; better in the variable."),
    ] = None,
    device: Device = "cpu",
    vad: Vad = "energy",
    allow_untrained: AllowUntrained = False,
) -> None:
    """Serve a checkpoint over HTTP as OpenAI's audio interface: transcriptions, translations, speech.

    Example: speechllm serve runs/quickstart/checkpoint --port 8000 name=quickstart max_batch=8
    """
    from speechllm.config import apply_overrides, build_config, load_config
    from speechllm.errors import MissingDependencyError
    from speechllm.serving.config import ServeConfig, load_voices

    try:
        from speechllm.serving.server import serve as run
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "fastapi", "serve", "speechllm serve") from error

    given = [f"host={host!r}", f"port={port}", *(overrides or [])]
    settings = (
        load_config(ServeConfig, config, given) if config else build_config(ServeConfig, apply_overrides({}, given))
    )
    registered = load_voices(voices) if voices else {}
    system = load_system(model, device, allow_untrained=allow_untrained, vad=vad)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not api_key and settings.host not in ("127.0.0.1", "localhost", "::1"):
        console.print(f"anybody who reaches {settings.host} can use this server; set SPEECHLLM_API_KEY")
    run(
        system, settings, voices=registered, api_key=api_key,
        started=lambda address: console.print(f"serving {settings.name} at {address}/v1", highlight=False),
    )  # fmt: skip


def demo(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id.")],
    acoustic: Annotated[
        list[Path] | None, typer.Option(help="Folder of another acoustic model for the same codec, to compare.")
    ] = None,
    languages: Annotated[str, typer.Option(help="From and to, as they stand when the page opens.")] = "en,fr",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 7860,
    device: Device = "cpu",
    vad: Vad = "energy",
    allow_untrained: AllowUntrained = False,
) -> None:
    """Show a checkpoint on a page in the browser: speech, text, and what each stage of the sound loses.

    Example: speechllm demo runs/quickstart/checkpoint --port 7860
    """
    from speechllm.errors import MissingDependencyError
    from speechllm.models.acoustic import load_acoustic

    # Gradio asks for this variable in several places; a page of ours sends statistics to nobody.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from speechllm.demo.actions import Demo
        from speechllm.demo.page import make_page
        from speechllm.demo.server import serve_demo
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "gradio", "demo", "speechllm demo") from error

    system = load_system(model, device, allow_untrained=allow_untrained, vad=vad)
    rivals = {path.name: cast(Any, load_acoustic(path)).to(device).eval() for path in acoustic or []}
    page = make_page(Demo(system, rivals=rivals), languages=languages.split(","), name=model)
    console.print(f"the demo is at http://{host}:{port}; Ctrl-C ends it", highlight=False)
    serve_demo(page, host=host, port=port)
