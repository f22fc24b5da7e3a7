import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from speechllm.errors import ConfigError
from speechllm.models.adapters import (
    WEIGHTS,
    LoraSettings,
    add_adapters,
    merge_adapters,
    save_adapters,
    train_new_rows_only,
)
from speechllm.models.causal_lm import extend_causal_lm
from speechllm.training.optim import OptimizerConfig, build_optimizer
from speechllm.vocabulary import Vocabulary

VOCABULARY = Vocabulary.for_speech(40, 24)
IDS = torch.randint(VOCABULARY.size, (2, 11), generator=torch.Generator().manual_seed(0))


def extended(tied):
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    return extend_causal_lm(LlamaForCausalLM(config), VOCABULARY, init="normal")


def train(model, steps=3):
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def tied(request):
    return request.param


def test_merged_equals_unmerged_and_only_new_rows_moved(tied):
    before = extended(tied)
    old = {k: v.clone() for k, v in before.state_dict().items()}
    model = train(add_adapters(before, VOCABULARY, LoraSettings(rank=4)))
    with_adapters = logits(model)
    merged = merge_adapters(model)
    assert type(merged) is LlamaForCausalLM
    # Folding B @ A into a weight changes only the order of float32 sums.
    assert torch.allclose(logits(merged), with_adapters, atol=1e-4)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        new = merged.state_dict()[name]
        assert torch.equal(new[:40], old[name][:40]), name
        assert not torch.equal(new[40:], old[name][40:]), name
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == tied


def test_a_saved_adapter_reloads_exactly(tied, tmp_path):
    from peft import PeftModel

    model = train(add_adapters(extended(tied), VOCABULARY, LoraSettings(rank=4)))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(extended(tied), tmp_path).eval()
    assert torch.equal(logits(again), logits(model))


def test_adapters_change_nothing_before_training(tied):
    model = extended(tied)
    before = logits(model)
    assert torch.equal(logits(add_adapters(model, VOCABULARY, LoraSettings(rank=4)).eval()), before)


def test_errors():
    with pytest.raises(ConfigError, match="call extend_causal_lm first"):
        add_adapters(extended(True), Vocabulary.for_speech(40, 25), LoraSettings())
    with pytest.raises(ConfigError, match="has no adapters to merge"):
        merge_adapters(extended(True))


def test_new_rows_alone_move_and_the_rest_stays_bit_identical(tied):
    model = extended(tied)
    old = {k: v.clone() for k, v in model.state_dict().items()}
    train_new_rows_only(model, VOCABULARY)
    optimizer = build_optimizer(model, OptimizerConfig(kind="muon", learning_rate=0.01, weight_decay=0.1))
    for _ in range(3):
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for name, value in model.state_dict().items():
        has_rows = name in ("model.embed_tokens.weight", "lm_head.weight")
        kept = slice(0, 40) if has_rows else slice(None)
        assert torch.equal(value[kept], old[name][kept]), name
        assert not has_rows or not torch.equal(value[40:], old[name][40:]), name


def test_adapters_on_a_base_from_disk_hold_no_whole_matrix(tmp_path):
    """The base's own folder has fewer rows than the extended model, which peft would answer with the whole matrix."""
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    )
    base.save_pretrained(tmp_path / "base")
    vocabulary = Vocabulary.for_speech(90, 8)
    model = extend_causal_lm(LlamaForCausalLM.from_pretrained(tmp_path / "base"), vocabulary, init="normal", seed=0)
    save_adapters(add_adapters(model, vocabulary, LoraSettings(rank=2)), vocabulary, tmp_path / "adapter")
    sizes = {name: tuple(t.shape) for name, t in load_file(tmp_path / "adapter" / WEIGHTS).items()}
    assert any("trainable_tokens" in name for name in sizes)
    assert not any(rows >= 90 for rows, *_ in sizes.values())
