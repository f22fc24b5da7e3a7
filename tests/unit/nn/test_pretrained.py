import json
import os
from pathlib import Path

import pytest
import torch

from speechllm.errors import CheckpointError
from speechllm.nn.pretrained import fingerprint, read_folder, write_folder

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3)}
CONFIG = {"kind": "thing", "size": 3}


def test_what_is_written_comes_back(tmp_path):
    write_folder(tmp_path / "a", CONFIG, TENSORS)
    config, tensors = read_folder(tmp_path / "a", "thing")
    assert config == CONFIG
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]


def test_the_fingerprint_sees_config_and_every_weight():
    first = fingerprint(CONFIG, TENSORS)
    assert first == fingerprint(dict(reversed(CONFIG.items())), {k: v.clone() for k, v in TENSORS.items()})
    assert first != fingerprint({**CONFIG, "size": 4}, TENSORS)
    assert first != fingerprint(CONFIG, {**TENSORS, "bias": torch.tensor([1, 1, 1.0001])})


def test_another_kind_is_refused(tmp_path):
    write_folder(tmp_path, CONFIG, TENSORS)
    with pytest.raises(CheckpointError, match="holds kind 'thing', expected 'codec'"):
        read_folder(tmp_path, "codec")


@pytest.mark.parametrize("damage", ["no config", "no weights", "cut weights", "config is a list"])
def test_a_broken_folder_is_one_clear_line(tmp_path, damage):
    write_folder(tmp_path, CONFIG, TENSORS)
    if damage == "no config":
        (tmp_path / "config.json").unlink()
    elif damage == "no weights":
        (tmp_path / "model.safetensors").unlink()
    elif damage == "cut weights":
        (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:40])
    else:
        (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError) as error:
        read_folder(tmp_path, "thing")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_a_write_that_is_killed_anywhere_leaves_the_old_model_the_new_one_or_none(tmp_path, monkeypatch, stop):
    """Two partial files, the old config's end, and two renames: a kill before each of them, and never a mix."""
    write_folder(tmp_path, CONFIG, TENSORS)
    new = ({**CONFIG, "size": 4}, {name: tensor + 1 for name, tensor in TENSORS.items()})
    steps = 0

    def counted(function):
        def step(*args, **kwargs):
            nonlocal steps
            if steps == stop:
                raise KeyboardInterrupt
            steps += 1
            return function(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", counted(Path.write_bytes))
        patch.setattr("pathlib.Path.unlink", counted(Path.unlink))
        patch.setattr("os.replace", counted(os.replace))
        with pytest.raises(KeyboardInterrupt):
            write_folder(tmp_path, *new)
    if stop <= 2:
        config, tensors = read_folder(tmp_path, "thing")
        assert config == CONFIG
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    else:
        with pytest.raises(CheckpointError, match="give a folder saved whole"):
            read_folder(tmp_path, "thing")
    write_folder(tmp_path, *new)
    config, tensors = read_folder(tmp_path, "thing")
    assert config == new[0]
    assert all(torch.equal(tensors[name], tensor) for name, tensor in new[1].items())


def test_an_error_leaves_the_old_model(tmp_path, monkeypatch):
    write_folder(tmp_path, CONFIG, TENSORS)
    monkeypatch.setattr(
        "pathlib.Path.write_bytes", lambda self, content: (_ for _ in ()).throw(OSError(28, "No space"))
    )
    with pytest.raises(CheckpointError, match="No space"):
        write_folder(tmp_path, {**CONFIG, "size": 4}, TENSORS)
    assert read_folder(tmp_path, "thing")[0] == CONFIG
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_folder(tmp_path / "a", CONFIG, TENSORS)
