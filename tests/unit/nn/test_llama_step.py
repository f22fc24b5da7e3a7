import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

from speechllm.nn.llama_step import llama_step


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
        for t in range(T, T + num_steps):
            now = slice(t, t + 1)
            seen = mask[:, : t + 1] if any(padding) else None
            hidden = llama_step(trunk, ids[:, now], positions=positions[:, now], cache=cache, mask=seen)
            # other kernels for one position than for many: rounding differs
            torch.testing.assert_close(hidden, whole[:, now], atol=1e-5, rtol=0)
    assert cache.get_seq_length() == T + num_steps


def test_a_replaced_projection_counts(trunk):
    cache = DynamicCache(config=trunk.config)
    ids, positions = torch.tensor([[3]]), torch.tensor([[0]])
    with torch.no_grad():
        before = llama_step(trunk, ids, positions=positions, cache=cache, mask=None)
        handle = trunk.layers[0].mlp.down_proj.register_forward_hook(lambda module, inputs, output: 2 * output)
        after = llama_step(trunk, ids, positions=positions, cache=DynamicCache(config=trunk.config), mask=None)
        handle.remove()
    assert not torch.allclose(before, after)
