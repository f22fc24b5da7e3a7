import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from speechllm.audio import save_audio
from speechllm.cli.main import app
from speechllm.errors import CheckpointError
from speechllm.hub import PART_FOLDERS, load_parts
from speechllm.pipelines.speech_parts import SpeechParts
from speechllm.pipelines.system import SpeechSystem
from tests.support.tiny import tiny_checkpoint, tiny_semantic_tokenizer, tiny_speech


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("parts") / "checkpoint", acoustic=True)


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    """What of it is there before there is an LM."""
    out = tmp_path_factory.mktemp("parts") / "mine"
    for part in PART_FOLDERS:
        shutil.copytree(checkpoint / part, out / part)
    return out


def test_parts_without_an_lm_sound_as_they_do_in_a_checkpoint(checkpoint, folder):
    audio = tiny_speech(1.0)
    spoken = []
    for parts in (SpeechSystem.from_pretrained(checkpoint).parts, SpeechParts.from_pretrained(folder)):
        codes = parts.semantic_tokenizer().encode([audio])
        spoken.append(parts.synthesize(codes, voice=audio, seed=3)[0].samples)
    assert len(spoken[0]) > 8_000
    assert np.array_equal(*spoken)


def test_the_ceiling_is_measured_before_there_is_an_lm(checkpoint, folder, tmp_path):
    recording = str(save_audio(tiny_speech(1.0), tmp_path / "a.wav"))
    printed = []
    for model in (checkpoint, folder):
        command = ["resynthesize", recording, "--no-judge", "--json", "--model", str(model)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        printed.append(result.stdout)
    assert printed[0] == printed[1]


def test_what_is_missing_or_of_another_system_is_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match="has none of semantic_tokenizer/, codec/, acoustic/"):
        SpeechParts.from_pretrained(tmp_path)
    deaf = tmp_path / "deaf"
    shutil.copytree(folder, deaf)
    shutil.rmtree(deaf / "semantic_tokenizer")
    with pytest.raises(CheckpointError, match="cannot read audio"):
        SpeechParts.from_pretrained(deaf).semantic_tokenizer()
    mute = tmp_path / "mute"
    shutil.copytree(folder, mute)
    shutil.rmtree(mute / "acoustic")
    with pytest.raises(CheckpointError, match="cannot make sound"):
        SpeechParts.from_pretrained(mute).synthesize([np.array([1])])
    unsafe = tmp_path / "unsafe"
    shutil.copytree(folder, unsafe)
    (unsafe / "codec" / "model.safetensors").unlink()
    (unsafe / "codec" / "model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="safetensors"):
        SpeechParts.from_pretrained(unsafe)


def test_the_tokenizer_at_hand_is_kept(folder):
    tokenizer = tiny_semantic_tokenizer()
    assert load_parts(folder, tokenizer=tokenizer)[0] is tokenizer
