"""Adapters, tokenizers, stages and corpora on the Hub: what comes back is what was sent, and half of one is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, constants
from peft import PeftModel
from typer.testing import CliRunner

from speechllm.audio import encode_flac
from speechllm.cli.main import app
from speechllm.data.prepare import prepare_corpus, read_corpus
from speechllm.data.records import Record
from speechllm.data.tokenize import read_tokens, tokenize_corpus
from speechllm.errors import CheckpointError
from speechllm.models.acoustic import load_acoustic
from speechllm.models.adapters import LoraSettings, add_adapters
from speechllm.processor import UnifiedProcessor
from speechllm.sharing import Content, fetch_folder, push_folder, what_is
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.semantic import SemanticTokenizer
from tests.support.fake_hub import FakeHub, Fault
from tests.support.tiny import tiny_checkpoint, tiny_model, tiny_processor, tiny_speech

AUDIO = tiny_speech(0.8, seed=3)
REPO = "me/part"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its parts, adapters, a corpus and its tokens."""
    root = tmp_path_factory.mktemp("parts")
    tiny_checkpoint(root / "checkpoint", acoustic=True)
    processor = tiny_processor(semantic=False)
    adapted: Any = add_adapters(tiny_model(processor.vocabulary.size), processor.vocabulary, LoraSettings(rank=2))
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(root / "adapters", save_embedding_layers=False)
    records = [
        Record(
            id=f"r{i}",
            split="train",
            language="en",
            text="good morning",
            audio=encode_flac(tiny_speech(0.5, seed=i)),
            speaker="s",
        )
        for i in range(5)
    ]
    prepare_corpus(records, root / "corpus", records_per_shard=2)
    tokenizer = SemanticTokenizer.from_pretrained(root / "checkpoint" / "semantic_tokenizer")
    tokenize_corpus(root / "corpus", tokenizer, root / "tokens")
    return root


