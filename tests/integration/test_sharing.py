"""A checkpoint shared through the Hub is the local one, bit for bit; half of one is never taken for a whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, constants
from transformers import pipeline
from typer.testing import CliRunner, Result

import speechllm  # noqa: F401 - teaches transformers.pipeline
from speechllm.cli.main import app
from speechllm.errors import CheckpointError, SpeechLLMError
from speechllm.evaluation.report import write_report
from speechllm.hub import Checkpoint, load_checkpoint, push_checkpoint
from speechllm.pipelines.system import SpeechSystem
from tests.support.fake_hub import FakeHub, Fault
from tests.support.tiny import tiny_checkpoint, tiny_speech
from tests.support.tiny_report import tiny_report

ROOT = Path(__file__).parents[2]
AUDIO = tiny_speech(0.8, seed=3)
REPO = "me/tiny"
SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("sharing") / "checkpoint", acoustic=True)


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkpoint, which cannot speak."""
    return tiny_checkpoint(tmp_path_factory.mktemp("sharing") / "other", seed=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def equal_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def codes(checkpoint: Checkpoint) -> tuple[np.ndarray, torch.Tensor]:
    tokenizer, codec = checkpoint.processor.semantic_tokenizer, checkpoint.codec
    assert tokenizer is not None
    assert codec is not None
    return tokenizer.encode([AUDIO])[0], codec.encode(torch.from_numpy(AUDIO.samples)[None])


@pytest.mark.slow
def test_what_comes_back_is_the_local_one(hub: FakeHub, folder: Path):
    push_checkpoint(folder, REPO)
    there = dict(hub.repositories[REPO].files)
    del there[".gitattributes"]
    assert there == contents(folder)
    local, fetched = load_checkpoint(folder), load_checkpoint(REPO)
    assert equal_weights(local.model, fetched.model)
    assert equal_weights(local.acoustic, fetched.acoustic)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(codes(local), codes(fetched), strict=True))
    assert fetched.processor.vocabulary == local.processor.vocabulary
    assert fetched.manifest == local.manifest
    tag = "[ASR AST S2ST English French]"
    here, elsewhere = (SpeechSystem(c).run(tag, [AUDIO], seed=0)[0] for c in (local, fetched))
    assert elsewhere.texts == here.texts
    assert here.audio is not None
    assert elsewhere.audio is not None
    assert np.array_equal(here.audio.samples, elsewhere.audio.samples)


def test_revisions_by_tag_commit_and_branch(hub: FakeHub, folder: Path, listening: Path):
    push_checkpoint(folder, REPO)
    first = hub.repositories[REPO].refs["main"]
    HfApi(endpoint=hub.url, token=hub.token).create_tag(REPO, tag="v1")
    push_checkpoint(listening, REPO)
    speaking, silent = load_checkpoint(folder), load_checkpoint(listening)
    for revision in ("v1", first):
        system = SpeechSystem.from_pretrained(REPO, revision=revision)
        assert system.can_speak
        assert equal_weights(system.checkpoint.model, speaking.model)
    newest = load_checkpoint(REPO)
    assert equal_weights(newest.model, silent.model)
    assert (newest.codec, newest.acoustic) == (None, None), "what the old one had more is gone"
    with pytest.raises(CheckpointError, match=r"me/tiny at v2 .* no such revision"):
        load_checkpoint(REPO, revision="v2")


@pytest.mark.slow
def test_pipelines_take_all_parts_from_one_revision(hub: FakeHub, folder: Path, listening: Path):
    push_checkpoint(folder, REPO)
    first = hub.repositories[REPO].refs["main"]
    push_checkpoint(listening, REPO)
    for local, revision in ((folder, first), (listening, None)):
        options = {"device": "cpu", "generate_kwargs": SHORT}
        wanted = pipeline("automatic-speech-recognition", model=str(local), **options)
        found = pipeline("automatic-speech-recognition", model=REPO, revision=revision, **options)
        assert equal_weights(found.model, wanted.model)
        assert found.system.can_speak == wanted.system.can_speak == (local == folder)
        assert found(AUDIO) == wanted(AUDIO)
    translate = pipeline("speech-translation", model=REPO, revision=first, src_lang="en", tgt_lang="fr", device="cpu")
    assert translate.system.can_speak


