"""A hook of the site: the page of the command line, written by typer from the commands themselves."""

import subprocess
import sys

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

COMMAND = ["-m", "typer", "speechllm.cli.main", "utils", "docs", "--name", "speechllm", "--title", "Command line"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add cli.md, which is in no folder."""
    page = subprocess.run([sys.executable, *COMMAND], capture_output=True, text=True, check=True).stdout
    files.append(File.generated(config, "cli.md", content=page))
    return files
