"""A checkpoint is whole or absent, loads with plain transformers, and refuses what does not belong together."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from speechllm.errors import CheckpointError, VocabularyError
from speechllm.generation.decode import LMDecoder
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.hub import load_checkpoint, push_checkpoint, save_checkpoint
from speechllm.tokenizers.features import LogMelFeatures
from tests.support.tiny import tiny_checkpoint, tiny_model, tiny_processor, tiny_speech


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("hub") / "checkpoint")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("tied", [True, False])
def test_round_trip(tmp_path: Path, tied: bool):
    processor = tiny_processor()
    model = tiny_model(processor.vocabulary.size, tied=tied)
    save_checkpoint(tmp_path / "out", model, processor)
    loaded = load_checkpoint(tmp_path / "out")
    before, after = model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.processor.vocabulary == processor.vocabulary
    assert (loaded.codec, loaded.acoustic) == (None, None)
    assert processor.semantic_tokenizer is not None
    assert loaded.processor.semantic_tokenizer is not None
    audio = [tiny_speech(1.0, seed=5)]
    codes = [
        tokenizer.encode(audio)[0] for tokenizer in (processor.semantic_tokenizer, loaded.processor.semantic_tokenizer)
    ]
    assert np.array_equal(*codes)


def test_root_is_a_stock_transformers_model(saved: Path):
    model = AutoModelForCausalLM.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer("good morning", return_tensors="pt").input_ids
    assert model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3).shape[1] >= 3


def test_saving_again_replaces_and_loading_is_equal(saved: Path, folder: Path):
    checkpoint = load_checkpoint(folder)
    save_checkpoint(folder, checkpoint.model, checkpoint.processor)
    before, after = contents(saved), contents(folder)
    # transformers notes in this file that the tokenizer came from a folder.
    assert before.pop("tokenizer_config.json") != ""
    assert after.pop("tokenizer_config.json") != ""
    assert after == before
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"], "nothing is left beside it"


def test_config_is_kept(tmp_path: Path):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        learning_rate: float = 0.5

    processor = tiny_processor(semantic=False)
    save_checkpoint(tmp_path / "out", tiny_model(processor.vocabulary.size), processor, config=Config())
    assert (tmp_path / "out" / "training_config.yaml").read_text().endswith("\nlearning_rate: 0.5\n")


KILLED = """
import os, signal, sys
from tests.support.tiny import tiny_model, tiny_processor
from speechllm.hub import save_checkpoint

