"""CTC encoder: padding and batching change nothing, reload is bit-exact, frames cover every hop."""

import numpy as np
import pytest
import torch

from speechllm.audio import Audio
from speechllm.errors import ConfigError
from speechllm.nn.conformer import ConformerConfig
from speechllm.tokenizers.ctc_encoder import CTCEncoder, CTCEncoderConfig, CTCFeatures, CTCFeaturesConfig
from speechllm.tokenizers.features import load_features
from speechllm.tokenizers.semantic import SemanticTokenizer, SemanticTokenizerConfig, fit_semantic_tokenizer


def encoder(frame_rate=12.5, seed=0):
    torch.manual_seed(seed)
    trunk = ConformerConfig(width=16, num_layers=2, num_heads=2)
    config = CTCEncoderConfig(symbols=" abcé", frame_rate=frame_rate, num_mels=20, stem_width=8, trunk=trunk)
    return CTCEncoder(config).eval()


def noise(num_samples, seed=0):
    return Audio(0.1 * np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32), 16_000)


@pytest.mark.parametrize("frame_rate", [12.5, 25.0])
def test_padding_and_batch_change_nothing(frame_rate):
    model = encoder(frame_rate)
    lengths = torch.tensor([64, 24, 40])
    mel = torch.randn(3, 20, 64)
    whole = model(mel, lengths)
    assert whole.lengths.tolist() == [length // model.pooling for length in lengths.tolist()]
    for i, length in enumerate(lengths.tolist()):
        alone = model(mel[i : i + 1, :, :length], lengths[i : i + 1])
        frames = length // model.pooling
        for batched, single in zip(whole.states, alone.states, strict=True):
            # Sums run in another order in a batch: not bit-equal.
            torch.testing.assert_close(batched[i, :frames], single[0], atol=1e-5, rtol=1e-4)
        emissions = frames * model.config.emissions_per_frame
        torch.testing.assert_close(whole.log_probs[i, :emissions], alone.log_probs[0], atol=1e-5, rtol=1e-4)


def test_rubbish_in_the_padding_is_not_heard():
    model = encoder()
    lengths, mel = torch.tensor([64, 24]), torch.randn(2, 20, 64)
    loud = mel.clone()
    loud[1, :, 24:] = 1e3
    assert torch.equal(model(mel, lengths).states[-1][1, :3], model(loud, lengths).states[-1][1, :3])


@pytest.mark.parametrize("frame_rate", [12.5, 25.0])
def test_features_cover_every_hop(frame_rate):
    features = CTCFeatures(encoder(frame_rate))
    hop = round(16_000 / frame_rate)
    for num_samples in (1, 160, hop, hop + 1, 5 * hop - 3):
        frames = features(noise(num_samples))
        assert frames.shape == (-(-num_samples // hop), 16)
        assert torch.isfinite(frames).all()


def test_gain_is_not_heard():
    features = CTCFeatures(encoder())
    audio = noise(12_800)
    louder = Audio(audio.samples * 3, 16_000)
    torch.testing.assert_close(features(audio), features(louder), atol=1e-3, rtol=1e-3)


def test_reload_is_bit_exact(tmp_path):
    features = CTCFeatures(encoder(), CTCFeaturesConfig(layers=(1,)))
    features.save_pretrained(tmp_path)
    again = load_features(tmp_path)
    assert torch.equal(features(noise(9_000)), again(noise(9_000)))
    assert again.fingerprint == features.fingerprint != CTCFeatures(encoder(seed=1), features.config).fingerprint


def test_states_of_several_layers_stand_side_by_side():
    one, two, both = (CTCFeatures(encoder(), CTCFeaturesConfig(layers=layers)) for layers in ((1,), (2,), (1, 2)))
    audio = noise(9_000)
    assert torch.equal(both(audio), torch.cat((one(audio), two(audio)), dim=1))
    assert torch.equal(two(audio), CTCFeatures(encoder())(audio))


def test_tokenizer_folder_is_whole(tmp_path):
    audios = [noise(16_000, seed) for seed in range(4)]
    config = SemanticTokenizerConfig(codebook_size=8)
    tokenizer = fit_semantic_tokenizer(CTCFeatures(encoder()), audios, config, seed=0)
    tokenizer.save_pretrained(tmp_path)
    again = SemanticTokenizer.from_pretrained(tmp_path)
    for first, second in zip(tokenizer.encode(audios), again.encode(audios), strict=True):
        assert np.array_equal(first, second)


def test_greedy_text_merges_repeats_and_drops_blanks():
    model = encoder()
    path = [0, 2, 2, 0, 2, 3, 0, 1, 5, 5, 0]  # _ a a _ a b _ " " é é _
    log_probs = torch.nn.functional.one_hot(torch.tensor(path), 6).float()
    assert model.greedy_text(log_probs) == "aab é"
    assert model.indices("aab é?") == [2, 2, 3, 1, 5]


def test_transcribe_joins_chunks():
    features = CTCFeatures(encoder(), CTCFeaturesConfig(chunk_seconds=0.4))
    assert isinstance(features.transcribe(noise(16_000)), str)


def test_bad_configs_are_refused():
    with pytest.raises(ConfigError, match="only once"):
        CTCEncoderConfig(symbols="aa")
    with pytest.raises(ConfigError, match=r"frame_rate = 10\.0"):
        CTCEncoderConfig(symbols="ab", frame_rate=10.0)
    with pytest.raises(ConfigError, match=r"layers = \[3\], expected numbers from 0 to 2"):
        CTCFeatures(encoder(), CTCFeaturesConfig(layers=(3,)))
