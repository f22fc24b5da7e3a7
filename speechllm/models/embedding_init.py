"""Where the rows of new ids start: six ways to fill them, none of which touches an old row.

    rows = new_rows(text_rows, 1024, "centroid", generator=generator, centroids=tokenizer.centroids)

    init          new row i                                  note
    zeros         0                                          a pre-norm trunk sees an exactly zero state: clip gradients
    normal        N(0, s^2)                                  s: standard deviation of the text rows
    mean          m                                          m: mean text row; bounds the shift of text probabilities
    multivariate  N(m, C)                                    C: covariance of the text rows
    mean_noise    m + N(0, (s/10)^2)
    centroid      m + s * (unit-variance projection of code i's k-means centroid)

Near sounds begin as near rows with "centroid", so that the model need not learn which codes are alike.
(zeros: AudioPaLM, arXiv:2306.12925, section 3; mean and multivariate: Hewitt, 2021, "Initializing new
word embeddings for pretrained language models".)
"""

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.errors import ConfigError

RowInit: TypeAlias = Literal["zeros", "normal", "mean", "multivariate", "mean_noise", "centroid"]
MIXED_AT_ONCE = 64
"Rows of `multivariate` that are made at once: each takes as many random numbers as there are text rows."
NOISE_SHARE = 0.1
"Noise of `mean_noise` as a share of the text rows' standard deviation."


def new_rows(
    text_rows: Float[Tensor, "V D"],
    num_rows: int,
    init: RowInit,
    *,
    generator: torch.Generator,
    centroids: Float[Tensor, "N E"] | None = None,
) -> Float[Tensor, "R D"]:
    """Return `num_rows` float32 rows to stand behind `text_rows`.

    Raises:
        ConfigError: "centroid" without centroids, or with another number of them than rows.
    """
    rows = text_rows.detach().float()
    mean, std = rows.mean(0, keepdim=True), rows.std()
    D = rows.shape[1]
    if init == "zeros":
        return torch.zeros(num_rows, D)
    if init == "mean":
        return mean.repeat(num_rows, 1)
    if init == "multivariate":
        # Mixing the centred rows by independent normals gives exactly their covariance, without a factorisation.
        counts = [min(MIXED_AT_ONCE, num_rows - i) for i in range(0, num_rows, MIXED_AT_ONCE)]
        mixes = (torch.randn(count, len(rows), generator=generator) for count in counts)
        return mean + torch.cat([mix @ (rows - mean) for mix in mixes]) / (len(rows) - 1) ** 0.5
    if init == "centroid":
        return mean + std * _projected(centroids, num_rows, D, generator)
    noise = torch.randn(num_rows, D, generator=generator) * std
    return noise if init == "normal" else mean + NOISE_SHARE * noise


def _projected(
    centroids: Float[Tensor, "N E"] | None, num_rows: int, width: int, generator: torch.Generator
) -> Float[Tensor, "R D"]:
    """Return centroids, centred, in `width` dimensions, with unit variance over all entries."""
    if centroids is None:
        raise ConfigError(
            "row init 'centroid' needs the semantic tokenizer's centroids; pass centroids= or another init"
        )
    if len(centroids) != num_rows:
        raise ConfigError(
            f"row init 'centroid' got {len(centroids)} centroids for {num_rows} semantic ids; "
            "pass those of the tokenizer that the vocabulary was made for"
        )
    points = centroids.detach().float()
    points = points - points.mean(0, keepdim=True)
    # A random orthonormal map keeps distances (all of them when it widens, in expectation when it narrows).
    size = max(points.shape[1], width)
    square, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
    projected = points @ square[: points.shape[1], :width]
    return projected / projected.std().clamp(min=1e-8)
