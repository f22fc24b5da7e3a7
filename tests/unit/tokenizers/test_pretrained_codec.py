"""Codecs of transformers: loading, choosing levels, what is refused. Their laws are in test_codec_laws.py."""

import json

import pytest
import torch

from speechllm.errors import AudioError, CheckpointError, ConfigError
from speechllm.tokenizers.codec import load_codec
from speechllm.tokenizers.pretrained_codec import PretrainedCodec
from tests.support.tiny_codecs import dac_model, encodec_model, mimi_model, pretrained, tones, xcodec_model

MODELS = {"encodec": encodec_model, "dac": dac_model, "mimi": mimi_model, "xcodec": xcodec_model}


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_of_transformers_loads_and_keeps_its_fingerprint_in_ours(name, tmp_path):
    model = MODELS[name]()
    model.save_pretrained(tmp_path / "theirs")
    codec = PretrainedCodec.from_hub(tmp_path / "theirs", num_codebooks=2)
    waveforms = tones(3, 3_200)[None]
    assert torch.equal(codec.encode(waveforms), pretrained(model, 3).encode(waveforms)[:, :2])
    codec.save_pretrained(tmp_path / "ours")
    assert load_codec(tmp_path / "ours").fingerprint == codec.fingerprint == pretrained(model, 2).fingerprint
    assert pretrained(model, 3).fingerprint != codec.fingerprint


@pytest.mark.parametrize(("kbps", "levels"), [(6.0, 1), (12.0, 2), (13.0, 2), (18.0, 3)])
def test_levels_from_a_bitrate(kbps, levels, tmp_path):
    encodec_model().save_pretrained(tmp_path)
    codec = PretrainedCodec.from_hub(tmp_path, bandwidth_kbps=kbps)
    assert codec.num_codebooks == levels
    assert codec.bitrate_kbps <= kbps


def test_all_levels_by_default(tmp_path):
    dac_model().save_pretrained(tmp_path)
    assert PretrainedCodec.from_hub(tmp_path).num_codebooks == 4


def test_codes_are_those_of_the_model_itself():
    waveforms = torch.stack([tones(seed, 3_200) for seed in (5, 6)])
    encodec, dac, mimi, xcodec = encodec_model(), dac_model(), mimi_model(), xcodec_model()
    with torch.no_grad():
        theirs = {
            encodec: encodec.encode(waveforms[:, None], bandwidth=18.0).audio_codes[0],
            dac: dac.encode(waveforms[:, None]).audio_codes[:, :3],
            mimi: mimi.encode(waveforms[:, None]).audio_codes[:, :3],
            xcodec: xcodec.encode(waveforms[:, None]).audio_codes,
        }
    for model, codes in theirs.items():
        assert torch.equal(pretrained(model).encode(waveforms), codes), type(model).__name__


def test_it_stays_frozen():
    codec = pretrained(dac_model()).train()
    assert not codec.training
    assert not codec.model.training
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_moved_codebooks_are_not_those_of_before():
    codec = pretrained(mimi_model())
    before = codec.codebook_vectors().dtype
    assert codec.double().codebook_vectors().dtype != before


def test_pickled_weights_are_refused(tmp_path):
    model = dac_model()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors") as caught:
        PretrainedCodec.from_hub(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    pretrained(dac_model()).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["decoder.conv2.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of DacModel, the first is decoder\.conv2\.weight"):
        load_codec(tmp_path)


def test_other_models_and_other_kinds_of_codec_are_refused(tmp_path):
    from transformers import EncodecConfig, HubertConfig

    HubertConfig().save_pretrained(tmp_path / "hubert")
    with pytest.raises(ConfigError, match="'hubert' is no codec known here"):
        PretrainedCodec.from_hub(tmp_path / "hubert")
    EncodecConfig(audio_channels=2, normalize=True, chunk_length_s=1.0).save_pretrained(tmp_path / "music")
    with pytest.raises(ConfigError, match="2 channels"):
        PretrainedCodec.from_hub(tmp_path / "music")
    EncodecConfig(normalize=True).save_pretrained(tmp_path / "loud")
    with pytest.raises(ConfigError, match="normalises"):
        PretrainedCodec.from_hub(tmp_path / "loud")
    with pytest.raises(CheckpointError, match="cannot load a codec"):
        PretrainedCodec.from_hub(tmp_path / "nothing")


def test_levels_that_the_model_lacks_are_refused(tmp_path):
    dac_model().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="num_codebooks = 5, expected 1 to the model's 4"):
        PretrainedCodec.from_hub(tmp_path, num_codebooks=5)
    with pytest.raises(ConfigError, match="both given"):
        PretrainedCodec.from_hub(tmp_path, num_codebooks=2, bandwidth_kbps=6.0)


def test_a_folder_without_its_model_is_refused(tmp_path):
    pretrained(dac_model()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not describe its model"):
        load_codec(tmp_path)


def test_streams_are_refused_where_there_are_none():
    with pytest.raises(ConfigError, match="DacModel does not stream"):
        pretrained(dac_model()).streaming_encoder()
    with pytest.raises(AudioError, match="flush came before any push"):
        pretrained(mimi_model()).streaming_encoder().flush()