PARTS = {
    "adapters": Content.ADAPTER, "checkpoint/codec": Content.PART, "checkpoint/acoustic": Content.PART,
    "checkpoint/semantic_tokenizer": Content.PART, "corpus": Content.CORPUS, "tokens": Content.TOKENS,
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", PARTS)
def test_what_comes_back_is_what_was_sent(name: str, made: Path, hub: FakeHub):
    result = CliRunner().invoke(app, ["push", str(made / name), REPO])
    assert result.exit_code == 0, result.output
    first = hub.repositories[REPO].refs["main"]
    assert hub.repositories[REPO].private
    content = PARTS[name]
    assert contents(fetch_folder(REPO, content)).items() >= contents(made / name).items() - {("README.md", b"")}
    there = dict(hub.repositories[REPO].files)
    hub.add(REPO, {**there, "config.json": b"{}", "manifest.json": b"{}", "adapter_config.json": b"{}"})
    with pytest.raises(CheckpointError):
        fetch_folder(REPO, content)
    assert what_is(fetch_folder(REPO, content, revision=first)) is content


def test_parts_do_what_they_did(made: Path, hub: FakeHub):
    for name in ("codec", "acoustic", "semantic_tokenizer"):
        push_folder(made / "checkpoint" / name, f"me/{name}")
    ours, theirs = load_codec(made / "checkpoint" / "codec"), load_codec(fetch_folder("me/codec"))
    waveform = torch.from_numpy(AUDIO.samples)[None]
    assert ours.fingerprint == theirs.fingerprint
    assert torch.equal(ours.encode(waveform), theirs.encode(waveform))
    local: Any = load_acoustic(made / "checkpoint" / "acoustic")
    fetched: Any = load_acoustic(fetch_folder("me/acoustic"))
    assert all(
        torch.equal(a, b) for a, b in zip(local.state_dict().values(), fetched.state_dict().values(), strict=True)
    )
    tokenizer = SemanticTokenizer.from_pretrained(fetch_folder("me/semantic_tokenizer"))
    expected = UnifiedProcessor.from_pretrained(made / "checkpoint").semantic_tokenizer
    assert expected is not None
    assert np.array_equal(tokenizer.encode([AUDIO])[0], expected.encode([AUDIO])[0])


def test_adapters_go_on_their_model(made: Path, hub: FakeHub):
    push_folder(made / "adapters", REPO)
    size = tiny_processor(semantic=False).vocabulary.size
    ids = torch.tensor([[5, 6, 7, 8]])
    local, fetched = (
        PeftModel.from_pretrained(tiny_model(size), str(source))(input_ids=ids).logits
        for source in (made / "adapters", fetch_folder(REPO, Content.ADAPTER))
    )
    assert torch.equal(local, fetched)
    assert not torch.equal(local, tiny_model(size)(input_ids=ids).logits)


def test_corpora_are_read_as_they_were(made: Path, hub: FakeHub):
    push_folder(made / "corpus", "me/corpus")
    push_folder(made / "tokens", "me/tokens")
    here, there = (list(read_corpus(f, "train")) for f in (made / "corpus", fetch_folder("me/corpus", Content.CORPUS)))
    assert [(r.id, r.text) for r in here] == [(r.id, r.text) for r in there]
    ours, theirs = (list(read_tokens(f, "train")) for f in (made / "tokens", fetch_folder("me/tokens", Content.TOKENS)))
    assert [r.id for r in ours] == [r.id for r in theirs]
    assert any("/api/datasets/" in line for line in hub.requests)


def test_offline(made: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    push_folder(made / "corpus", REPO)
    fetch_folder(REPO, Content.CORPUS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert contents(fetch_folder(REPO, Content.CORPUS)) == contents(made / "corpus")
    with pytest.raises(CheckpointError, match="offline mode is on"):
        fetch_folder("me/other", Content.CORPUS)
    assert hub.requests == []


@pytest.mark.parametrize(("name", "path"), [("corpus", "/lfs/"), ("adapters", "/commit/")])
def test_an_upload_that_breaks_off_leaves_what_was_there(name: str, path: str, made: Path, hub: FakeHub):
    hub.faults += [Fault("PUT" if path == "/lfs/" else "POST", path, after_bytes=50, times=20)]
    with pytest.raises(CheckpointError, match=f"cannot push to {REPO}"):
        push_folder(made / name, REPO)
    hub.faults.clear()
    assert set(hub.repositories[REPO].files) == {".gitattributes"}
    push_folder(made / name, REPO)
    assert contents(fetch_folder(REPO, PARTS[name])) == contents(made / name)


def test_a_download_that_breaks_off_is_not_half_a_corpus(made: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    push_folder(made / "corpus", REPO)
    hub.faults.append(Fault("GET", r"resolve/.*train-00001", after_bytes=10, times=20))
    with pytest.raises(CheckpointError, match=f"{REPO} .* cannot be fetched"):
        fetch_folder(REPO, Content.CORPUS)
    hub.faults.clear()
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointError):
            fetch_folder(REPO, Content.CORPUS)
    assert contents(fetch_folder(REPO, Content.CORPUS)) == contents(made / "corpus")


def test_what_is_not_whole_is_not_sent(made: Path, hub: FakeHub, tmp_path: Path):
    def broken(name: str, *gone: str) -> Path:
        folder = Path(
            shutil.copytree(made / name, tmp_path / f"{name.replace('/', '-')}-{len(list(tmp_path.iterdir()))}")
        )
        for file in gone:
            (folder / file).unlink()
        return folder

    changed = broken("corpus")
    (changed / "train-00000.parquet").write_bytes(b"PAR1")
    unfinished = broken("corpus")
    manifest = json.loads((unfinished / "manifest.json").read_text())
    (unfinished / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    away = broken("corpus")
    manifest["shards"][0]["file"] = "../../secret.parquet"
    (away / "manifest.json").write_text(json.dumps(manifest))
    pickled = broken("adapters", "adapter_model.safetensors")
    (pickled / "adapter_model.bin").write_bytes(b"\x80\x04.")
    for folder, message in (
        (tmp_path / "none", "there is no folder"),
        (made, "holds nothing that speechllm makes"),
        (broken("adapters", "adapter_model.safetensors"), "not adapter_model.safetensors"),
        (broken("checkpoint/codec", "model.safetensors"), "not model.safetensors"),
        (broken("corpus", "train-00001.parquet"), "not train-00001.parquet"),
        (changed, "train-00000.parquet is not what manifest.json says"),
        (unfinished, "is not finished"),
        (away, "leads out of the folder"),
        (pickled, "is no safe weights format"),
    ):
        with pytest.raises(CheckpointError, match=message) as error:
            push_folder(folder, REPO)
        assert "\n" not in str(error.value)
    assert hub.repositories == {}
    with pytest.raises(CheckpointError, match="holds adapters, expected a prepared corpus"):
        fetch_folder(made / "adapters", Content.CORPUS)


def test_revision_in_commands(made: Path, hub: FakeHub, tmp_path: Path):
    push_folder(made / "checkpoint", "me/model")
    first = hub.repositories["me/model"].refs["main"]
    HfApi(endpoint=hub.url, token=hub.token).create_tag("me/model", tag="v1")
    push_folder(tiny_checkpoint(tmp_path / "mute"), "me/model")
    run = CliRunner().invoke
    assert f"snapshots/{first}" in run(app, ["info", "me/model", "--revision", "v1"]).output
    said = run(app, ["speak", "no", "--model", "me/model", "--revision", "v1", "--out", str(tmp_path / "a.wav")])
    assert said.exit_code == 0, said.output
    assert "cannot make sound" in run(app, ["speak", "no", "--model", "me/model", "--out", "b.wav"]).output
    local = run(app, ["info", str(made / "checkpoint"), "--revision", "v1"])
    assert local.exit_code == 2
    assert "--revision is about repositories" in local.output
