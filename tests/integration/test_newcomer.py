"""A newcomer's walk: a checkpoint is pushed, all local copies go, and `pipeline(...)` by its name does the tasks.

Once in a process that has speechllm, and once in one that has not and trusts the code of the repository: same outputs.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from speechllm.audio import save_audio
from speechllm.cli.main import app
from speechllm.errors import CheckpointError
from speechllm.evaluation.report import write_report
from speechllm.generation.acoustic import ACOUSTIC_STAGES
from speechllm.hub import load_checkpoint, push_checkpoint, save_checkpoint
from speechllm.models.acoustic import ACOUSTIC_MODELS
from speechllm.pipelines.registration import DOORS, OWN
from speechllm.remote_code import TASKS, export_checkpoint, remote_code_files, vendored_modules
from speechllm.tasks import TrainedFor
from speechllm.tokenizers.codec import CODECS
from tests.support.fake_hub import FakeHub
from tests.support.tiny import tiny_checkpoint, tiny_speech
from tests.support.tiny_report import tiny_report

ROOT = Path(__file__).parents[2]
REPO = "me/tiny"
OFFLINE = {"HF_HUB_OFFLINE": "1"}

WALK = """
import importlib.abc, json, sys
has_speechllm, model, path, revision = sys.argv[1] == "with", sys.argv[2], sys.argv[3], sys.argv[4] or None


class Hidden(importlib.abc.MetaPathFinder):
    # What the environment of these tests has, and that of a newcomer has not.
    names = {"speechllm", "recipes", "data_prep", "jaxtyping", "beartype", "wrapt"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if has_speechllm:
    import speechllm
else:
    sys.meta_path.insert(0, Hidden())
from transformers import pipeline

trust = {} if has_speechllm else {"trust_remote_code": True}
answers = {}
for task in ("automatic-speech-recognition", "translation", "speech-translation", "speech-to-speech-translation",
             "text-to-speech"):
    languages = {"src_lang": "en", "tgt_lang": "fr"} if "translation" in task else {}
    pipe = pipeline(task, model=model, revision=revision, device="cpu", max_new_tokens=6, **languages, **trust)
    pipe.system.decoding = pipe.system.decoding.__class__(max_audio_seconds=0.8)
    given = "good morning" if task in ("translation", "text-to-speech") else path
    found = pipe(given)
    answers[task] = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in found.items()}
    try:
        pipe(given, **({"src_lang": "de"} if languages else {"language": "de"}))
    except ValueError as error:
        answers[task]["refused"] = str(error)
    module = type(pipe).__module__
    assert module.startswith("speechllm.") if has_speechllm else module.startswith("transformers_modules."), module
assert has_speechllm == ("speechllm" in sys.modules)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    both = ("en-fr",)
    trained = TrainedFor(tasks={"ASR": ("en",), "TTS": ("en",), "MT": both, "AST": both, "ASR AST S2ST": both})
    return tiny_checkpoint(tmp_path_factory.mktemp("newcomer") / "checkpoint", acoustic=True, trained=trained)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return save_audio(tiny_speech(0.8, seed=3), tmp_path / "hello.wav")


