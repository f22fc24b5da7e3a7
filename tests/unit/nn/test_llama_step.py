import copy

import pytest
import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaModel

from speechllm.nn.llama_step import LlamaSteps, StepMemory


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LlamaModel(config).eval()


@pytest.mark.parametrize("padding", [(0, 0), (3, 0)], ids=["none", "left"])
def test_steps_give_what_the_whole_model_gives(trunk, padding):
    B, T, num_steps = 2, 6, 4
    ids = torch.randint(30, (B, T + num_steps), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(T + num_steps)[None] >= torch.tensor(padding)[:, None]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = trunk(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state
        cache = DynamicCache(config=trunk.config)
        trunk(
            input_ids=ids[:, :T], attention_mask=mask[:, :T], position_ids=positions[:, :T], past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        steps, memory = LlamaSteps(trunk), StepMemory(cache, reserve=num_steps)
        for t in range(T, T + num_steps):
            now = slice(t, t + 1)
            seen = mask[:, : t + 1] if any(padding) else None
            hidden = steps(ids[:, now], positions=positions[:, now], memory=memory, mask=seen)
            # other kernels for one position than for many: rounding differs
            torch.testing.assert_close(hidden, whole[:, now], atol=1e-5, rtol=0)
    assert memory.length == T + num_steps


def read(trunk, ids):
    """Return the cache behind ids without padding."""
    cache = DynamicCache(config=trunk.config)
    trunk(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def test_rows_that_stay_do_not_notice_those_that_leave(trunk):
    ids = torch.randint(30, (3, 6), generator=torch.Generator().manual_seed(1))
    stays = torch.tensor([0, 2])
    with torch.no_grad():
        steps, memory = LlamaSteps(trunk), StepMemory(read(trunk, ids[:, :4]), reserve=2)
        places = torch.full((3, 1), 4)
        steps(ids[:, 4:5], positions=places, memory=memory, mask=None)
        memory.select_rows(stays, trunk.config.num_attention_heads)
        hidden = steps(ids[stays, 5:], positions=places[stays] + 1, memory=memory, mask=None)
        torch.testing.assert_close(hidden, trunk(input_ids=ids[stays]).last_hidden_state[:, 5:], atol=1e-5, rtol=0)
        with pytest.raises((IndexError, RuntimeError)):
            steps(ids[stays, 5:], positions=places[stays], memory=memory, mask=None)


class Doubled(nn.Module):
    """A linear layer with something around it, as adapters are."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.weight = inner, inner.weight

    def forward(self, x):
        return 2 * self.inner(x)


def test_an_adapted_projection_counts(trunk):
    adapted = copy.deepcopy(trunk)
    for name in ("k_proj", "o_proj"):
        setattr(adapted.layers[0].self_attn, name, Doubled(getattr(adapted.layers[0].self_attn, name)))
    ids = torch.tensor([[3, 4]])
    with torch.no_grad():
        whole = adapted(input_ids=ids).last_hidden_state
        steps, memory = LlamaSteps(adapted), StepMemory(read(adapted, ids[:, :1]), reserve=1)
        hidden = steps(ids[:, 1:], positions=torch.tensor([[1]]), memory=memory, mask=None)
        torch.testing.assert_close(hidden, whole[:, 1:], atol=1e-5, rtol=0)
        assert not torch.allclose(whole, trunk(input_ids=ids).last_hidden_state)