class Slow:
    def save_pretrained(self, folder):
        folder.mkdir()
        (folder / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

processor = tiny_processor(semantic=False)
save_checkpoint(sys.argv[1], tiny_model(processor.vocabulary.size, seed=1), processor, codec=Slow())
"""


def test_killed_while_writing_leaves_the_old_one(saved: Path, folder: Path):
    result = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=Path(__file__).parents[2], timeout=120)
    assert result.returncode == -signal.SIGKILL
    assert contents(folder) == contents(saved)
    checkpoint = load_checkpoint(folder)
    save_checkpoint(folder, checkpoint.model, checkpoint.processor)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"], "the next one takes the remains along"


def test_killed_between_the_renames_is_undone(folder: Path):
    expected = contents(folder)
    folder.rename(folder.with_name(".checkpoint.previous"))
    load_checkpoint(folder)
    assert contents(folder) == expected


class Refusing:
    """A part whose disk is full."""

    def save_pretrained(self, folder: Path) -> None:
        raise OSError(28, "No space left on device")


def test_full_disk_leaves_the_old_one(saved: Path, folder: Path):
    checkpoint = load_checkpoint(folder)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(folder, checkpoint.model, checkpoint.processor, codec=Refusing())
    assert contents(folder) == contents(saved)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_place(tmp_path: Path):
    tmp_path.chmod(0o500)
    processor = tiny_processor(semantic=False)
    with pytest.raises(CheckpointError, match="Permission denied"):
        save_checkpoint(tmp_path / "out", tiny_model(processor.vocabulary.size), processor)
    tmp_path.chmod(0o700)


def test_other_folders_are_not_replaced(tmp_path: Path, folder: Path):
    checkpoint = load_checkpoint(folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years")
    with pytest.raises(CheckpointError, match=r"holds other files \(thesis\.tex"):
        save_checkpoint(tmp_path / "thesis", checkpoint.model, checkpoint.processor)
    (folder / "runs").mkdir()
    with pytest.raises(CheckpointError, match="holds runs, which is no part"):
        save_checkpoint(folder, checkpoint.model, checkpoint.processor)


def test_another_vocabulary_is_refused(tmp_path: Path, folder: Path):
    processor = tiny_processor(semantic=False)
    size = processor.vocabulary.size
    with pytest.raises(VocabularyError, match=f"the model has input rows {size + 7}, .* vocabulary of {size} ids"):
        save_checkpoint(tmp_path / "out", tiny_model(size + 7), processor)
    assert not (tmp_path / "out").exists()
    tiny_model(size + 7).save_pretrained(folder)
    with pytest.raises(VocabularyError, match=f"{size + 7}, .*speechllm.json has a vocabulary of {size} ids"):
        load_checkpoint(folder)


def test_an_edited_manifest_is_refused(folder: Path):
    manifest = json.loads((folder / "speechllm.json").read_text())
    manifest["vocabulary"]["blocks"][0][1] += 1
    (folder / "speechllm.json").write_text(json.dumps(manifest))
    with pytest.raises(VocabularyError, match="it was edited"):
        load_checkpoint(folder)


def test_a_missing_part_is_refused(folder: Path):
    manifest = json.loads((folder / "speechllm.json").read_text())
    (folder / "speechllm.json").write_text(json.dumps({**manifest, "codec": "abc"}))
    with pytest.raises(CheckpointError, match="saved with codec/, which is missing"):
        load_checkpoint(folder)


def test_pickled_weights_are_refused(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is no safe weights format"):
        load_checkpoint(folder)


def test_pickled_weights_of_a_part_are_refused(folder: Path):
    (folder / "semantic_tokenizer" / "encoder" / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match=r"encoder/pytorch_model\.bin is no safe weights format"):
        load_checkpoint(folder)


def test_folders_that_lead_out_are_refused(tmp_path: Path, folder: Path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "codec").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"codec leads out of the checkpoint folder"):
        load_checkpoint(folder)


def test_all_parts_go_to_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moved = []
    monkeypatch.setattr(LogMelFeatures, "to", lambda self, device: moved.append(device))
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path / "out", acoustic=True), device="meta")
    assert moved == ["meta"]
    assert checkpoint.codec.codebooks.device.type == "meta"
    assert {p.device.type for part in (checkpoint.model, checkpoint.acoustic) for p in part.parameters()} == {"meta"}


def test_names_that_lead_out_are_refused(tmp_path: Path, folder: Path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (folder / "extra.json").symlink_to(secret)
    with pytest.raises(CheckpointError, match="leads out of the checkpoint folder"):
        load_checkpoint(folder)
    (folder / "extra.json").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../../evil.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"names '\.\./\.\./evil\.safetensors'"):
        load_checkpoint(folder)


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./nowhere", "../a/b", "a b/c"])
def test_nothing_there(source: str):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(source)


def test_a_plain_model_folder_is_no_checkpoint(tmp_path: Path):
    tiny_model(64).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"no speechllm checkpoint: it has no speechllm\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"no speechllm\.json"):
        push_checkpoint(tmp_path, "name/repository")


def test_decoding_after_reload_is_equal(saved: Path):
    first, second = (load_checkpoint(saved) for _ in range(2))
    prompts = [np.arange(3, 3 + n) for n in (4, 7)]
    config = DecodingConfig(max_text_tokens=8)
    ids = [
        [d.ids.tolist() for d in LMDecoder(c.model, c.processor).decode(prompts, [("text",)] * 2, config)]
        for c in (first, second)
    ]
    assert ids[0] == ids[1]
