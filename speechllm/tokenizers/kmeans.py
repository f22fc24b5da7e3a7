"""Streaming k-means: a codebook from a stream of feature frames, in bounded memory.

    fitted = fit_kmeans((features(audio) for audio in audios), 512, KMeansConfig(), standardize=True, seed=0)
    codes = assign((features(audio) - fitted.mean) / fitted.scale, fitted.centroids)     # int64 [T]

The first `buffer_frames` frames are held and iterated over; what comes later is seen once, in minibatches, up to
`max_frames`. Web-scale k-means (Sculley, WWW 2010) as in scikit-learn; empty clusters are re-seeded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechllm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class KMeansConfig:
    """How a codebook is fitted."""

    max_frames: int = 1_000_000
    "Frames used at most; the rest of the stream is not read."
    buffer_frames: int = 100_000
    "Frames held in memory at once (100,000 frames of 512 float32 are 200 MB)."
    batch_frames: int = 8_192
    "Frames in one minibatch step."
    passes: int = 10
    "How often the first buffer is iterated over."


MAX_RESEEDS = 20
"Rounds in which codes that no frame chose are moved."
ASSIGN_FRAMES = 4096
"Frames compared with all centroids at once: the table of distances stays small."


@dataclass(frozen=True)
class FittedKMeans:
    """The codebook, and the shift and scale that come before it (0 and 1 when not standardised)."""

    centroids: Float[Tensor, "N D"]
    mean: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]
    num_frames: int


class NearestCentroid:
    """Finds the nearest centroid of each frame; what depends on the centroids alone is worked out once."""

    def __init__(self, centroids: Float[Tensor, "N D"]):
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for every c. In float64 against cancellation.
        self._columns = centroids.double().T.contiguous()
        self._squares = centroids.double().square().sum(1)

    def __call__(self, frames: Float[Tensor, "T D"]) -> Int[Tensor, " T"]:
        """Return the index of the nearest centroid of each frame; ties go to the lower index."""
        blocks = frames.split(ASSIGN_FRAMES) if len(frames) else (frames,)
        return torch.cat([self._nearest(block) for block in blocks])

    def _nearest(self, frames: Float[Tensor, "T D"]) -> Int[Tensor, " T"]:
        return torch.addmm(self._squares, frames.double(), self._columns, alpha=-2).argmin(dim=1)


def assign(frames: Float[Tensor, "T D"], centroids: Float[Tensor, "N D"]) -> Int[Tensor, " T"]:
    """Return the index of the nearest centroid of each frame, once; many calls are cheaper by `NearestCentroid`."""
    return NearestCentroid(centroids)(frames)


def fit_kmeans(
    stream: Iterable[Float[Tensor, "_ D"]], codebook_size: int, config: KMeansConfig, *, standardize: bool, seed: int
) -> FittedKMeans:
    """Fit `codebook_size` centroids to a stream of frames. The same stream and seed give the same bits.

    Raises:
        DataError: the stream has fewer frames than `codebook_size`, or holds numbers that are not finite.
    """
    from sklearn.cluster import MiniBatchKMeans

    blocks = _blocks(stream, config)
    first = next(blocks, np.zeros((0, 1), dtype=np.float32))
    if len(first) < codebook_size:
        raise DataError(
            f"{len(first):,} frames of speech are too few for {codebook_size:,} codes; give more audio or fewer codes"
        )
    mean, scale = _moments(first) if standardize else (np.zeros_like(first[0]), np.ones_like(first[0]))
    first = (first - mean) / scale
    generator = np.random.default_rng(seed)
    batch_size = max(config.batch_frames, codebook_size)
    # n_init only matters to fit(): partial_fit starts from one k-means++ draw.
    model = MiniBatchKMeans(codebook_size, random_state=seed, batch_size=batch_size)

    def learn(frames: np.ndarray) -> None:
        order = generator.permutation(len(frames))
        # The last, short batch joins the one before: fewer frames than codes cannot start a codebook.
        for rows in np.array_split(order, max(1, len(order) // batch_size)):
            model.partial_fit(frames[rows])

    for _ in range(config.passes):
        learn(first)
    num_frames = len(first)
    for block in blocks:
        learn((block - mean) / scale)
        num_frames += len(block)
    centroids = _reseed_empty(
        torch.from_numpy(np.asarray(model.cluster_centers_, dtype=np.float32)), torch.from_numpy(first)
    )
    return FittedKMeans(centroids, torch.from_numpy(mean), torch.from_numpy(scale), num_frames)


def _blocks(stream: Iterable[Float[Tensor, "_ D"]], config: KMeansConfig) -> Iterator[np.ndarray]:
    """Yield the stream in blocks of `buffer_frames`, `max_frames` at most in all."""
    held: list[np.ndarray] = []
    size, left = 0, config.max_frames
    for frames in stream:
        if not torch.isfinite(frames).all():
            raise DataError("features hold numbers that are NaN or infinite; check the audio and the speech encoder")
        rows = frames.numpy()[:left]
        left -= len(rows)
        held.append(rows)
        size += len(rows)
        if size >= config.buffer_frames:
            yield np.concatenate(held)
            held, size = [], 0
        if left == 0:
            break
    if held:
        yield np.concatenate(held)


def _moments(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of each feature, float32 [D]; one that never varies keeps its scale."""
    mean, deviation = frames.mean(0, dtype=np.float64), frames.std(0, dtype=np.float64)
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)


def _reseed_empty(centroids: Float[Tensor, "N D"], frames: Float[Tensor, "T D"]) -> Float[Tensor, "N D"]:
    """Move centroids that no frame chose onto the frames that lie farthest from theirs.

    A moved centroid may leave another without frames, so this is repeated; frames with fewer distinct values than
    there are codes never fill them all, and then it stops.
    """
    for _ in range(MAX_RESEEDS):
        codes = assign(frames, centroids)
        empty = torch.bincount(codes, minlength=len(centroids)) == 0
        distances = (frames - centroids[codes]).square().sum(1)
        movable = min(int(empty.sum()), int((distances > 0).sum()))
        if movable == 0:
            break
        centroids = centroids.clone()
        centroids[empty.nonzero()[:movable, 0]] = frames[distances.topk(movable).indices]
    return centroids
