"""What must hold for any decoder LLM: one tiny random model of each family, tied and untied."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config

from speechllm.data.collate import collate_rows
from speechllm.generation.decode import LMDecoder
from speechllm.models.adapters import LoraSettings, add_adapters, check_round_trip, merge_adapters
from speechllm.models.causal_lm import extend_causal_lm, num_text_rows
from speechllm.processor import EncodedExample
from speechllm.training.checks import check_packing
from speechllm.training.throughput import model_work
from speechllm.training.trainer import target_losses
from speechllm.vocabulary import Vocabulary
from tests.support.tiny import NUM_CODES, SIZES, tiny_model, tiny_processor

PROCESSOR = tiny_processor(semantic=False)
TEXT_ROWS = PROCESSOR.vocabulary["text"].size
SIZE = PROCESSOR.vocabulary.size
IDS = torch.randint(TEXT_ROWS, (2, 19), generator=torch.Generator().manual_seed(0))
MIXED = torch.randint(SIZE, (2, 19), generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=SIZES)
def family(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def tied(request):
    return request.param


def text_model(family, tied):
    """A text LM whose head, if it has a bias, has one that is not 0."""
    model = tiny_model(TEXT_ROWS, family, tied=tied)
    bias = model.get_output_embeddings().bias
    if bias is not None:
        torch.nn.init.normal_(bias)
    return model


def extended(family, tied, init="normal"):
    return extend_causal_lm(text_model(family, tied), PROCESSOR.vocabulary, init=init)


def logits(model, ids=MIXED, **inputs):
    with torch.no_grad():
        return model(ids, use_cache=False, **inputs).logits


def examples(num=5):
    generator = np.random.default_rng(0)
    made = []
    for length in generator.integers(9, 24, size=num):
        ids = generator.integers(SIZE, size=length)
        made.append(EncodedExample(ids, np.arange(length) > 3))
    return made


def test_text_logits_and_old_rows_are_bit_identical(family, tied):
    model = text_model(family, tied)
    before = logits(model, IDS)
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = [layer.weight.detach().clone() for layer in layers]
    extend_causal_lm(model, PROCESSOR.vocabulary, init="mean_noise")
    after = logits(model, IDS)
    assert after.shape[-1] == model.config.vocab_size == num_text_rows(model) == SIZE
    assert torch.equal(after[..., :TEXT_ROWS], before)
    for layer, old in zip((model.get_input_embeddings(), model.get_output_embeddings()), rows, strict=True):
        assert len(layer.weight) == SIZE
        assert torch.equal(layer.weight[:TEXT_ROWS], old)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_bias_in_the_head_grows_too(tied):
    model = text_model("phi", tied)
    old = model.get_output_embeddings().bias.detach().clone()
    extend_causal_lm(model, PROCESSOR.vocabulary, init="mean")
    bias = model.get_output_embeddings().bias
    assert torch.equal(bias[:TEXT_ROWS], old)
    assert torch.allclose(bias[TEXT_ROWS:], old.mean())
    zeros = extended("phi", tied, "zeros").get_output_embeddings().bias
    assert not zeros[TEXT_ROWS:].any()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_equals_unpacked(family, attention):
    """Examples in one row do not see each other, whatever the attention of the family (windows are shorter here)."""
    model = extended(family, tied=False)
    if attention == "sdpa" and not model._supports_sdpa:
        pytest.skip("transformers has eager attention alone for this family")
    model.set_attn_implementation(attention)
    made = examples()
    batch = collate_rows([made[:3], made[3:]], pad_id=0)
    packed = logits(model, batch["input_ids"], position_ids=batch["position_ids"])
    for row, column, example in [(0, 0, made[0]), (0, len(made[0]), made[1]), (1, len(made[3]), made[4])]:
        alone = logits(model, torch.from_numpy(example.input_ids)[None])[0]
        # The same sums in other blocks: float32 rounding.
        torch.testing.assert_close(packed[row, column : column + len(example)], alone, rtol=1e-4, atol=1e-5)


def test_the_loss_of_training_is_the_models_own(family, tied):
    """The output layer sees the targets alone; caps and scales behind it stay."""
    model = extended(family, tied)
    batch = collate_rows([examples()[:3], examples()[3:]], pad_id=0)
    with torch.no_grad():
        losses, _, _ = target_losses(model, batch, model.get_output_embeddings())
        own = model(**batch, use_cache=False).loss
    assert losses.mean().item() == pytest.approx(own.item(), rel=1e-5)


def test_reloads_bit_equal_as_a_stock_model(family, tied, tmp_path):
    model = extended(family, tied)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    assert torch.equal(logits(again), logits(model))
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied


def test_decoding_cuts_the_head(family, tied):
    assert LMDecoder(extended(family, tied), PROCESSOR).lm.has_cut_head


def test_adapters_merge_into_a_stock_model(family, tied):
    model = extended(family, tied)
    before = logits(model)
    old = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = add_adapters(model, PROCESSOR.vocabulary, LoraSettings(rank=2))
    assert torch.equal(logits(adapted.eval()), before)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.01)
    adapted(MIXED, labels=MIXED, use_cache=False).loss.backward()
    optimizer.step()
    with_adapters = logits(adapted)
    assert not torch.allclose(with_adapters, before, atol=1e-3)
    merged = merge_adapters(adapted)
    # Folding B @ A into a weight changes only the order of float32 sums.
    torch.testing.assert_close(logits(merged), with_adapters, rtol=1e-3, atol=2e-4)
    assert type(merged) is type(model)
    for layer in (merged.get_input_embeddings(), merged.get_output_embeddings()):
        name = next(name for name, module in merged.named_modules() if module is layer)
        assert torch.equal(layer.weight[:TEXT_ROWS], old[f"{name}.weight"][:TEXT_ROWS])
        assert not torch.equal(layer.weight[TEXT_ROWS:], old[f"{name}.weight"][TEXT_ROWS:])


def test_padded_text_rows_stay_between_text_and_audio(family):
    """Makers pad matrices: rows without a token keep their numbers, and audio begins behind them."""
    padded = Vocabulary.for_speech(TEXT_ROWS + 61, NUM_CODES)
    model = tiny_model(TEXT_ROWS + 61, family)
    before = logits(model, IDS)
    extend_causal_lm(model, padded, init="centroid", centroids=torch.randn(NUM_CODES, 5), seed=1)
    assert torch.equal(logits(model, IDS)[..., : TEXT_ROWS + 61], before)


def test_a_family_that_also_sees_is_trained_as_a_text_model(tmp_path):
    """Its config has the sizes one level down; the eyes stay as they are."""
    text = {"vocab_size": TEXT_ROWS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8}  # fmt: skip
    eyes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 16, "patch_size": 8}  # fmt: skip
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    before = logits(model, IDS)
    extend_causal_lm(model, PROCESSOR.vocabulary, init="mean_noise")
    assert torch.equal(logits(model, IDS)[..., :TEXT_ROWS], before)
    assert "do not see each other" in check_packing(model, examples())
    decoder = sum(p.numel() for n, p in model.named_parameters() if "language_model.layers" in n and p.ndim == 2)
    assert model_work(model).per_token == 6 * decoder
    assert LMDecoder(model, PROCESSOR).lm.has_cut_head
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again), logits(model))
    adapted = add_adapters(again, PROCESSOR.vocabulary, LoraSettings(rank=2))
    check_round_trip(adapted, PROCESSOR.vocabulary)
    torch.testing.assert_close(logits(merge_adapters(adapted)), logits(model))
