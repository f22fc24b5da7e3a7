"""`speechllm`: the commands, joined; and the one place that turns an error into one line.

speechllm quickstart
speechllm transcribe recording.wav --model runs/quickstart/checkpoint --language en
"""

import sys
from typing import Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from speechllm.cli import build, corpora, gguf, plan, serve, share, use
from speechllm.cli.console import console
from speechllm.errors import SpeechLLMError


class _OneLineErrors(TyperGroup):
    """Prints errors that a user can cause as one line and exits with 2; others keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SpeechLLMError as error:
            line = Text.assemble(("error:", "bold red"), " ", " ".join(str(error).split()))
            console.print(line, highlight=False, soft_wrap=True)
            sys.exit(2)


app = typer.Typer(
    name="speechllm",
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Turn a text LLM into one model that reads and writes speech and text.",
)
app.command()(build.quickstart)
app.command()(corpora.corpora)
app.command()(build.prepare)
app.command()(build.tokenize)
app.command()(build.train)
app.command()(plan.plan)
app.command()(use.evaluate)
app.command()(use.transcribe)
app.command()(use.translate)
app.command()(use.speak)
app.command()(use.convert)
app.command()(use.resynthesize)
app.command()(use.info)
app.command()(serve.serve)
app.command()(serve.demo)
app.command()(share.push)
app.command()(share.export)
app.command()(gguf.gguf)
