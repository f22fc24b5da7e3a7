"""A base in four bits. With bitsandbytes alone: its CPU kernels are enough."""

import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.models.adapters import LoraSettings, add_adapters, merge_adapters
from speechllm.models.causal_lm import extend_causal_lm
from speechllm.models.four_bit import dequantized_linear, is_four_bit, quantize_trunk
from speechllm.vocabulary import Vocabulary
from tests.support.tiny import tiny_model

VOCABULARY = Vocabulary.for_speech(40, 24)
IDS = torch.randint(VOCABULARY.size, (2, 11), generator=torch.Generator().manual_seed(0))
FAMILIES = ["llama", "qwen2", "phi", "gpt_neox"]


def extended(family="llama", tied=True):
    return extend_causal_lm(tiny_model(40, family, tied=tied, width=128), VOCABULARY, init="normal")


def logits(model):
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def step(model, steps=2):
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
    return model.eval()


def test_without_bitsandbytes_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"needs the package bitsandbytes; pip install 'speechllm\[qlora\]'"):
        quantize_trunk(extended())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trunk_alone_is_quantized_and_near_what_it_was(family):
    pytest.importorskip("bitsandbytes")
    model = extended(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize_trunk(model)
    small = {name: module for name, module in model.named_modules() if is_four_bit(module)}
    assert len(small) >= 8
    for name, layer in small.items():
        weight, old = dequantized_linear(layer).weight, before[f"{name}.weight"]
        # Sixteen levels for normal numbers in blocks of 64: 0.09 of their standard deviation.
        assert 0.08 < (weight - old).std() / old.std() < 0.1
    kept = [name for name, _ in model.named_parameters() if name.removesuffix(".weight") not in small]
    assert all(torch.equal(model.get_parameter(name), before[name]) for name in kept)
    assert torch.isfinite(logits(model)).all()


def test_what_a_cpu_would_misread_is_refused():
    pytest.importorskip("bitsandbytes")
    with pytest.raises(ConfigError, match=r"layers\.0\.self_attn\.q_proj has width 32: on a CPU"):
        quantize_trunk(tiny_model(40))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", ["all-linear", "some"])
def test_merged_equals_unmerged_and_is_a_stock_model(family, targets, tmp_path):
    """Peft's own merge would round to four bits again."""
    pytest.importorskip("bitsandbytes")
    names = {"gpt_neox": ["dense"]}.get(family, ["q_proj"])
    settings = LoraSettings(rank=2, four_bit="nf4", target_modules=targets if targets == "all-linear" else names)
    adapted = add_adapters(extended(family, tied=False), VOCABULARY, settings)
    frozen = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    start = logits(adapted.eval())  # a pass in evaluation mode first: it must not cost the gradients of what follows
    step(adapted)
    assert all(torch.equal(frozen[name], p) for name, p in adapted.named_parameters() if name in frozen)
    with_adapters = logits(adapted)
    assert not torch.allclose(with_adapters, start, atol=1e-3)
    assert all("lora_B" not in name or p.any() for name, p in adapted.named_parameters())
    merged = merge_adapters(adapted)
    assert type(merged) is type(extended(family))
    assert not any(is_four_bit(module) for module in merged.modules())
    torch.testing.assert_close(logits(merged), with_adapters, rtol=1e-3, atol=5e-4)
    merged.save_pretrained(tmp_path)
    again = type(merged).from_pretrained(tmp_path).eval()
    assert torch.equal(logits(again), logits(merged.eval()))
