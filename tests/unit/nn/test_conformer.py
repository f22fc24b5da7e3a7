import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.nn import conformer
from speechllm.nn.conformer import Conformer, ConformerConfig, attention_written_out, length_mask
from speechllm.nn.rotary import apply_rotary, rotary_angles

SMALL = ConformerConfig(width=16, num_layers=2, num_heads=2)


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    return Conformer(SMALL).eval()


def test_padding_changes_nothing_whatever_it_holds(trunk):
    x = torch.randn(1, 7, 16)
    alone = trunk(x, length_mask(torch.tensor([7]), 7))
    padded = torch.cat((x, 1_000 * torch.randn(1, 5, 16)), dim=1)
    together = trunk(padded, length_mask(torch.tensor([7]), 12))[:, :7]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_it_looks_both_ways(trunk):
    x = torch.randn(1, 9, 16)
    changed = x.clone()
    changed[0, 4] += 1
    mask = length_mask(torch.tensor([9]), 9)
    moved = (trunk(x, mask) - trunk(changed, mask)).abs().sum(-1)[0]
    assert bool((moved > 0).all())


def test_a_longer_kernel_has_more_weights_and_the_same_shape():
    long = Conformer(ConformerConfig(width=16, num_layers=1, num_heads=2, kernel_size=9))
    assert long.layers[0].convolution.depthwise.weight.shape == (16, 1, 9)
    assert long(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)).shape == (2, 3, 16)


@pytest.mark.parametrize("wrong", [{"width": 10, "num_heads": 4}, {"kernel_size": 4}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ConfigError):
        ConformerConfig(**wrong)


def test_rotary_scores_depend_on_distance_alone():
    cos, sin = rotary_angles(20, 8)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    turned_q = apply_rotary(q.expand(1, 1, 20, 8), cos, sin)
    turned_k = apply_rotary(k.expand(1, 1, 20, 8), cos, sin)
    scores = (turned_q @ turned_k.transpose(2, 3))[0, 0]
    torch.testing.assert_close(scores[3, 1], scores[15, 13], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1).expand(1, 1, 20), atol=1e-5, rtol=0)
    assert abs(float(scores[3, 1] - scores[3, 7])) > 1e-3


def test_attention_written_out_is_the_kernel_of_torch():
    mask = length_mask(torch.tensor([11, 6]), 11)
    q, k, v = (torch.randn(2, 2, 11, 8, requires_grad=True) for _ in range(3))
    kernel = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    written_out = attention_written_out(q, k, v, mask)
    torch.testing.assert_close(written_out, kernel, atol=1e-5, rtol=0)
    weights = torch.randn_like(kernel)
    expected = torch.autograd.grad((kernel * weights).sum(), (q, k, v))
    gradients = torch.autograd.grad((written_out * weights).sum(), (q, k, v))
    torch.testing.assert_close(gradients, expected, atol=1e-5, rtol=0)


def test_attention_is_written_out_in_bfloat16_training_alone(trunk, monkeypatch):
    calls = []
    monkeypatch.setattr(conformer, "attention_written_out", lambda q, k, v, mask: calls.append(q.dtype) or v)
    x, mask = torch.randn(1, 7, 16), torch.ones(1, 7, dtype=torch.bool)
    trunk(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            trunk(x, mask)
        assert not calls
        trunk(x, mask)
    assert calls == [torch.bfloat16] * SMALL.num_layers
