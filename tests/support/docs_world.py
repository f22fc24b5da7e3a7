"""The place where documentation runs: the files that its commands name, at the smallest size.

    world = make_world(tmp_path)          # runs/quickstart/..., hello.wav, clips.csv, recipes/ -> ours
    run_page(ROOT / "README.md", world)   # every block, in order

Commands are the page's own. `speechllm train` and `evaluate` get further settings behind them, because a test has
seconds where a user has hours; what starts a server or another program is parsed, not run.
"""

import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from speechllm.audio import encode_flac, save_audio
from speechllm.cli.main import app
from speechllm.data.prepare import prepare_corpus
from speechllm.data.records import Record, Translation
from speechllm.data.tokenize import tokenize_corpus
from speechllm.evaluation.report import write_report
from tests.support.pages import Block, blocks, commands
from tests.support.tiny import (
    tiny_checkpoint,
    tiny_model,
    tiny_semantic_tokenizer,
    tiny_speech,
    tiny_text_tokenizer,
)
from tests.support.tiny_report import tiny_report

ROOT = Path(__file__).parents[2]
COMMAND = typer.main.get_command(app)
SENTENCE = "allume la lumière"
TRAINING = ["training.max_steps=2", "training.cpu=true", "training.show_progress=false"]
SMALLER = {
    ("train", "unified"): TRAINING,
    ("train", "soundstorm"): [
        "semantic.ctc.loop.steps=2",
        "semantic.ctc.trunk={width: 16, num_layers: 1, num_heads: 2}",
        "semantic.tokenizer.codebook_size=16",
        "codec.mel_rvq.codebook_size=8",
        "soundstorm.loop.steps=2",
        "soundstorm.trunk={width: 16, num_layers: 1, num_heads: 2}",
    ],
    ("evaluate",): ["judge.english=none", "num_items=2", "decoding={max_text_tokens: 4}"],
    ("resynthesize",): ["--no-judge"],
}
"What is put behind a command, by how it begins."
ONLY_PARSED = {"quickstart", "serve", "demo"}
"Commands that take long or never end; what they do is tested elsewhere."
PROGRAMS = {"make", "source", "pip", "git", "cd", "hf", "export", "accelerate", "python", "ls", "curl", "tensorboard"}
"What a shell block may call beside `speechllm`."


def make_world(folder: Path) -> Path:
    """Fill a folder with what pages take for granted and return it."""
    quickstart = folder / "runs" / "quickstart"
    tiny_checkpoint(quickstart / "checkpoint", acoustic=True)
    write_report(tiny_report(), quickstart / "report")
    for number, name in enumerate(("hello", "me", "you", "recording")):
        save_audio(tiny_speech(2.4, seed=number), folder / f"{name}.wav")
    tokenizer = tiny_semantic_tokenizer()
    tokenizer.save_pretrained(quickstart / "semantic_tokenizer")
    prepare_corpus(_pairs(), quickstart / "corpus")
    tokenize_corpus(quickstart / "corpus", tokenizer, quickstart / "tokens")
    rows = ["path,sentence,speaker,subset"]
    for number, split in enumerate(("train", "train", "train", "test", "test")):
        save_audio(tiny_speech(0.6, seed=number), folder / f"{number}.wav")
        rows.append(f"{number}.wav,{SENTENCE},s{number % 2},{split}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    # What a page names as on the Hub is found as a folder here, and is an LM of a few thousand parameters.
    base = folder / "HuggingFaceTB" / "SmolLM2-135M"
    text_tokenizer = tiny_text_tokenizer()
    text_tokenizer.save_pretrained(base)
    tiny_model(len(text_tokenizer)).save_pretrained(base)
    for shared in ("recipes", "benchmarks", "docs"):
        (folder / shared).symlink_to(ROOT / shared)
    return folder


def _pairs() -> list[Record]:
    sound = encode_flac(tiny_speech(0.6))
    return [
        Record(id=f"r{i}", split=split, language="en", text="turn on the light", audio=sound, speaker=f"s{i % 2}",
               translation=Translation("fr", SENTENCE, sound))
        for i, split in enumerate(("train", "train", "train", "test", "test"))
    ]  # fmt: skip


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the blocks of a page in order in the current folder; Python blocks share their names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        try:
            run_block(block, names, monkeypatch)
        except Exception as error:
            error.add_note(f"in the block at {block}")
            raise


def run_block(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one block, or check what can be checked of it."""
    if block.title is not None:
        Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        Path(block.title).write_text(block.content, encoding="utf-8")
    if block.language == "python":
        if block.not_run is None:
            exec(compile(block.content, str(block), "exec"), names)
    elif block.language in ("bash", "console"):
        for command in commands(block):
            run_command(command, monkeypatch, parse_only=block.not_run is not None)
    elif block.language in ("yaml", "toml", "json"):
        read = {"yaml": yaml.safe_load, "toml": tomllib.loads, "json": json.loads}[block.language]
        assert read(block.content) is not None


def run_command(command: str, monkeypatch: pytest.MonkeyPatch, *, parse_only: bool = False) -> None:
    """Run a command of ours in this process; check that those of other programs name things that exist."""
    words = shlex.split(command, comments=True)
    if words[0] != "speechllm":
        check_program(words, monkeypatch)
        return
    parse(words[1:])
    if not parse_only and words[1] not in ONLY_PARSED:
        more = next((more for begin, more in SMALLER.items() if tuple(words[1 : 1 + len(begin)]) == begin), [])
        result = CliRunner().invoke(app, [*words[1:], *more], catch_exceptions=False)
        assert result.exit_code == 0, f"{command}: {result.output}"


def parse(words: list[str]) -> None:
    """Fail unless the command exists and has these options and arguments."""
    command: Any = COMMAND
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context("speechllm", list(words))


def check_program(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a command of another program as far as it concerns this project."""
    program = words[0]
    assert program in PROGRAMS, f"pages do not call {program!r} yet; say in docs_world.py what is to be checked of it"
    if program == "export":
        name, _, value = words[1].partition("=")
        monkeypatch.setenv(name, value)
    elif program == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
            assert set(extra.split(",")) <= set(project["optional-dependencies"])
    elif program in ("python", "accelerate"):
        if "-m" in words:
            assert importlib.util.find_spec(words[words.index("-m") + 1]) is not None
        for word in words[1:]:
            if word.startswith(("recipes/", "benchmarks/")):
                assert (ROOT / word).exists(), f"there is no {word}"


def every_example() -> list[tuple[str, str]]:
    """Return the name of every command and the example in its help."""
    found = []
    for name, command in walk(COMMAND):
        match = re.search(r"Example: (speechllm .+)", command.help or "")
        found.append((name, match[1] if match else ""))
    return found


def walk(command: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return all commands below a command, by full name."""
    if not hasattr(command, "commands"):
        return [(prefix.strip(), command)]
    return [leaf for name, sub in command.commands.items() for leaf in walk(sub, f"{prefix} {name}")]
