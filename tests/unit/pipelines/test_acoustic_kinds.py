"""A checkpoint speaks through whichever acoustic model it holds."""

import dataclasses
import json

import pytest
import torch

from speechllm.errors import CheckpointError, RegistryError
from speechllm.generation.decoding_config import DecodingConfig
from speechllm.hub import load_checkpoint, save_checkpoint
from speechllm.models.audiolm import AudioLM
from speechllm.pipelines.system import SpeechSystem
from tests.support.tiny import tiny_acoustic, tiny_audiolm, tiny_model, tiny_processor, tiny_speech


@pytest.fixture(scope="module")
def codec():
    return tiny_acoustic()[0]


@pytest.fixture(scope="module")
def folder(codec, tmp_path_factory):
    processor = tiny_processor()
    path = tmp_path_factory.mktemp("kinds") / "checkpoint"
    return save_checkpoint(
        path, tiny_model(processor.vocabulary.size), processor, codec=codec, acoustic=tiny_audiolm(codec)
    )


def test_audiolm_in_the_acoustic_folder_is_found_by_its_kind(codec, folder):
    acoustic = load_checkpoint(folder).acoustic
    assert isinstance(acoustic, AudioLM)
    assert not acoustic.training
    expected = tiny_audiolm(codec).state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in acoustic.state_dict().items())


def test_it_speaks_in_time_with_and_without_a_voice(folder):
    system = SpeechSystem.from_pretrained(folder, decoding=DecodingConfig(max_text_tokens=4, max_audio_seconds=0.8))
    inputs = [tiny_speech(0.6), tiny_speech(1.0, seed=1)]
    drawn = system.run("[S2ST English French]", inputs)
    spoken = system.run("[S2ST English French]", inputs, voice=tiny_speech(0.5, seed=2), consent=True)
    for output in drawn + spoken:
        assert output.is_watermarked
        assert output.audio.duration_seconds == pytest.approx(len(output.codes) / 12.5, abs=0.05)
    (alone,) = system.run("[S2ST English French]", inputs[1:])
    assert alone.audio.samples.tobytes() == drawn[1].audio.samples.tobytes()


def test_parts_of_different_systems_and_unknown_kinds_are_refused(codec, folder, tmp_path):
    checkpoint = load_checkpoint(folder)
    config = dataclasses.replace(checkpoint.acoustic.config, codec_fingerprint="another")
    save_checkpoint(tmp_path / "out", checkpoint.model, checkpoint.processor, codec=codec, acoustic=AudioLM(config))
    with pytest.raises(CheckpointError, match="trained with codec another"):
        load_checkpoint(tmp_path / "out")
    path = tmp_path / "out" / "acoustic" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "audiolms"}))
    with pytest.raises(RegistryError, match="unknown acoustic model 'audiolms'; did you mean 'audiolm'"):
        load_checkpoint(tmp_path / "out")
