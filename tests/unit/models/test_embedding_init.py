import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.models.embedding_init import new_rows


@pytest.fixture
def text_rows():
    generator = torch.Generator().manual_seed(7)
    return 0.02 * torch.randn(400, 16, generator=generator) @ torch.randn(16, 16, generator=generator) + 0.05


def make(text_rows, init, num=300, centroids=None):
    return new_rows(text_rows, num, init, generator=torch.Generator().manual_seed(1), centroids=centroids)


def test_zeros_and_mean_are_what_they_say(text_rows):
    assert torch.equal(make(text_rows, "zeros"), torch.zeros(300, 16))
    assert torch.equal(make(text_rows, "mean"), text_rows.mean(0).expand(300, 16))


def test_normal_has_the_spread_of_text_rows(text_rows):
    rows = make(text_rows, "normal", 4000)
    assert rows.std().item() == pytest.approx(text_rows.std().item(), rel=0.05)
    assert rows.mean().abs().item() < 0.01


def test_multivariate_has_mean_and_covariance_of_text_rows(text_rows):
    rows = make(text_rows, "multivariate", 20_000)
    assert torch.allclose(rows.mean(0), text_rows.mean(0), atol=5e-3)
    assert torch.allclose(rows.T.cov(), text_rows.T.cov(), atol=0.05 * text_rows.T.cov().diagonal().max().item())


def test_mean_noise_stays_near_the_mean(text_rows):
    rows = make(text_rows, "mean_noise", 4000)
    assert (rows - text_rows.mean(0)).std().item() == pytest.approx(0.1 * text_rows.std().item(), rel=0.05)


@pytest.mark.parametrize("width", [5, 16, 40])
def test_centroid_rows_keep_who_is_near_whom(text_rows, width):
    centroids = torch.randn(8, width, generator=torch.Generator().manual_seed(3)).repeat_interleave(2, 0)
    centroids[1::2] += 0.01
    rows = make(text_rows, "centroid", 16, centroids)
    assert (rows - rows.mean(0)).std().item() == pytest.approx(text_rows.std().item(), rel=0.02)
    distances = torch.cdist(rows, rows).fill_diagonal_(float("inf"))
    assert distances.argmin(1).tolist() == [i ^ 1 for i in range(16)]


def test_same_seed_same_rows(text_rows):
    assert torch.equal(make(text_rows, "multivariate"), make(text_rows, "multivariate"))


def test_centroid_errors(text_rows):
    with pytest.raises(ConfigError, match="needs the semantic tokenizer's centroids"):
        make(text_rows, "centroid")
    with pytest.raises(ConfigError, match="got 4 centroids for 300 semantic ids"):
        make(text_rows, "centroid", centroids=torch.zeros(4, 3))
