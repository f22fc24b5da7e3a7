"""k-means: finds separated clusters, streams, repeats itself bit for bit, leaves no code unused."""

import numpy as np
import pytest
import torch

from speechllm.errors import DataError
from speechllm.tokenizers.kmeans import KMeansConfig, assign, fit_kmeans


def blobs(num_blobs=6, size=200, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = 10 * torch.randn(num_blobs, width, generator=generator)
    frames = centers.repeat_interleave(size, 0) + 0.1 * torch.randn(num_blobs * size, width, generator=generator)
    return centers, frames[torch.randperm(len(frames), generator=generator)]


def stream(frames, size=37):
    return list(frames.split(size))


def test_assign_agrees_with_brute_force():
    frames, centroids = torch.randn(50, 7), torch.randn(11, 7)
    assert torch.equal(assign(frames, centroids), torch.cdist(frames, centroids).argmin(1))


def test_ties_go_to_the_lower_index():
    assert assign(torch.zeros(1, 2), torch.tensor([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])).tolist() == [1]


@pytest.mark.parametrize("buffer", [10_000, 300], ids=["in-memory", "streamed"])
def test_separated_clusters_are_found(buffer):
    centers, frames = blobs()
    fitted = fit_kmeans(stream(frames), 6, KMeansConfig(buffer_frames=buffer), standardize=False, seed=0)
    nearest = torch.cdist(centers, fitted.centroids).min(1).values
    assert nearest.max() < 0.2
    assert fitted.num_frames == len(frames)


def test_same_stream_and_seed_give_the_same_bits():
    _, frames = blobs(width=8)
    first, again = (fit_kmeans(stream(frames), 20, KMeansConfig(), standardize=True, seed=3) for _ in range(2))
    assert torch.equal(first.centroids, again.centroids)
    other = fit_kmeans(stream(frames), 20, KMeansConfig(), standardize=True, seed=4)
    assert not torch.equal(first.centroids, other.centroids)


def test_every_code_is_used_even_when_frames_repeat():
    frames = torch.cat([torch.zeros(500, 3), 5 * torch.randn(40, 3)])
    fitted = fit_kmeans([frames], 32, KMeansConfig(), standardize=False, seed=0)
    assert len(torch.unique(assign(frames, fitted.centroids))) == 32


def test_standardize_gives_unit_moments_and_survives_a_constant_feature():
    frames = torch.randn(400, 3) * torch.tensor([5.0, 0.1, 0.0]) + torch.tensor([2.0, -1.0, 7.0])
    fitted = fit_kmeans([frames], 4, KMeansConfig(), standardize=True, seed=0)
    scaled = (frames - fitted.mean) / fitted.scale
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)


def test_memory_is_bounded_by_the_caps():
    read = []

    def endless():
        generator = torch.Generator().manual_seed(0)
        while True:
            read.append(100)
            yield torch.randn(100, 4, generator=generator)

    fitted = fit_kmeans(
        endless(), 8, KMeansConfig(max_frames=1_050, buffer_frames=400, batch_frames=128), standardize=False, seed=0
    )
    assert fitted.num_frames == 1_050
    assert sum(read) == 1_100


def test_later_frames_come_in_minibatches_too(monkeypatch):
    from sklearn.cluster import MiniBatchKMeans

    sizes, partial_fit = [], MiniBatchKMeans.partial_fit
    monkeypatch.setattr(MiniBatchKMeans, "partial_fit", lambda self, X: (sizes.append(len(X)), partial_fit(self, X))[1])
    config = KMeansConfig(buffer_frames=400, batch_frames=100, passes=2)
    fit_kmeans(stream(blobs(size=150)[1], size=50), 6, config, standardize=False, seed=0)
    # 900 frames: the first 400 twice, 400 and 100 once.
    assert sizes == [100] * 13


def test_too_few_frames_and_nan_are_refused():
    with pytest.raises(DataError, match="10 frames of speech are too few for 16 codes"):
        fit_kmeans([torch.randn(10, 2)], 16, KMeansConfig(), standardize=False, seed=0)
    with pytest.raises(DataError, match="too few"):
        fit_kmeans([], 16, KMeansConfig(), standardize=False, seed=0)
    with pytest.raises(DataError, match="NaN"):
        fit_kmeans([torch.full((40, 2), float("nan"))], 16, KMeansConfig(), standardize=False, seed=0)


def test_centroids_are_float32():
    _, frames = blobs()
    fitted = fit_kmeans([frames], 6, KMeansConfig(), standardize=True, seed=0)
    assert {fitted.centroids.dtype, fitted.mean.dtype, fitted.scale.dtype} == {torch.float32}
    assert isinstance(np.asarray(fitted.centroids), np.ndarray)
