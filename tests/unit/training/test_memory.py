"""The estimate of memory against what torch really keeps."""

import pytest
import torch

from speechllm.models.adapters import LoraSettings, add_adapters
from speechllm.training.memory import estimate_memory, free_memory, optimizer_bytes
from speechllm.training.optim import OptimizerConfig, build_optimizer
from speechllm.training.trainer import target_losses
from speechllm.vocabulary import Vocabulary
from tests.support.tiny import tiny_model

SIZE, TOKENS = 120, 256


def batch():
    ids = torch.randint(SIZE, (2, TOKENS // 2), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids, "position_ids": (torch.arange(TOKENS // 2) % 40).expand(2, -1)}


def kept_bytes(model, bf16):
    """Bytes of all storages that autograd keeps for the backward pass, weights and their copies aside."""
    sizes, weights = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = {tuple(p.shape) for p in model.parameters() if p.ndim == 2}
    matrices |= {shape[::-1] for shape in matrices}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(tensor.shape) not in matrices:
            sizes[storage.data_ptr()] = (storage.nbytes(), storage)  # kept alive: addresses are not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses, _, _ = target_losses(model, batch(), model.get_output_embeddings())
        losses.sum()
    return sum(size for size, _ in sizes.values())


def estimate(model, bf16=False, checkpointing=False):
    return estimate_memory(
        model, OptimizerConfig(), max_tokens=TOKENS // 2, rows=2, bf16=bf16, checkpointing=checkpointing
    )


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "granite"])
def test_activations_are_about_those_that_autograd_keeps(family, bf16):
    model = tiny_model(SIZE, family, width=64).train()
    logits = 4 * SIZE * TOKENS
    # The estimate counts logits, their softmax and their gradient; the first two are kept by the forward pass.
    expected = estimate(model, bf16).activations - logits
    assert kept_bytes(model, bf16) == pytest.approx(expected, rel=0.15)


def test_checkpointing_keeps_the_inputs_of_the_layers():
    model = tiny_model(SIZE, width=64).train()
    model.activation_checkpointing_enable()
    # Here no layer is being computed anew, so none of it is in memory; nor is the gradient of the logits.
    layer = (estimate(model).activations - 12 * SIZE * TOKENS) / 2
    expected = estimate(model, checkpointing=True).activations - layer - 4 * SIZE * TOKENS
    assert kept_bytes(model, bf16=False) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor", "adamw8bit"])
@pytest.mark.parametrize("adapted", [False, True])
def test_optimizer_state_is_what_the_optimizer_holds(kind, adapted):
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    model = tiny_model(SIZE, width=64)
    if adapted:
        model = add_adapters(model, Vocabulary.for_speech(SIZE - 21, 20), LoraSettings(rank=4))
    config = OptimizerConfig(kind=kind)
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    # Step counters are single numbers; codebooks of 8-bit numbers (256 of them) are shared by all.
    codebooks = {tensor.data_ptr() for tensor in held if tensor.shape == (256,)}
    total = sum(t.nbytes for t in held if t.numel() > 1 and t.data_ptr() not in codebooks)
    assert optimizer_bytes(model, config) == pytest.approx(total, rel=0.02)


def test_parts_add_up_and_frozen_weights_have_no_gradients():
    model = tiny_model(SIZE, width=64)
    weights = sum(p.numel() * 4 for p in model.parameters())
    full = estimate(model)
    assert full.weights == full.gradients == weights
    assert full.total == full.fixed + full.activations
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    assert estimate(model).gradients == SIZE * 64 * 4
    assert estimate(model, bf16=True).weights > weights
    assert "GiB = weights" in str(full)
    assert free_memory(torch.device("cpu")) is None
