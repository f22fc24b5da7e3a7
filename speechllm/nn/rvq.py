"""Residual vector quantisation that learns while the network around it does.

    quantizer = ResidualVectorQuantizer(512, RVQConfig())
    quantizer.fit(many)                           # k-means; without it, the first batch of training fits the codebooks
    made = quantizer.train()(latents)             # latents [B, 512, T]
    made.latents, made.codes, made.commitment     # straight-through [B, D, T], [B, K, T], a scalar loss
    quantizer.decode(quantizer.encode(latents))   # in use

    latents --level 0--> nearest of N vectors; what is left --level 1--> nearest of N vectors; ...

SoundStream (arXiv:2107.03312, section III-C): codebooks are exponential averages of the vectors that chose each
code, a code that nobody chooses any more starts again at a vector of the batch, and quantizer dropout gives each row
of a batch a random number of levels, so that one codec serves every bitrate. With several processes the codebooks
follow the first one's batches.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from speechllm.errors import ConfigError
from speechllm.nn.precision import widest_float


@dataclass(frozen=True, kw_only=True)
class RVQConfig:
    """Sizes and how codebooks learn; the defaults are SoundStream's for 6 kbit/s."""

    num_codebooks: int = 12
    "Levels K."
    codebook_size: int = 1024
    "Codes N of one level."
    decay: float = 0.99
    "Of the exponential averages."
    dead_code_count: float = 2.0
    """A code is revived when its average count in a batch falls below this, or below a fifth of the mean count of its
    level where that is less: batches smaller than the paper's would otherwise replace live codes for ever."""
    kmeans_iterations: int = 10
    "Rounds of k-means at the start."
    dropout_share: float = 1.0
    "Share of the rows of a training batch that use a random number of levels, 1 to K alike."

    def __post_init__(self) -> None:
        if self.num_codebooks < 1 or self.codebook_size < 2:
            raise ConfigError(
                f"{self.num_codebooks} codebooks of {self.codebook_size} codes, expected at least 1 and at least 2"
            )
        for name in ("decay", "dropout_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected 0 to 1")


class Quantized(NamedTuple):
    """What the quantizer made of a batch."""

    latents: Float[Tensor, "B D T"]
    "The sum of the chosen vectors; gradients pass as if nothing had been quantised."
    codes: Int[Tensor, "B K T"]
    "Of all levels, also those that dropout hid."
    commitment: Float[Tensor, ""]
    "Mean squared distance of what each level was given to what it chose."


