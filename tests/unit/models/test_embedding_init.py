import typing

import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.models.causal_lm import extend_causal_lm
from speechllm.models.embedding_init import RowInit, new_rows
from speechllm.vocabulary import Vocabulary
from tests.support.tiny import tiny_model


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


@pytest.mark.parametrize("width", [5, 16])
def test_centroid_rows_are_the_codebook_in_another_basis(text_rows, width):
    """Where there is room all distances stay, up to one scale; the mean row is that of the text."""
    centroids = torch.randn(12, width, generator=torch.Generator().manual_seed(3)) + 4
    rows = make(text_rows, "centroid", 12, centroids)
    upper = torch.triu_indices(12, 12, 1)
    ratio = (torch.cdist(rows, rows) / torch.cdist(centroids, centroids))[upper[0], upper[1]]
    assert ratio.max() / ratio.min() < 1.001
    assert torch.allclose(rows.mean(0), text_rows.mean(0), atol=1e-5)


@pytest.mark.parametrize("init", typing.get_args(RowInit))
def test_rows_are_a_function_of_the_seed_and_leave_text_alone(text_rows, init):
    before, centroids = text_rows.clone(), torch.randn(300, 7, generator=torch.Generator().manual_seed(3))
    first, second = (make(text_rows, init, centroids=centroids) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(text_rows, before)
    assert first.shape == (300, 16)
    assert first.dtype == torch.float32
    half = make(text_rows.bfloat16(), init, centroids=centroids)
    assert torch.allclose(half, first, atol=0.05)
    other = new_rows(text_rows, 300, init, generator=torch.Generator().manual_seed(2), centroids=centroids)
    assert torch.equal(other, first) == (init in ("zeros", "mean"))


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_mean_rows_bound_the_shift_of_text_probabilities(family):
    """Hewitt's law: n ids at the mean logit of V take at most n of V + n shares (Jensen), head bias or not."""
    vocabulary = Vocabulary.for_speech(60, 20)
    model = tiny_model(60, family)
    if model.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    ids = torch.randint(60, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(ids).logits.softmax(-1)
        after = extend_causal_lm(model, vocabulary, init="mean")(ids).logits.softmax(-1)
    assert (after[..., :60] >= before * 60 / vocabulary.size * (1 - 1e-5)).all()


def test_centroid_errors(text_rows):
    with pytest.raises(ConfigError, match="needs the semantic tokenizer's centroids"):
        make(text_rows, "centroid")
    with pytest.raises(ConfigError, match="got 4 centroids for 300 semantic ids"):
        make(text_rows, "centroid", centroids=torch.zeros(4, 3))
