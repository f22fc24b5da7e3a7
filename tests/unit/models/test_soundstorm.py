from itertools import combinations

import pytest
import torch

from speechllm.errors import CheckpointError, ConfigError
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig, TiedCodes, mark_speaker
from speechllm.nn.conformer import ConformerConfig

SIZES = {
    "num_conditions": 10,
    "num_codebooks": 3,
    "codebook_size": 7,
    "trunk": ConformerConfig(width=16, num_layers=1, num_heads=2),
}


def build(tied, num_speakers=1):
    torch.manual_seed(0)
    sizes = SIZES | {"num_speakers": num_speakers}
    model = SoundStorm(SoundStormConfig(**sizes, tied=tied, codebook_width=5 if tied else 0))
    if isinstance(model.codes, TiedCodes):
        model.codes.set_codebooks(torch.randn(3, 7, 5) / torch.tensor([1, 2, 4])[:, None, None])
        torch.nn.init.normal_(model.codes.shared_head.weight)
        torch.nn.init.normal_(model.codes.level_heads)
    return model.eval()


@pytest.fixture(params=[True, False], ids=["tied", "free"])
def model(request):
    return build(request.param)


def inputs(B, T):
    generator = torch.Generator().manual_seed(1)
    condition = torch.randint(10, (B, T), generator=generator)
    codes = torch.randint(8, (B, 3, T), generator=generator)
    return condition, codes, torch.randint(3, (B,), generator=generator)


def test_padding_and_batch_change_nothing(model):
    condition, codes, level = inputs(3, 9)
    lengths = torch.tensor([9, 6, 2])
    together = model(condition, codes, lengths, level).logits
    for b, length in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone = model(condition[row, :length], codes[row, :, :length], lengths[row], level[row]).logits
        torch.testing.assert_close(together[row, :length], alone, atol=1e-4, rtol=1e-4)


def test_every_known_code_and_every_condition_matters(model):
    condition, codes, _ = inputs(1, 5)
    codes, lengths, level = codes.clamp_max(6), torch.tensor([5]), torch.tensor([2])
    before = model(condition, codes, lengths, level).logits
    for k in range(3):
        changed = codes.clone()
        changed[0, k, 2] = (changed[0, k, 2] + 1) % 7
        assert not torch.equal(model(condition, changed, lengths, level).logits, before)
        changed[0, k, 2] = model.mask_id
        assert not torch.equal(model(condition, changed, lengths, level).logits, before)
    changed = condition.clone()
    changed[0, 2] = (changed[0, 2] + 1) % 10
    assert not torch.equal(model(changed, codes, lengths, level).logits, before)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
def test_marks_of_speakers_matter_and_the_first_speaker_needs_none(tied):
    plain, marked = build(tied), build(tied, num_speakers=3)
    torch.nn.init.normal_(marked.speakers.weight[1:])
    marked.load_state_dict(plain.state_dict(), strict=False)
    condition, codes, level = inputs(2, 6)
    lengths = torch.tensor([6, 4])
    before = plain(condition, codes, lengths, level).logits
    assert torch.equal(marked(condition, codes, lengths, level).logits, before)
    found = [before]
    for speaker in (1, 2):
        said = condition.clone()
        said[:, 3] = torch.from_numpy(mark_speaker(condition[:, 3].numpy(), speaker, marked.config))
        found.append(marked(said, codes, lengths, level).logits)
    assert not any(torch.equal(a, b) for a, b in combinations(found, 2))
    with pytest.raises(ConfigError, match="marks for 3"):
        mark_speaker(condition[0].numpy(), 3, marked.config)


def test_levels_have_heads_of_their_own(model):
    condition, codes, _ = inputs(1, 5)
    lengths = torch.tensor([5])
    outputs = [model(condition, codes, lengths, torch.tensor([q])).logits for q in range(3)]
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[1], outputs[2])


def test_tied_logits_prefer_the_code_nearest_to_what_is_left():
    model = build(tied=True)
    condition, codes, _ = inputs(1, 4)
    level = torch.tensor([1])
    codes[:, 1:] = model.mask_id
    codes = codes.clamp_max(7)
    codes[:, 0] = codes[:, 0].clamp_max(6)
    output = model(condition, codes, torch.tensor([4]), level)
    vectors = model.codes.vectors
    rest = output.vectors[0] - vectors[0][codes[0, 0]]
    nearest = torch.cdist(rest, vectors[1][:-1]).argmin(1)
    assert torch.equal(output.logits[0].argmax(1), nearest)


def test_a_reloaded_model_gives_the_same_bits(model, tmp_path):
    condition, codes, level = inputs(2, 6)
    lengths = torch.tensor([6, 6])
    model.save_pretrained(tmp_path)
    again = SoundStorm.from_pretrained(tmp_path)
    assert again.config == model.config
    assert torch.equal(again(condition, codes, lengths, level).logits, model(condition, codes, lengths, level).logits)


def test_weights_that_do_not_fit_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"num_conditions": 10', '"num_conditions": 11'))
    with pytest.raises(CheckpointError, match="do not fit"):
        SoundStorm.from_pretrained(tmp_path)


def test_tied_without_a_width_is_refused():
    with pytest.raises(ConfigError, match="codebook_width"):
        SoundStormConfig(**SIZES, tied=True)


def test_the_papers_size_has_the_papers_number_of_parameters():
    trunk = ConformerConfig(width=1024, num_layers=12, num_heads=16, feed_forward_factor=4)
    config = SoundStormConfig(num_conditions=1024, num_codebooks=12, codebook_size=1024, tied=False, trunk=trunk)
    with torch.device("meta"):
        model = SoundStorm(config)
    # 350M in the paper (section 3.2); layers, tables and heads as far as published make 290M + 25M.
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(315, abs=15)


def test_quantising_a_sum_of_code_vectors_gives_the_codes_back():
    model = SoundStorm(SoundStormConfig(num_conditions=4, num_codebooks=3, codebook_size=7, codebook_width=5))
    assert isinstance(model.codes, TiedCodes)
    # Levels far apart in size: the coarser level decides first.
    model.codes.set_codebooks(torch.randn(3, 7, 5) / torch.tensor([1, 1e2, 1e4])[:, None, None])
    codes = torch.randint(0, 7, (2, 3, 9))
    assert torch.equal(model.codes.quantise(model.codes.known_sum(codes)), codes)
