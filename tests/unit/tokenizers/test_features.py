"""Features: one frame per hop for every family and length, unmoved by chunks, reload and what else is encoded."""

import os

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from speechllm.audio import Audio
from speechllm.errors import AudioError, CheckpointError, ConfigError
from speechllm.tokenizers.features import FeatureExtractor, LogMelFeatures, LogMelFeaturesConfig, load_features
from speechllm.tokenizers.pretrained_features import TransformersFeatures, TransformersFeaturesConfig

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
CONVOLUTIONS = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}


def whisper():
    config = WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    return WhisperModel(config), WhisperFeatureExtractor()


def w2v_bert():
    config = Wav2Vec2BertConfig(**SMALL, feature_projection_input_dim=160, conv_depthwise_kernel_size=5)
    return Wav2Vec2BertModel(config), SeamlessM4TFeatureExtractor()


MODELS = {
    "whisper": whisper,
    "w2v-bert": w2v_bert,
    "hubert": lambda: (HubertModel(HubertConfig(**SMALL, **CONVOLUTIONS)), Wav2Vec2FeatureExtractor()),
    "wav2vec2": lambda: (Wav2Vec2Model(Wav2Vec2Config(**SMALL, **CONVOLUTIONS)), Wav2Vec2FeatureExtractor()),
    "wavlm": lambda: (WavLMModel(WavLMConfig(**SMALL, **CONVOLUTIONS)), Wav2Vec2FeatureExtractor()),
}


@pytest.fixture(scope="module", params=MODELS)
def source(request, tmp_path_factory):
    """A folder as transformers writes it, with a tiny random model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    model, extractor = MODELS[request.param]()
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


def noise(seconds, seed=0):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return Audio(samples.astype(np.float32), 16_000)


@pytest.mark.parametrize("frame_rate", [12.5, 25.0, 50.0])
def test_one_frame_per_hop_for_any_length(source, frame_rate):
    features = TransformersFeatures.from_source(TransformersFeaturesConfig(source=source, frame_rate=frame_rate))
    hop = round(16_000 / frame_rate)
    for num_samples in (1, 160, hop, hop + 1, 3 * hop - 1, 7 * hop + 80):
        frames = features(noise(num_samples / 16_000))
        assert frames.shape == (-(-num_samples // hop), 16)
        assert torch.isfinite(frames).all()
    assert isinstance(features, FeatureExtractor)


def test_reload_is_bit_exact_without_the_source(source, tmp_path):
    features = TransformersFeatures.from_source(TransformersFeaturesConfig(source=source, layer=1, frame_rate=12.5))
    features.save_pretrained(tmp_path / "encoder")
    again = load_features(tmp_path / "encoder")
    assert torch.equal(features(noise(1.3)), again(noise(1.3)))
    assert again.fingerprint == features.fingerprint
    assert not list(tmp_path.rglob("*.bin"))


def test_layers_differ_and_bad_ones_are_refused(source):
    first, last = (
        TransformersFeatures.from_source(TransformersFeaturesConfig(source=source, layer=layer)) for layer in (1, None)
    )
    assert not torch.equal(first(noise(0.5)), last(noise(0.5)))
    assert first.fingerprint != last.fingerprint
    with pytest.raises(ConfigError, match="layer = 3, expected 0 to 2"):
        TransformersFeatures.from_source(TransformersFeaturesConfig(source=source, layer=3))
    with pytest.raises(ConfigError, match="no whole part"):
        TransformersFeatures.from_source(TransformersFeaturesConfig(source=source, frame_rate=20.0))


def test_chunks_bound_what_is_seen(source):
    config = TransformersFeaturesConfig(source=source, frame_rate=25.0, chunk_seconds=0.8)
    features = TransformersFeatures.from_source(config)
    audio = noise(2.0)
    parts = [features(audio.cropped(start, start + 0.8)) for start in (0.0, 0.8, 1.6)]
    assert torch.equal(features(audio), torch.cat(parts))


def test_whisper_equals_its_own_forward_on_a_full_window(tmp_path):
    torch.manual_seed(0)
    model, extractor = whisper()
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    features = TransformersFeatures.from_source(TransformersFeaturesConfig(source=str(tmp_path), frame_rate=50.0))
    audio = noise(30.0)
    mel = extractor(audio.samples, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        expected = model.eval().encoder(mel).last_hidden_state[0]
    torch.testing.assert_close(features(audio), expected, atol=1e-5, rtol=0)


def test_a_folder_of_ours_is_never_unpickled(source, tmp_path):
    """Who names a source may take its pickled weights; a folder that somebody sent is read as safetensors or not."""
    features = TransformersFeatures.from_source(TransformersFeaturesConfig(source=source))
    features.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(features._encoder.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"cannot load a speech encoder .*safetensors"):
        load_features(tmp_path)
    again = TransformersFeatures.from_source(TransformersFeaturesConfig(source=str(tmp_path)))
    assert torch.equal(again(noise(0.5)), features(noise(0.5)))


def test_chunks_that_whisper_cannot_take_are_refused(tmp_path):
    model, extractor = whisper()
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"chunk_seconds = 30.5, expected at most 30 for Whisper"):
        TransformersFeatures.from_source(TransformersFeaturesConfig(source=str(tmp_path), chunk_seconds=30.5))


@pytest.mark.parametrize("frame_rate", [12.5, 25.0])
def test_log_mel_laws(tmp_path, frame_rate):
    features = LogMelFeatures(LogMelFeaturesConfig(frame_rate=frame_rate))
    audio = noise(1.01)
    frames = features(audio)
    assert frames.shape == (-(-16_160 // features._hop), 80 * 100 / frame_rate)
    louder = features(Audio(audio.samples * 2, 16_000))
    # Gain does not matter above the floor, that is, everywhere but in the padding of the last frame.
    torch.testing.assert_close(frames[:-1], louder[:-1], atol=1e-4, rtol=0)
    features.save_pretrained(tmp_path)
    assert torch.equal(load_features(tmp_path)(audio), frames)
    assert load_features(tmp_path).fingerprint == features.fingerprint


def test_bad_input_is_one_clear_line(tmp_path):
    with pytest.raises(AudioError, match="empty"):
        LogMelFeatures(LogMelFeaturesConfig())(Audio(np.zeros(0, np.float32), 16_000))
    with pytest.raises(AudioError, match="audio is at 8000 Hz, expected 16000 Hz"):
        LogMelFeatures(LogMelFeaturesConfig())(Audio(np.zeros(8_000, np.float32), 8_000))
    with pytest.raises(ConfigError, match="does not divide"):
        LogMelFeatures(LogMelFeaturesConfig(frame_rate=17.0))
    with pytest.raises(CheckpointError, match=r"features\.json"):
        load_features(tmp_path)


WHISPER = os.environ.get("SPEECHLLM_WHISPER_BASE", "")


@pytest.mark.assets
@pytest.mark.skipif(not WHISPER, reason="SPEECHLLM_WHISPER_BASE is not set")
def test_whisper_base_from_its_folder(tmp_path):
    features = TransformersFeatures.from_source(TransformersFeaturesConfig(source=WHISPER, frame_rate=12.5))
    frames = features(noise(1.3))
    assert frames.shape == (17, 512)
    assert torch.isfinite(frames).all()
    features.save_pretrained(tmp_path)
    assert torch.equal(load_features(tmp_path)(noise(1.3)), frames)
    # The decoder stays behind: 20.6 million weights of the encoder in float32.
    assert (tmp_path / "model.safetensors").stat().st_size < 90e6