class ResidualVectorQuantizer(nn.Module):
    """K codebooks of N vectors, kept as running counts [K, N] and sums [K, N, D]."""

    counts: Tensor
    sums: Tensor
    is_fitted: Tensor

    def __init__(self, width: int, config: RVQConfig):
        super().__init__()
        self.config = config
        K, N = config.num_codebooks, config.codebook_size
        self.register_buffer("counts", torch.ones(K, N))
        self.register_buffer("sums", torch.zeros(K, N, width))
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    def vectors(self) -> Float[Tensor, "K N D"]:
        """Return the codebooks."""
        return self.sums / self.counts.clamp_min(1e-5)[:, :, None]

    def forward(self, latents: Float[Tensor, "B D T"]) -> Quantized:
        """Quantise a batch and, in training, learn from it."""
        with torch.autocast(latents.device.type, enabled=False):
            return self._quantize(latents.float())

    @torch.no_grad()
    def encode(self, latents: Float[Tensor, "B D T"]) -> Int[Tensor, "B K T"]:
        """Return the codes of all levels; the same for any batching of equal latents."""
        residual = rearrange(latents, "b d t -> (b t) d")
        codes = []
        for codebook in self.vectors():
            codes.append(nearest(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return rearrange(torch.stack(codes), "k (b t) -> b k t", b=len(latents))

    def fit(self, latents: Float[Tensor, "B D T"]) -> None:
        """Fit the codebooks by k-means, level after level; several times as many frames as codes are wanted."""
        with torch.autocast(latents.device.type, enabled=False):
            self._fit(rearrange(latents.detach().float(), "b d t -> (b t) d"))

    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B D T"]:
        """Return the sum of the vectors of the levels that are given."""
        vectors = self.vectors()
        summed = torch.stack([vectors[k][codes[:, k]] for k in range(codes.shape[1])]).sum(0)
        return rearrange(summed, "b t d -> b d t")

    def _quantize(self, latents: Float[Tensor, "B D T"]) -> Quantized:
        B, _, T = latents.shape
        residual = rearrange(latents, "b d t -> (b t) d")
        if self.training and not bool(self.is_fitted):
            self._fit(residual.detach())
        levels = self._levels(B).to(latents.device).repeat_interleave(T)
        summed, commitment, codes = torch.zeros_like(residual), latents.new_zeros(()), []
        for k, codebook in enumerate(self.vectors()):
            chosen = _scores(residual.detach(), codebook).argmin(1)
            vectors, in_use = codebook[chosen], (levels > k).float()
            distances = (residual - vectors).square().mean(1)
            commitment = commitment + (distances * in_use).sum() / in_use.sum().clamp_min(1)
            if self.training:
                self._learn(k, residual.detach(), chosen)
            summed = summed + vectors * in_use[:, None]
            residual = residual - vectors
            codes.append(chosen)
        quantized = rearrange(summed, "(b t) d -> b d t", b=B)
        return Quantized(
            latents + (quantized - latents).detach(),
            rearrange(torch.stack(codes), "k (b t) -> b k t", b=B),
            commitment / len(codes),
        )

    def _levels(self, B: int) -> Int[Tensor, " B"]:
        """Draw how many levels each row uses."""
        K = self.config.num_codebooks
        if not self.training:
            return torch.full((B,), K)
        drawn = torch.randint(1, K + 1, (B,))
        return torch.where(torch.rand(B) < self.config.dropout_share, drawn, K)

    @torch.no_grad()
    def _fit(self, residual: Float[Tensor, "M D"]) -> None:
        """Fit level after level, each to what the ones before it left."""
        for k in range(self.config.num_codebooks):
            centroids, counts = kmeans(residual, self.config.codebook_size, self.config.kmeans_iterations)
            self.counts[k] = counts
            self.sums[k] = centroids * counts[:, None]
            residual = residual - centroids[_scores(residual, centroids).argmin(1)]
        self.is_fitted.fill_(True)

    @torch.no_grad()
    def _learn(self, k: int, residual: Float[Tensor, "M D"], chosen: Int[Tensor, " M"]) -> None:
        """Move level k towards the vectors that chose its codes, and revive its dead ones."""
        counts, sums = _assigned(residual, chosen, self.config.codebook_size)
        # Averaged in place: the buffers must stay the ones that a checkpoint names.
        self.counts[k].lerp_(counts, 1 - self.config.decay)
        self.sums[k].lerp_(sums, 1 - self.config.decay)
        mean = self.counts[k].mean()
        is_dead = self.counts[k] < (0.2 * mean).clamp_max(self.config.dead_code_count)
        drawn = residual[torch.randint(len(residual), (len(counts),)).to(residual.device)]
        self.counts[k] = torch.where(is_dead, mean, self.counts[k])
        self.sums[k] = torch.where(is_dead[:, None], drawn * mean, self.sums[k])


def kmeans(
    vectors: Float[Tensor, "M D"], num_clusters: int, iterations: int
) -> tuple[Float[Tensor, "N D"], Float[Tensor, " N"]]:
    """Return centroids and how many vectors chose each, from vectors drawn by torch's global generator."""
    M = len(vectors)
    # With fewer vectors than clusters some stand twice, until a later batch revives the second.
    order = torch.cat([torch.randperm(M) for _ in range(-(-num_clusters // M))])[:num_clusters]
    centroids = vectors[order.to(vectors.device)]
    counts = vectors.new_ones(num_clusters)
    for _ in range(iterations):
        counts, sums = _assigned(vectors, _scores(vectors, centroids).argmin(1), num_clusters)
        is_chosen = (counts > 0)[:, None]
        centroids = torch.where(is_chosen, sums / counts.clamp_min(1)[:, None], centroids)
    # An empty cluster keeps its place and a count that is low enough to be revived.
    return centroids, counts.clamp_min(1e-3)


def nearest(vectors: Float[Tensor, "T D"], codebook: Float[Tensor, "N D"]) -> Int[Tensor, " T"]:
    """Return the index of the closest row of the codebook in squared Euclidean distance.

    The four best candidates of float32 are compared in float64 (where the device has it): float32 alone rounds
    differently in matrices of another shape, so that an utterance could get another code in another batch.
    """
    scores = _scores(vectors.float(), codebook.float())
    candidates = scores.topk(min(4, len(codebook)), dim=1, largest=False).indices.sort(dim=1).values
    wide = widest_float(vectors.device)
    distances = (vectors.to(wide)[:, None] - codebook.to(wide)[candidates]).square().sum(2)
    return candidates.gather(1, distances.argmin(1, keepdim=True))[:, 0]


def _scores(vectors: Float[Tensor, "T D"], codebook: Float[Tensor, "N D"]) -> Float[Tensor, "T N"]:
    """Return squared distances, less the squared length of each vector."""
    return codebook.square().sum(1) - 2 * vectors @ codebook.T


def _assigned(
    vectors: Float[Tensor, "M D"], chosen: Int[Tensor, " M"], num_codes: int
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N D"]]:
    """Return how many vectors chose each code, and their sums."""
    # A product with one-hot rows: adding by index has no fixed order on a GPU, and resuming would not be exact.
    picked = nn.functional.one_hot(chosen, num_codes).to(vectors.dtype)
    return picked.sum(0), picked.T @ vectors
