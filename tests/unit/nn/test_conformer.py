import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.nn import conformer
from speechllm.nn.conformer import Conformer, ConformerConfig, length_mask
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


def test_attention_written_out_is_the_kernel_of_torch(trunk, monkeypatch):
    x, mask = torch.randn(2, 11, 16), length_mask(torch.tensor([11, 6]), 11)
    written_out = trunk(x, mask)
    monkeypatch.setattr(conformer, "SHORT", 0)
    torch.testing.assert_close(trunk(x, mask)[0], written_out[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(trunk(x, mask)[1, :6], written_out[1, :6], atol=1e-5, rtol=0)