def walk(
    who: str, model: object, recording: Path, home: Path, hub: FakeHub | None = None, revision: str = ""
) -> dict[str, Any]:
    """Do every task in a new process, which finds the fake Hub, or none, by its environment."""
    variables = hub.environment(home) if hub is not None else OFFLINE
    places = {"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "cache"), "HF_MODULES_CACHE": str(home / "modules")}
    environment = {**os.environ, **variables, **places}
    command = [sys.executable, "-c", WALK, who, str(model), str(recording), revision]
    done = subprocess.run(
        command, cwd=ROOT if who == "with" else home, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_walk(hub: FakeHub, folder: Path, recording: Path, tmp_path: Path):
    plain, home = "me/plain", tmp_path / "newcomer"
    home.mkdir()
    for repository, options in ((plain, []), (REPO, ["--remote-code"])):
        result = CliRunner().invoke(app, ["push", str(folder), repository, *options])
        assert result.exit_code == 0, result.output
    first = hub.repositories[REPO].refs["main"]
    shutil.rmtree(folder)
    ours = walk("with", plain, recording, tmp_path / "ours", hub)
    assert walk("without", REPO, recording, home, hub) == ours
    assert len(ours["text-to-speech"]["audio"]) > 0
    assert all("not trained for" in answer["refused"] for answer in ours.values())
    # What came later is not read by those who asked for the first commit, weights or code.
    hub.add(REPO, {"config.json": b"{}", "README.md": b"gone"})
    assert walk("without", REPO, recording, home, hub, revision=first) == ours
    # And not even the Hub is needed by then.
    hub.stop()
    assert walk("without", REPO, recording, home, revision=first) == ours


@pytest.mark.slow
def test_an_exported_folder_works_where_it_lies(folder: Path, recording: Path, tmp_path: Path):
    out, home = tmp_path / "exported", tmp_path / "home"
    home.mkdir()
    assert CliRunner().invoke(app, ["export", str(folder), str(out)]).exit_code == 0
    assert walk("without", out, recording, home) == walk("with", folder, recording, home)


REFUSED = """
import sys
if sys.argv[1] == "with":
    import speechllm
from transformers import pipeline
for options in ({}, {"trust_remote_code": False}):
    try:
        pipeline("automatic-speech-recognition", model=sys.argv[2], device="cpu", **options)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise AssertionError("it ran")
if sys.argv[1] == "with":
    from speechllm import SpeechSystem
    SpeechSystem.from_pretrained(sys.argv[2])
"""


@pytest.mark.parametrize("who", ["with", "without"])
def test_no_code_runs_unless_it_is_trusted(who: str, hub: FakeHub, saved: Path, tmp_path: Path):
    """Nor is it fetched."""
    trap = tmp_path / "it ran"
    evil = f"import pathlib\npathlib.Path({str(trap)!r}).touch()\n".encode()
    extra = remote_code_files(saved)
    extra = {name: evil + content if name.endswith(".py") else content for name, content in extra.items()}
    push_checkpoint(saved, REPO, extra=extra)
    hub.requests.clear()
    environment = {**os.environ, **hub.environment(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, who, REPO], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not trap.exists()
    assert not [line for line in hub.requests if ".py" in line and line.startswith("GET")]
    assert not list((tmp_path / "home").rglob("*.py"))


def test_export_and_back(folder: Path, tmp_path: Path):
    """The copy is the checkpoint and code; saved again from memory it is a checkpoint without code."""
    out = export_checkpoint(folder, tmp_path / "out")
    ours = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    theirs = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    changed = {name for name, content in ours.items() if theirs[name] != content}
    assert changed == {"config.json"}
    assert {Path(name).parts[0] for name in theirs.keys() - ours.keys()} == {"speechllm_code"}
    config = json.loads((out / "config.json").read_text())
    assert set(config.pop("custom_pipelines")) == set(TASKS) >= {*DOORS, *OWN}
    assert config == json.loads((folder / "config.json").read_text())
    again = load_checkpoint(out)
    save_checkpoint(out, again.model, again.processor, codec=again.codec, acoustic=again.acoustic)
    assert "custom_pipelines" not in (out / "config.json").read_text()
    assert not (out / "speechllm_code").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(CheckpointError, match="cannot be copied onto itself"):
        export_checkpoint(out, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(CheckpointError, match=r"holds other files \(thesis\.tex"):
        export_checkpoint(folder, tmp_path / "mine")


def test_the_code_that_travels_is_whole():
    """Every module compiles, asks for nothing of speechllm, and brings every kind that a registry knows."""
    modules, packages = vendored_modules()
    for name, text in modules.items():
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(text, name))
            for name in (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            )
        }  # fmt: skip
        assert not imported & {"speechllm", "jaxtyping"}, name
        compile(text, name, "exec")
    assert packages <= {
        "einops", "huggingface_hub", "numpy", "pydantic", "safetensors", "scipy", "sklearn", "soundfile", "soxr",
        "torch", "transformers", "yaml",
    }  # fmt: skip
    for registry in (CODECS, ACOUSTIC_MODELS, ACOUSTIC_STAGES):
        for kind in registry:
            target = registry._entries[kind]
            module = target.partition(":")[0] if isinstance(target, str) else target.__module__
            assert module.removeprefix("speechllm.").replace(".", "_") in modules, kind


def test_the_card_says_how_to_use_it(hub: FakeHub, saved: Path, tmp_path: Path):
    write_report(tiny_report(), tmp_path / "report")
    (tmp_path / "card.yaml").write_text("model_name: tiny\nlicense: mit\ndata: Three birds.\nlimits: [It is tiny.]\n")
    options = ["--report", str(tmp_path / "report" / "report.json"), "--card", str(tmp_path / "card.yaml")]
    result = CliRunner().invoke(app, ["push", str(saved), REPO, "--remote-code", *options])
    assert result.exit_code == 0, result.output
    card = ModelCard(hub.repositories[REPO].files["README.md"].decode())
    assert card.data.license == "mit"
    for part in ('pipeline("automatic-speech-recognition", model="me/tiny")', "trust_remote_code=True", "Three birds.",
                 "- It is tiny."):  # fmt: skip
        assert part in card.text
    assert "speechllm_code/pipelines_hf.py" in hub.repositories[REPO].files
    assert CliRunner().invoke(app, ["push", str(saved), REPO]).exit_code == 0
    assert not [name for name in hub.repositories[REPO].files if name.endswith(".py")], "old code goes with the commit"
    assert "custom_pipelines" not in hub.repositories[REPO].files["config.json"].decode()


def test_what_must_be_installed_has_the_names_of_the_package_index(folder: Path):
    """They are among our own dependencies, by the name that these have there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {re.split(r"[<>=!\[; ]", line)[0] for line in project["dependencies"]}
    wanted = remote_code_files(folder)["speechllm_code/requirements.txt"].decode().split()
    assert {"torch", "transformers", "scikit-learn"} <= set(wanted)
    assert set(wanted) <= ours
