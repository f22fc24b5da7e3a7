import dataclasses

import numpy as np
import pytest
import torch

from speechllm.errors import CheckpointError, ConfigError
from speechllm.models.acoustic import AcousticModel, load_acoustic
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.stage_layouts import STAGES, CodeSizes, stage_layout
from speechllm.models.token_lm import DecoderConfig, StageLMConfig, TokenLM

SIZES = CodeSizes(num_conditions=6, codebook_size=5, num_codebooks=5, num_coarse=2)
STAGE = StageLMConfig(
    decoder=DecoderConfig(width=16, num_layers=2, num_heads=2, feed_forward=32), window_seconds=1.0, dedup=False
)
CONFIG = AudioLMConfig(sizes=SIZES, frame_rate=25.0, frames_per_condition=2, semantic=STAGE, coarse=STAGE, fine=STAGE)


def build(stage):
    torch.manual_seed(0)
    lm = TokenLM(STAGE, stage_layout(stage, SIZES)).eval()
    # Llama's own initial weights are so small that everything is nearly equal.
    for parameter in lm.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.4)
    return lm


@pytest.fixture(params=STAGES)
def lm(request):
    return build(request.param)


def rows(layout, shapes, seed=0):
    """Return rows of ids and where their targets start, for (codes of the prefix, frames of the target) each."""
    rng = np.random.default_rng(seed)

    def codes(blocks, T):
        drawn = [rng.integers(layout.vocabulary[name].size, size=T) for name in blocks]
        return np.stack(drawn) if drawn else np.zeros((0, 0), np.int64)

    found = [layout.encode(codes(layout.prefix_blocks, n), codes(layout.target_blocks, T), end=True) for n, T in shapes]
    starts = [int(np.flatnonzero(ids == layout.bos_id)[0]) + 1 for ids in found]
    lengths = torch.tensor([len(ids) for ids in found])
    padded = torch.full((len(found), int(lengths.max())), 1)
    for b, ids in enumerate(found):
        padded[b, : len(ids)] = torch.from_numpy(ids)
    return padded, torch.tensor(starts), lengths


def test_every_target_id_is_scored_among_its_legal_ids_and_nothing_else_is(lm):
    ids, starts, lengths = rows(lm.layout, [(4, 3), (2, 5)])
    scores = lm(ids, starts, lengths)
    assert scores.is_target.sum(1).tolist() == (lengths - starts).tolist()
    hidden = lm.hidden(ids)
    for b in range(2):
        for m in range(int(lengths[b] - starts[b])):
            place, phase = int(starts[b]) + m, m % lm.layout.num_levels
            log_probs = lm.logits(hidden[b, place - 1], phase).log_softmax(-1)
            legal = lm.layout.legal_ids(m).tolist()
            assert len(legal) == len(log_probs)
            assert lm.ids_of(torch.arange(len(legal)), phase).tolist() == legal
            torch.testing.assert_close(scores.log_probs[b, m], log_probs[legal.index(int(ids[b, place]))])
    assert bool((scores.log_probs[~scores.is_target] == 0).all())


