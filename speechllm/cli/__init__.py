"""The command line: one file a group of commands, each a thin layer over a plain Python function."""

from speechllm.cli.main import app

__all__ = ["app"]
