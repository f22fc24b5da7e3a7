"""Semantic tokenizer: codes depend on the utterance alone, survive reload bit for bit, cover every hop."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from speechllm.audio import Audio
from speechllm.errors import CheckpointError, DataError
from speechllm.tokenizers.fake import FakeSemanticTokenizer
from speechllm.tokenizers.features import LogMelFeatures, LogMelFeaturesConfig
from speechllm.tokenizers.semantic import SemanticTokenizer, SemanticTokenizerConfig, fit_semantic_tokenizer


def tones(seconds, seed):
    """Notes of 100 ms: something with structure to cluster."""
    generator = np.random.default_rng(seed)
    pitches = np.repeat(generator.integers(2, 20, size=int(seconds * 10) + 1) * 100.0, 1_600)[: round(16_000 * seconds)]
    return Audio((0.3 * np.sin(2 * np.pi * np.cumsum(pitches) / 16_000)).astype(np.float32), 16_000)


AUDIOS = [tones(seconds, seed) for seed, seconds in enumerate((0.01, 0.3, 1.0, 2.17, 1.0, 3.0))]


@pytest.fixture(scope="module")
def tokenizer():
    features = LogMelFeatures(LogMelFeaturesConfig(frame_rate=12.5))
    config = SemanticTokenizerConfig(codebook_size=24, standardize=True)
    return fit_semantic_tokenizer(features, AUDIOS, config, seed=0)


def equal(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_codes_do_not_depend_on_the_batch(tokenizer):
    alone = [tokenizer.encode([audio])[0] for audio in AUDIOS]
    assert equal(tokenizer.encode(AUDIOS), alone)
    assert equal(tokenizer.encode(AUDIOS[::-1])[::-1], alone)


def test_one_code_per_hop_and_at_least_one(tokenizer):
    codes = tokenizer.encode(AUDIOS)
    assert [len(c) for c in codes] == [-(-audio.num_samples // 1_280) for audio in AUDIOS]
    assert {c.dtype for c in codes} == {np.dtype(np.int64)}
    assert all(0 <= c.min() <= c.max() < tokenizer.codebook_size == 24 for c in codes)


def test_reload_gives_the_same_bits(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    again = SemanticTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert equal(again.encode(AUDIOS), tokenizer.encode(AUDIOS))
    assert torch.equal(again.centroids, tokenizer.centroids)
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.sample_rate, again.frame_rate) == (16_000, 12.5)


def test_fit_is_a_function_of_data_and_seed(tokenizer):
    first, other = (
        fit_semantic_tokenizer(tokenizer.feature_extractor, iter(AUDIOS), tokenizer.config, seed=seed)
        for seed in (0, 1)
    )
    assert first.fingerprint == tokenizer.fingerprint != other.fingerprint


def test_other_sample_rates_are_resampled(tokenizer):
    audio = AUDIOS[3]
    [codes], [expected] = tokenizer.encode([audio.resampled(48_000)]), tokenizer.encode([audio])
    assert len(codes) == len(expected)
    assert (codes == expected).mean() > 0.8  # resampling there and back moves samples a little


def test_deduplicate_drops_only_repeats(tokenizer):
    config = SemanticTokenizerConfig(codebook_size=24, standardize=True, deduplicate=True)
    short = SemanticTokenizer(
        tokenizer.feature_extractor, tokenizer.centroids, config, mean=tokenizer._mean, scale=tokenizer._scale
    )
    for full, dropped in zip(tokenizer.encode(AUDIOS), short.encode(AUDIOS), strict=True):
        assert np.array_equal(full[np.insert(np.diff(full) != 0, 0, True)], dropped)
    assert short.fingerprint != tokenizer.fingerprint


def test_features_are_what_is_quantised(tokenizer):
    [frames], [codes] = tokenizer.features(AUDIOS[2:3]), tokenizer.encode(AUDIOS[2:3])
    assert torch.equal(torch.cdist(frames, tokenizer.centroids).argmin(1), torch.from_numpy(codes))


def test_a_mixed_up_or_incomplete_folder_is_refused(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "centroids": tensors["centroids"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="fingerprint"):
        SemanticTokenizer.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        SemanticTokenizer.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        SemanticTokenizer.from_pretrained(tmp_path / "nothing")


def test_misspelt_key_in_config_is_named(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    spec = json.loads((tmp_path / "config.json").read_text())
    spec["dedupicate"] = spec.pop("deduplicate")
    (tmp_path / "config.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="did you mean 'deduplicate'"):
        SemanticTokenizer.from_pretrained(tmp_path)


def test_too_little_audio_is_refused():
    features = LogMelFeatures(LogMelFeaturesConfig(frame_rate=12.5))
    with pytest.raises(DataError, match="too few for 1,024 codes"):
        fit_semantic_tokenizer(features, AUDIOS[:2], seed=0)


def test_fake_keeps_the_contract(tmp_path):
    fake = FakeSemanticTokenizer(codebook_size=12, frame_rate=12.5)
    codes = fake.encode(AUDIOS)
    assert [len(c) for c in codes] == [-(-audio.num_samples // 1_280) for audio in AUDIOS]
    assert all(0 <= c.min() <= c.max() < 12 for c in codes)
    assert len(np.unique(np.concatenate(codes))) > 3
    fake.save_pretrained(tmp_path)
    again = FakeSemanticTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == fake.fingerprint
    assert equal(again.encode(AUDIOS), codes)