def test_padding_and_batch_change_nothing(lm):
    ids, starts, lengths = rows(lm.layout, [(4, 3), (1, 1), (6, 2)])
    together = lm(ids, starts, lengths)
    for b, length in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone = lm(ids[row, :length], starts[row], lengths[row]).log_probs[0]
        torch.testing.assert_close(together.log_probs[b, : len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_targets_depend_on_the_prefix_and_on_the_past_alone():
    lm = build("coarse")
    ids, starts, lengths = rows(lm.layout, [(4, 4)])
    before = lm(ids, starts, lengths).log_probs
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 1) % SIZES.num_conditions
    assert not torch.allclose(lm(other, starts, lengths).log_probs, before)
    m, block = 4, lm.layout.vocabulary["level_0"]
    place = int(starts[0]) + m
    other = ids.clone()
    other[0, place] = block.start + (other[0, place] - block.start + 1) % block.size
    changed = lm(other, starts, lengths).log_probs
    torch.testing.assert_close(changed[:, :m], before[:, :m])
    assert not torch.allclose(changed[:, m + 1 :], before[:, m + 1 :])


def test_a_prefix_on_the_axis_of_time_stands_level_with_its_target():
    layout = stage_layout("coarse", SIZES)
    lm = TokenLM(dataclasses.replace(STAGE, prefix_stride=4.0), layout)
    # Two codes, BOS, two frames of two levels for the first code and two for the second.
    positions = lm.positions(torch.tensor([3]), 11)
    assert positions.tolist() == [[1, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8]]
    padded = lm.positions(torch.tensor([5]), 13, firsts=torch.tensor([2]))
    assert padded[0, 2:].tolist() == positions[0].tolist()
    assert build("coarse").positions(torch.tensor([3]), 11) is None


def test_positions_that_jump_are_one_row_and_change_what_is_predicted():
    plain, aligned = (build("coarse") for _ in range(2))
    aligned.config = dataclasses.replace(STAGE, prefix_stride=4.0)
    ids, starts, lengths = rows(plain.layout, [(4, 8)])
    before, scores = plain(ids, starts, lengths).log_probs, aligned(ids, starts, lengths).log_probs
    assert not torch.allclose(before, scores)
    # The last target sees the first code, although positions go back in between.
    other = ids.clone()
    other[0, 0] = (other[0, 0] + 1) % SIZES.num_conditions
    assert not torch.allclose(aligned(other, starts, lengths).log_probs[0, -1], scores[0, -1])


def test_noise_is_read_and_not_predicted():
    lm = build("coarse")
    ids, starts, lengths = rows(lm.layout, [(4, 4)])
    read = ids.clone()
    place = int(starts[0]) + 2
    block = lm.layout.vocabulary["level_0"]
    read[0, place] = block.start + (read[0, place] - block.start + 1) % block.size
    clean, noisy = lm(ids, starts, lengths).log_probs, lm(ids, starts, lengths, read).log_probs
    torch.testing.assert_close(noisy[:, :3], clean[:, :3])
    assert not torch.allclose(noisy[:, 3:], clean[:, 3:])


def test_a_stride_needs_codes_that_keep_time():
    with pytest.raises(ConfigError, match=r"prefix_stride = 4.0 with dedup = True"):
        dataclasses.replace(STAGE, prefix_stride=4.0, dedup=True)


def test_every_weight_but_those_of_unused_rows_gets_a_gradient(lm):
    scores = lm(*rows(lm.layout, [(4, 6), (3, 6)]))
    (-scores.log_probs.sum()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in lm.parameters())


def test_a_reloaded_model_has_the_same_bits_and_its_kind_is_found(tmp_path):
    torch.manual_seed(0)
    model = AudioLM(CONFIG)
    model.save_pretrained(tmp_path)
    again = load_acoustic(tmp_path)
    assert isinstance(again, AudioLM)
    assert isinstance(again, AcousticModel)
    assert again.config == CONFIG
    assert not again.training
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_broken_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not name an acoustic model"):
        load_acoustic(tmp_path)
    AudioLM(CONFIG).save_pretrained(tmp_path)
    smaller = dataclasses.replace(CONFIG, semantic=None)
    AudioLM(smaller).save_pretrained(tmp_path / "other")
    (tmp_path / "config.json").write_bytes((tmp_path / "other" / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="do not fit its config"):
        load_acoustic(tmp_path)


def test_stages_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ConfigError, match="fine is absent"):
        dataclasses.replace(CONFIG, fine=None)
    short = dataclasses.replace(STAGE, dedup=True, tokens_per_second=9.0)
    with pytest.raises(ConfigError, match="set both, or neither"):
        dataclasses.replace(CONFIG, semantic=short)
    with pytest.raises(ConfigError, match=r"needs coarse\.tokens_per_second"):
        dataclasses.replace(CONFIG, coarse=dataclasses.replace(STAGE, dedup=True))
    with pytest.raises(ConfigError, match="multiple of"):
        DecoderConfig(width=10, num_heads=4)
