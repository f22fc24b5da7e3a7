"""The README's way from a table of recordings to a scored model, command by command, at the smallest size."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from speechllm.audio import save_audio
from speechllm.cli.main import app
from speechllm.evaluation import read_report_json
from tests.support.tiny import tiny_checkpoint, tiny_semantic_tokenizer, tiny_speech

ROOT = Path(__file__).parents[2]
SMALLER = {
    "train": ["training.max_steps=2", "training.cpu=true", "training.show_progress=false"],
    "evaluate": ["judge.english=none", "num_items=2", "decoding={max_text_tokens: 4}"],
}


def commands() -> list[list[str]]:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Your own data")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    return [shlex.split(line)[1:] for line in block.strip().splitlines()]


def test_the_commands_of_the_readme_lead_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(Path("runs/quickstart/checkpoint"))
    tiny_semantic_tokenizer().save_pretrained("runs/quickstart/semantic_tokenizer")
    rows = ["path,sentence,subset"]
    for number, split in enumerate(("train", "train", "train", "test", "test")):
        save_audio(tiny_speech(0.6, seed=number), tmp_path / f"{number}.wav")
        rows.append(f"{number}.wav,allume la lumière,{split}")
    Path("clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")

    done = commands()
    assert [command[0] for command in done] == ["prepare", "tokenize", "train", "evaluate"]
    for command in done:
        arguments = [str(ROOT / part) if part.startswith("recipes/") else part for part in command]
        result = CliRunner().invoke(app, [*arguments, *SMALLER.get(command[0], [])])
        assert result.exit_code == 0, result.output
    report = read_report_json("runs/report/report.json")
    scores = [m["score"] for m in report["measurements"] if (m["task"], m["system"]) == ("ASR", "model")]
    assert {score["num_scored"] for score in scores} == {2}
