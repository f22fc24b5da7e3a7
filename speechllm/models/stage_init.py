"""Rows of codes that start at what the codes sound like, so that alike codes begin alike.

    start_at_vectors(model, tokenizer.centroids, codec.codebook_vectors(), seed=0)

    input row of code n of level q      0.3  (C_q[n] - mean) R / std  +  a direction of its level's own
    input row of semantic code n        0.3  (c[n] - mean) R' / std   +  a direction of its own
    output row of code n of level q     0.05 (C_q[n] - mean) R / std

R and R' are random, R the same for all levels. A corpus of an hour has each of 2,048 semantic codes some thirty times:
too few to learn each row from nothing. Not part of AudioLM (arXiv:2209.03143); the unified LM's `centroid` rows
(`embedding_init.py`) are the same idea.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from speechllm.models.audiolm import AudioLM
from speechllm.models.token_lm import TokenLM
from speechllm.vocabulary import SEMANTIC

INPUT_SCALE, OFFSET_SCALE, OUTPUT_SCALE = 0.3, 0.15, 0.05
"Well above Llama's own 0.02 for what is read: the trunk's norm takes off the size, and rows then change slowly."


@torch.no_grad()
def start_at_vectors(
    model: AudioLM, centroids: Float[Tensor, "N E"], codebooks: Float[Tensor, "K M F"], *, seed: int
) -> None:
    """Overwrite the rows of all codes, in every stage.

    Args:
        model: fresh.
        centroids: vectors of the semantic codes.
        codebooks: vectors of the acoustic codes, level by level.
        seed: of the random directions.
    """
    generator = torch.Generator().manual_seed(seed)
    for lm in (model.semantic, model.coarse, model.fine):
        if lm is not None:
            start_stage_at_vectors(lm, centroids, codebooks, generator=generator)


@torch.no_grad()
def start_stage_at_vectors(
    lm: TokenLM, centroids: Float[Tensor, "N E"], codebooks: Float[Tensor, "K M F"], *, generator: torch.Generator
) -> None:
    """Overwrite the rows of all codes of one stage.

    Args:
        lm: fresh.
        centroids: vectors of the semantic codes.
        codebooks: vectors of the acoustic codes, level by level; [0, 1, 1] for the semantic stage alone.
        generator: of the random directions.
    """
    rows, layout = lm.trunk.embed_tokens.weight, lm.layout
    width = rows.shape[1]
    sound = torch.randn(codebooks.shape[2], width, generator=generator) / codebooks.shape[2] ** 0.5
    meaning = torch.randn(centroids.shape[1], width, generator=generator) / centroids.shape[1] ** 0.5
    vectors = {f"level_{k}": _standard(codebook) @ sound for k, codebook in enumerate(codebooks.float())}
    vectors[SEMANTIC] = _standard(centroids.float()) @ meaning
    for name in dict.fromkeys((*layout.prefix_blocks, *layout.target_blocks)):
        block = layout.vocabulary[name]
        offset = OFFSET_SCALE * torch.randn(1, width, generator=generator)
        rows[block.start : block.stop] = INPUT_SCALE * vectors[name] + offset
    for head, name in zip(lm.heads, layout.target_blocks, strict=True):
        assert isinstance(head, torch.nn.Linear), "heads are linear"
        head.weight[: len(vectors[name])] = OUTPUT_SCALE * vectors[name]


def _standard(vectors: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
    """Return vectors with mean 0, and unit variance over all entries."""
    return (vectors - vectors.mean(0)) / vectors.std().clamp_min(1e-8)
