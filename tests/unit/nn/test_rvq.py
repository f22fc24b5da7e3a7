"""Residual vector quantisation: what it learns from batches, and that gradients pass."""

import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.nn.rvq import ResidualVectorQuantizer, RVQConfig, kmeans, nearest


def quantizer(**changes):
    return ResidualVectorQuantizer(4, RVQConfig(**({"num_codebooks": 3, "codebook_size": 8} | changes)))


def latents(seed=0, B=6, T=50):
    return torch.randn(B, 4, T, generator=torch.Generator().manual_seed(seed))


def fitted(**changes):
    torch.manual_seed(0)
    made = quantizer(**changes).train()
    made(latents())
    return made


def test_the_first_batch_fits_and_each_level_comes_closer():
    made = fitted().eval()
    codes, truth = made.encode(latents()), latents()
    errors = [float((made.decode(codes[:, :k]) - truth).square().mean()) for k in (1, 2, 3)]
    assert bool(made.is_fitted)
    assert float(truth.square().mean()) > errors[0] > errors[1] > errors[2]
    assert [len(codes[:, k].unique()) for k in range(3)] == [8, 8, 8]


def test_codebooks_fitted_to_many_batches_are_not_fitted_again():
    torch.manual_seed(0)
    made = quantizer(dropout_share=0.0).train()
    made.fit(latents(B=40))
    assert bool(made.is_fitted)
    assert made.counts.sum(1).tolist() == pytest.approx([2_000] * 3)
    before = made.vectors().clone()
    made(latents(3))
    assert float((made.vectors() - before).abs().max()) < 0.5


def test_gradients_pass_as_if_nothing_had_been_quantised():
    made = fitted().eval()
    inputs = latents(1).requires_grad_()
    output = made(inputs)
    weights = torch.randn_like(inputs)
    (output.latents * weights).sum().backward()
    assert torch.equal(inputs.grad, weights)
    torch.testing.assert_close(output.latents, made.decode(output.codes), atol=1e-6, rtol=0)


def test_commitment_is_the_distance_to_what_was_chosen():
    made = fitted(num_codebooks=1).eval()
    inputs = latents(1).requires_grad_()
    output = made(inputs)
    distance = (inputs - made.decode(output.codes)).square().mean()
    torch.testing.assert_close(output.commitment, distance)
    output.commitment.backward()
    torch.testing.assert_close(inputs.grad, 2 * (inputs - made.decode(output.codes)).detach() / inputs.numel())


def test_codebooks_follow_the_batches_at_the_decay():
    made = fitted(num_codebooks=1, codebook_size=2, decay=0.9, dropout_share=0.0)
    before = made.counts[0].clone(), made.sums[0].clone()
    batch = latents(3)
    chosen = made(batch).codes[:, 0].flatten()
    vectors = batch.transpose(1, 2).flatten(0, 1)
    for code in range(2):
        mine = vectors[chosen == code]
        torch.testing.assert_close(made.counts[0, code], 0.9 * before[0][code] + 0.1 * len(mine))
        torch.testing.assert_close(made.sums[0, code], 0.9 * before[1][code] + 0.1 * mine.sum(0))


def test_codes_that_nobody_chooses_start_again_in_the_batch():
    made = fitted(num_codebooks=1, decay=0.9)
    made.sums[0, 3] = 1e3 * made.counts[0, 3]
    for seed in range(60):
        made(latents(seed))
    assert float(made.vectors()[0, 3].abs().max()) < 10
    usage = torch.bincount(made.eval().encode(latents(500))[:, 0].flatten(), minlength=8)
    assert int(usage.min()) > 0


def test_without_dropout_every_row_uses_all_levels_and_with_it_any_number():
    made = fitted(dropout_share=0.0)
    torch.manual_seed(1)
    assert set(made._levels(64).tolist()) == {3}
    assert set(fitted()._levels(64).tolist()) == {1, 2, 3}
    assert set(fitted().eval()._levels(64).tolist()) == {3}


def test_training_is_a_function_of_the_seed():
    one, two = fitted(), fitted()
    for made in (one, two):
        torch.manual_seed(5)
        made(latents(4))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))


def test_kmeans_comes_closer_with_every_round():
    vectors = latents(B=1, T=300)[0].T
    errors = []
    for iterations in (0, 1, 3, 10):
        torch.manual_seed(2)
        centroids, counts = kmeans(vectors, 8, iterations)
        errors.append(float((vectors - centroids[nearest(vectors, centroids)]).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]
    assert int(counts.sum()) == 300


def test_a_batch_smaller_than_the_codebook_still_fits():
    torch.manual_seed(0)
    made = quantizer(codebook_size=64).train()
    made(latents(B=1, T=20))
    assert bool(torch.isfinite(made.vectors()).all())


@pytest.mark.parametrize("bad", [{"num_codebooks": 0}, {"codebook_size": 1}, {"decay": 1.5}, {"dropout_share": -0.1}])
def test_sizes_that_make_no_quantizer_are_refused(bad):
    with pytest.raises(ConfigError, match="expected"):
        RVQConfig(**bad)
