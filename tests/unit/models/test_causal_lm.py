import importlib.util

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from speechllm.errors import CheckpointError, ConfigError, VocabularyError
from speechllm.models.causal_lm import BaseModelConfig, extend_causal_lm, load_base_lm, num_text_rows
from speechllm.models.text_lm import train_bpe
from speechllm.vocabulary import Vocabulary
from tests.support.tiny import tiny_model, tiny_text_tokenizer

TEXT_ROWS = 300
VOCABULARY = Vocabulary.for_speech(TEXT_ROWS, 64)
SIZES = {
    "vocab_size": TEXT_ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
IDS = torch.randint(TEXT_ROWS, (2, 9), generator=torch.Generator().manual_seed(0))


def tiny(tied):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=1, tie_word_embeddings=tied)).eval()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_centroid_init_fills_both_matrices_and_is_seeded(tied):
    centroids = torch.randn(64, 24, generator=torch.Generator().manual_seed(2))
    first, second = (
        extend_causal_lm(tiny(tied), VOCABULARY, init="centroid", centroids=centroids, seed=3) for _ in range(2)
    )
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        rows = getattr(first, layer)().weight[TEXT_ROWS:]
        assert torch.equal(rows, getattr(second, layer)().weight[TEXT_ROWS:])
        text_std = getattr(first, layer)().weight[:TEXT_ROWS].std().item()
        assert rows[1:].std().item() == pytest.approx(text_std, rel=0.05)


def test_new_rows_learn_when_tied_to_zero():
    model = extend_causal_lm(tiny(True), VOCABULARY, init="zeros")
    model.train()
    audio = torch.randint(TEXT_ROWS, VOCABULARY.size, (2, 12), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([IDS, audio], 1)
    model(ids, labels=ids).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert torch.isfinite(gradient).all()
    assert (gradient[audio.unique()].abs().sum(1) > 0).all()


def test_another_vocabulary_is_refused():
    with pytest.raises(VocabularyError, match="model has 300 rows but the vocabulary's text block has 299 ids"):
        extend_causal_lm(tiny(True), Vocabulary.for_speech(299, 64))


@pytest.fixture(scope="module")
def bpe_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    train_bpe(["good morning everybody", "bonjour tout le monde"] * 4, vocab_size=290).save_pretrained(folder)
    return folder


def test_random_llama_is_a_function_of_its_seed(bpe_folder):
    config = {"text_tokenizer": str(bpe_folder), "hidden_size": 32, "num_layers": 1, "num_heads": 2}
    (a, tokenizer), (b, _), (c, _) = (load_base_lm(BaseModelConfig(**config, seed=seed)) for seed in (0, 0, 1))
    assert num_text_rows(a) == len(tokenizer)
    assert a.config.eos_token_id == tokenizer.eos_token_id
    assert torch.equal(a.model.embed_tokens.weight, b.model.embed_tokens.weight)
    assert not torch.equal(a.model.embed_tokens.weight, c.model.embed_tokens.weight)


def test_a_saved_text_lm_is_a_base(bpe_folder, tmp_path):
    model, tokenizer = load_base_lm(
        BaseModelConfig(text_tokenizer=str(bpe_folder), hidden_size=32, num_layers=1, num_heads=2)
    )
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, reloaded = load_base_lm(BaseModelConfig(source=str(tmp_path)))
    assert torch.equal(again.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert reloaded("bonjour")["input_ids"] == tokenizer("bonjour")["input_ids"]


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="needs text_tokenizer"):
        load_base_lm(BaseModelConfig())
    with pytest.raises(CheckpointError, match="cannot load a causal LM"):
        load_base_lm(BaseModelConfig(source=str(tmp_path)))
    with pytest.raises(CheckpointError, match="no GGUF file"):
        load_base_lm(BaseModelConfig(source=str(tmp_path / "x.gguf")))
    with pytest.raises(ConfigError, match="hidden_size = 30 is not a multiple of num_heads = 4"):
        BaseModelConfig(hidden_size=30)


def test_an_attention_that_is_not_installed_is_named(tmp_path):
    if importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("flash-attn is installed")
    tiny_text_tokenizer().save_pretrained(tmp_path / "text")
    config = BaseModelConfig(
        text_tokenizer=str(tmp_path / "text"), hidden_size=32, num_layers=1, num_heads=2,
        attn_implementation="flash_attention_2",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"'flash_attention_2' is not to be had here .*use sdpa"):
        load_base_lm(config)
    tiny_model(64).save_pretrained(tmp_path / "base")
    tiny_text_tokenizer().save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"flash_attention_2.* is not to be had here"):
        load_base_lm(BaseModelConfig(source=str(tmp_path / "base"), attn_implementation="flash_attention_2"))
