"""The cache written in place gives what transformers' own gives, in any family, and rows can leave."""

import pytest
import torch
from transformers import DynamicCache, MambaConfig

from speechllm.generation.cache import PreallocatedCache, new_cache, select_rows
from tests.support.tiny import SIZES, tiny_model


@pytest.mark.parametrize("family", SIZES)
@pytest.mark.parametrize("reserve", [1, 64])
def test_equals_the_dynamic_cache(family: str, reserve: int):
    model = tiny_model(64, family)
    ids = torch.randint(0, 64, (3, 12), generator=torch.Generator().manual_seed(0))
    ours, theirs = new_cache(model.config, reserve), DynamicCache(config=model.config)
    assert isinstance(ours, PreallocatedCache)
    with torch.no_grad():
        for start, stop in ((0, 5), (5, 6), (6, 9), (9, 12)):
            logits = [
                model(ids[:, start:stop], past_key_values=cache, use_cache=True).logits for cache in (ours, theirs)
            ]
            # The same sums; kernels may differ in blocking between views and copies.
            assert torch.allclose(*logits, atol=1e-4)
            assert ours.get_seq_length() == stop


def test_rows_leave_and_multiply():
    model = tiny_model(64)
    ids = torch.randint(0, 64, (3, 6), generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        for chosen in (rows, torch.tensor([1, 1, 1, 0, 2])):
            cache = new_cache(model.config, 8)
            model(ids[:, :5], past_key_values=cache, use_cache=True)
            select_rows(cache, chosen)
            got = model(ids[chosen, 5:], past_key_values=cache, use_cache=True).logits[:, -1]
            assert torch.allclose(got, model(ids[chosen]).logits[:, -1], atol=1e-5)


def test_what_is_no_attention_gets_the_cache_of_transformers():
    config = MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=8)
    assert not isinstance(new_cache(config, 8), PreallocatedCache)
