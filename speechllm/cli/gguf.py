"""Commands that write a checkpoint's language model for other engines: gguf."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from speechllm.cli.console import results
from speechllm.cli.use import load_system


class Precision(StrEnum):
    """Of the matrices in the file."""

    F32 = "f32"
    F16 = "f16"


def gguf(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or Hub id, with a Llama.")],
    out: Annotated[Path, typer.Argument(help="File to write, .gguf.")],
    precision: Annotated[Precision, typer.Option(help="Of the matrices.")] = Precision.F32,
) -> None:
    """Write the language model for llama.cpp; ids go in and out, our processor stays in front.

    Example: speechllm gguf runs/quickstart/checkpoint runs/quickstart/lm.gguf
    """
    from speechllm.models.gguf_export import export_gguf

    checkpoint = load_system(model, "cpu").checkpoint
    processor = checkpoint.processor
    results.print(
        export_gguf(checkpoint.model, processor.text_tokenizer, processor.vocabulary, out, dtype=precision.value)
    )
