"""Rows of codes that stand for alike vectors begin alike, and nothing else is touched."""

import torch

from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.stage_init import start_at_vectors
from speechllm.models.stage_layouts import BOS, CodeSizes
from speechllm.models.token_lm import DecoderConfig, StageLMConfig

STAGE = StageLMConfig(decoder=DecoderConfig(width=16, num_layers=1, num_heads=2, feed_forward=32), window_seconds=1.0)
SIZES = CodeSizes(num_conditions=4, codebook_size=3, num_codebooks=3, num_coarse=2)


def build() -> AudioLM:
    torch.manual_seed(0)
    return AudioLM(AudioLMConfig(sizes=SIZES, frame_rate=25.0, frames_per_condition=2, coarse=STAGE, fine=STAGE))


def test_equal_vectors_give_equal_rows_and_marks_stay():
    model, fresh = build(), build()
    centroids, codebooks = torch.randn(4, 5), torch.randn(3, 3, 6)
    centroids[1], codebooks[:, 2] = centroids[0], codebooks[:, 0]
    start_at_vectors(model, centroids, codebooks, seed=0)
    for lm, before in ((model.coarse, fresh.coarse), (model.fine, fresh.fine)):
        rows, vocabulary = lm.trunk.embed_tokens.weight, lm.layout.vocabulary
        for name in lm.layout.target_blocks:
            start = vocabulary[name].start
            torch.testing.assert_close(rows[start], rows[start + 2])
            assert (rows[start] - rows[start + 1]).abs().max() > 0.01
        bos = vocabulary[BOS].start
        assert torch.equal(rows[bos], before.trunk.embed_tokens.weight[bos])
        for head in lm.heads:
            torch.testing.assert_close(head.weight[0], head.weight[2])
        assert torch.equal(lm.trunk.layers[0].mlp.up_proj.weight, before.trunk.layers[0].mlp.up_proj.weight)
    start = model.coarse.layout.vocabulary["semantic"].start
    rows = model.coarse.trunk.embed_tokens.weight
    torch.testing.assert_close(rows[start], rows[start + 1])
    # EOS, the last row of the first head, stands for no vector.
    assert torch.equal(model.coarse.heads[0].weight[3], fresh.coarse.heads[0].weight[3])


def test_the_seed_decides():
    centroids, codebooks = torch.randn(4, 5), torch.randn(3, 3, 6)
    models = []
    for seed in (0, 0, 1):
        models.append(build())
        start_at_vectors(models[-1], centroids, codebooks, seed=seed)
    first, second, other = (model.coarse.trunk.embed_tokens.weight for model in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