def test_offline(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch):
    push_checkpoint(folder, REPO)
    load_checkpoint(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert equal_weights(load_checkpoint(REPO).model, load_checkpoint(folder).model)
    recognise = pipeline("automatic-speech-recognition", model=REPO, device="cpu", generate_kwargs=SHORT)
    assert set(recognise(AUDIO)) == {"text"}
    with pytest.raises(CheckpointError, match=r"me/other .* offline mode is on; unset HF_HUB_OFFLINE"):
        load_checkpoint("me/other")
    assert hub.requests == []


def test_an_upload_that_breaks_off_is_no_checkpoint(hub: FakeHub, folder: Path, caplog: pytest.LogCaptureFixture):
    hub.faults.append(Fault("POST", "/commit/", after_bytes=5000))
    with pytest.raises(CheckpointError, match="cannot push to me/tiny: no connection"):
        push_checkpoint(folder, REPO)
    caplog.clear()
    with pytest.raises(CheckpointError, match=r"me/tiny on the Hub is no speechllm checkpoint: it has no speechllm"):
        load_checkpoint(REPO)
    assert caplog.messages == [], "the client has nothing to add"
    push_checkpoint(folder, REPO)
    assert equal_weights(load_checkpoint(REPO).model, load_checkpoint(folder).model)


def test_an_upload_that_breaks_off_leaves_the_old_checkpoint(hub: FakeHub, folder: Path, listening: Path):
    push_checkpoint(listening, REPO)
    hub.faults.append(Fault("POST", "/commit/", after_bytes=5000))
    with pytest.raises(CheckpointError, match="cannot push to me/tiny"):
        push_checkpoint(folder, REPO)
    assert equal_weights(load_checkpoint(REPO).model, load_checkpoint(listening).model)


def test_pickles_are_refused_and_never_fetched(hub: FakeHub, folder: Path):
    files = contents(folder)
    for weights in ("model.safetensors", "codec/model.safetensors"):
        pickled = Path(weights).with_name("pytorch_model.bin").as_posix()
        hub.add(REPO, {**{name: data for name, data in files.items() if name != weights}, pickled: b"\x80\x04."})
        with pytest.raises(CheckpointError, match=rf"me/tiny/{pickled} is no safe weights format"):
            load_checkpoint(REPO)
        with pytest.raises(CheckpointError, match=rf"me/tiny/{pickled} is no safe weights format"):
            SpeechSystem.from_pretrained(REPO)
        with pytest.raises(SpeechLLMError, match=rf"^me/tiny/{pickled} is no safe weights format") as error:
            pipeline("automatic-speech-recognition", model=REPO)
        assert not isinstance(error.value, ValueError), "pipeline() would go on with a class that takes pickles"
    assert not any("resolve" in line and "pytorch_model" in line for line in hub.requests)
    hub.add(REPO, {**files, "pytorch_model.bin": b"\x80\x04."})
    load_checkpoint(REPO)


def test_links_out_are_refused(hub: FakeHub, folder: Path, tmp_path: Path):
    files = contents(folder)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../../../../../elsewhere.safetensors"}}
    evil = {
        "leads out of the checkpoint folder": {"model.safetensors.index.json": json.dumps(index).encode()},
        "cannot be fetched": {"../../../../../evil.json": b"{}"},
        # What the Hub gives for a link in git: its target, as text.
        "the LM in .* cannot be loaded": {"model.safetensors": b"../../../../../etc/passwd"},
    }
    for message, added in evil.items():
        hub.add(REPO, {**files, **added})
        with pytest.raises(CheckpointError, match=message) as error:
            load_checkpoint(REPO)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("evil.json"))


def test_parts_that_the_manifest_names_must_be_there(hub: FakeHub, folder: Path):
    for part in ("semantic_tokenizer", "codec", "acoustic"):
        hub.add(REPO, {name: data for name, data in contents(folder).items() if not name.startswith(part)})
        with pytest.raises(CheckpointError, match=f"was saved with {part}/, which is missing"):
            load_checkpoint(REPO)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_push_sends_a_card_made_from_the_evaluation(hub: FakeHub, folder: Path, tmp_path: Path):
    write_report(tiny_report(), tmp_path / "report")
    command = ("push", folder, REPO, "--report", tmp_path / "report" / "report.json", "--license", "apache-2.0")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"{hub.url}/me/tiny/commit/{hub.repositories[REPO].refs['main']}"
    card = ModelCard(hub.repositories[REPO].files["README.md"].decode())
    (score,) = card.data.eval_results
    assert (score.metric_type, score.metric_value, card.data.license) == ("wer", 12.35, "apache-2.0")
    assert card.data.model_name == "tiny"
    assert hub.repositories[REPO].private
    assert not (folder / "README.md").exists()
    assert run("push", folder, REPO).exit_code == 0
    assert hub.repositories[REPO].files["README.md"].decode() == str(card), "no new card: the old one stays"


def test_push_public(hub: FakeHub, folder: Path):
    assert run("push", folder, REPO, "--public").exit_code == 0
    assert not hub.repositories[REPO].private


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("no folder", "there is no folder"),
        ("no checkpoint", "holds nothing that speechllm makes"),
        ("no token", "there is no token; run `hf auth login`, or set HF_TOKEN"),
        ("wrong token", "does not accept the token"),
        ("no network", "no connection to http://127.0.0.1:9"),
        ("no right", "right to write there"),
        ("no repository", "name one as name/repository"),
        ("no report", "is no evaluation report"),
    ],
)
def test_mistakes_in_pushing_are_one_line(
    mistake: str, message: str, hub: FakeHub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place: Path = {"no folder": tmp_path / "none", "no checkpoint": tmp_path}.get(mistake, folder)
    repo_id = {"no right": "somebody/model", "no repository": "tiny"}.get(mistake, REPO)
    if mistake == "no token":
        monkeypatch.delenv("HF_TOKEN")
    if mistake == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_of_yesterday")
    if mistake == "no network":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    result = run("push", place, repo_id, *(["--report", tmp_path / "none.json"] if mistake == "no report" else []))
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert message in line
    assert "hf_" not in line
    assert hub.repositories == {}


def test_a_private_repository_without_a_token_is_one_line(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch):
    push_checkpoint(folder, REPO)
    monkeypatch.delenv("HF_TOKEN")
    result = run("info", REPO)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert "me/tiny is neither a folder here nor in the cache" in line
    assert "it is private and this token does not open it" in line
    assert load_checkpoint(REPO, token=hub.token).codec is not None


BY_ENVIRONMENT = """
import sys
from speechllm.cli.main import app
app(["push", sys.argv[1], "me/tiny"], standalone_mode=False)
app(["info", "me/tiny"], standalone_mode=False)
"""


@pytest.mark.slow
def test_another_process_finds_the_hub_by_its_environment(hub: FakeHub, folder: Path, tmp_path: Path):
    environment = {**os.environ, **hub.environment(tmp_path / "theirs"), "COLUMNS": "500"}
    command = [sys.executable, "-c", BY_ENVIRONMENT, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/theirs/cache/models--me--tiny/snapshots/{hub.repositories[REPO].refs['main']}" in done.stdout
