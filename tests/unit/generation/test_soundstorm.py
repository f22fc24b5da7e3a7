import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechllm.errors import ConfigError
from speechllm.generation.soundstorm import decode_levels, default_iterations, masked_schedule, soundstorm_decode
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.nn.conformer import ConformerConfig

K, N, MASK = 3, 7, 7


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    trunk = ConformerConfig(width=16, num_layers=1, num_heads=2)
    config = SoundStormConfig(num_conditions=10, num_codebooks=K, codebook_size=N, tied=False, trunk=trunk)
    model = SoundStorm(config).eval()
    for head in model.codes.heads:
        torch.nn.init.normal_(head.weight)
    return model


class Recorder:
    """Random logits, a function of frame and level alone, and the inputs of every pass."""

    def __init__(self, B, T):
        self.table = torch.randn(B, K, T, N, generator=torch.Generator().manual_seed(3)) * 2
        self.passes = []

    def __call__(self, codes, level):
        self.passes.append((codes.clone(), level))
        return self.table[:, level]


def generators(B, seed=0):
    return [torch.Generator().manual_seed(seed) for _ in range(B)]


@pytest.mark.golden
def test_schedule_of_1500_frames_in_16_passes():
    # floor(1500 cos(pi/2 i/16)), computed by hand from arXiv:2305.09636, section 3.4.
    expected = [1492, 1471, 1435, 1385, 1322, 1247, 1159, 1060, 951, 833, 707, 574, 435, 292, 147, 0]
    assert masked_schedule(1_500, 16) == expected


@given(st.integers(0, 400), st.integers(1, 40))
def test_each_pass_keeps_some_and_the_last_keeps_the_rest(unknown, iterations):
    masked = masked_schedule(unknown, iterations)
    assert len(masked) == iterations
    assert masked[-1] == 0
    assert all(a > b or a == b == 0 for a, b in zip([unknown, *masked], masked, strict=False)) or unknown == 0


def test_the_paper_needs_27_passes_for_12_levels():
    assert default_iterations(12) == (16, *[1] * 11)
    assert sum(default_iterations(12)) == 27


def test_each_pass_sees_what_the_schedule_says():
    B, T = 2, 40
    unknown = torch.ones(B, T, dtype=torch.bool)
    unknown[0, :10] = False
    unknown[1, 25:] = False
    codes = torch.full((B, K, T), MASK)
    codes[0, :, :10] = 2
    recorder = Recorder(B, T)
    decode_levels(recorder, codes, unknown, (8, 3, 1), temperature=1.0, generators=generators(B))
    assert [level for _, level in recorder.passes] == [0] * 8 + [1] * 3 + [2]
    for b, total in enumerate((30, 25)):
        seen = [int((c[b, level][unknown[b]] == MASK).sum()) for c, level in recorder.passes]
        expected = [n for q in (8, 3, 1) for n in [total, *masked_schedule(total, q)[:-1]]]
        assert seen == expected


def test_higher_levels_stay_masked_and_kept_codes_are_never_revisited():
    T = 30
    recorder = Recorder(1, T)
    unknown = torch.ones(1, T, dtype=torch.bool)
    final = decode_levels(
        recorder, torch.full((1, K, T), MASK), unknown, (6, 4, 2), temperature=1.0, generators=generators(1)
    )
    for seen, level in recorder.passes:
        assert bool((seen[0, level + 1 :] == MASK).all())
        known = seen != MASK
        assert torch.equal(seen[known], final[known])
    assert bool((final != MASK).all())


def test_the_surest_candidates_are_kept():
    T = 16
    recorder = Recorder(1, T)
    unknown = torch.ones(1, T, dtype=torch.bool)
    decode_levels(recorder, torch.full((1, K, T), MASK), unknown, (4, 1, 1), temperature=0.0, generators=generators(1))
    confidence = recorder.table[0, 0].log_softmax(-1).max(-1).values
    kept = recorder.passes[1][0][0, 0] != MASK
    assert float(confidence[kept].min()) >= float(confidence[~kept].max())


def test_the_last_pass_takes_the_likeliest_code():
    recorder = Recorder(1, 9)
    unknown = torch.ones(1, 9, dtype=torch.bool)
    final = decode_levels(
        recorder, torch.full((1, K, 9), MASK), unknown, (1, 1, 1), temperature=1.0, generators=generators(1)
    )
    assert torch.equal(final[0], recorder.table[0].argmax(-1))


def test_draws_follow_the_distribution():
    T, table = 4_000, torch.tensor([0.6, 0.3, 0.1]).log()
    shares = []
    for temperature in (1.0, 0.5):
        seen = []

        def logits_of(codes, level, seen=seen):
            seen.append(codes[0, 0])
            return table.expand(1, T, 3) + torch.zeros(1, T, 1)

        unknown = torch.ones(1, T, dtype=torch.bool)
        # With equal confidences per code the schedule would keep the likeliest only: noise decides instead.
        decode_levels(
            logits_of,
            torch.full((1, 1, T), 3),
            unknown,
            (64,),
            temperature=temperature,
            generators=generators(1),
            noise=1e6,
        )
        kept = seen[40][seen[40] != 3]
        shares.append(torch.bincount(kept, minlength=3) / len(kept))
    torch.testing.assert_close(shares[0], torch.tensor([0.6, 0.3, 0.1]), atol=0.05, rtol=0)
    torch.testing.assert_close(shares[1], torch.tensor([0.36, 0.09, 0.01]) / 0.46, atol=0.05, rtol=0)


def test_passes_are_exactly_the_sum_of_iterations(model, monkeypatch):
    calls = []
    forward = SoundStorm.forward
    monkeypatch.setattr(SoundStorm, "forward", lambda self, *args: calls.append(1) or forward(self, *args))
    condition = torch.zeros(2, 3, dtype=torch.long)
    soundstorm_decode(
        model,
        condition,
        prompt=None,
        lengths=torch.tensor([3, 1]),
        iterations=(16, 2, 1),
        generator=torch.Generator().manual_seed(0),
    )
    assert len(calls) == 19


def test_prompt_and_padding_are_untouched_and_rows_do_not_depend_on_their_batch(model):
    condition = torch.randint(10, (3, 24), generator=torch.Generator().manual_seed(5))
    prompt = torch.randint(N, (3, K, 5), generator=torch.Generator().manual_seed(6))
    lengths = torch.tensor([24, 17, 6])
    options = {"iterations": (6, 2, 1), "temperature": 1.0}
    together = soundstorm_decode(model, condition, prompt=prompt, lengths=lengths, generator=generators(3), **options)
    assert torch.equal(together[:, :, :5], prompt)
    for b, length in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone = soundstorm_decode(
            model,
            condition[row, :length],
            prompt=prompt[row],
            lengths=lengths[row],
            generator=generators(1),
            **options,
        )
        assert torch.equal(together[row, :, :length], alone)
        assert bool((together[b, :, length:] == 0).all())


def test_wrong_iterations_and_prompts_are_refused(model):
    condition, lengths = torch.zeros(1, 4, dtype=torch.long), torch.tensor([4])
    generator = torch.Generator()
    with pytest.raises(ConfigError, match="expected 3 numbers"):
        soundstorm_decode(model, condition, prompt=None, lengths=lengths, iterations=(1, 1), generator=generator)
    with pytest.raises(ConfigError, match="at most 4 frames"):
        soundstorm_decode(
            model,
            condition,
            prompt=torch.zeros(1, K, 5, dtype=torch.long),
            lengths=lengths,
            iterations=(1, 1, 1),
            generator=generator,
        )


def agreement(T, iterations, seed, speakers=16, size=64, noise=0.05):
    """Decode with the exact posterior of a hidden speaker shared by all frames; return the share of one speaker.

    Frame i sounds like table[i, s] if speaker s says it, up to 5 % noise: codes drawn side by side mix speakers,
    codes drawn after one another agree.
    """
    generator = torch.Generator().manual_seed(1_000 + seed)
    table = torch.stack([torch.randperm(size, generator=generator)[:speakers] for _ in range(T)])

    def logits_of(codes, level):
        known = codes[0, 0] != size
        matches = (table[known] == codes[0, 0][known][:, None]).double()
        log_p = (matches * math.log((1 - noise + noise / size) / (noise / size))).sum(0)
        p = torch.full((T, size), noise / size, dtype=torch.double)
        p.scatter_add_(1, table, ((1 - noise) * log_p.softmax(0)).expand(T, speakers).contiguous())
        jitter = 0.01 * torch.randn(T, size, generator=generator, dtype=torch.double)
        return (p.log() + jitter)[None].float()

    unknown = torch.ones(1, T, dtype=torch.bool)
    codes = decode_levels(
        logits_of, torch.full((1, 1, T), size), unknown, (iterations,), temperature=1.0, generators=generators(1, seed)
    )
    return float((codes[0, 0][:, None] == table).float().mean(0).max())


@pytest.mark.golden
def test_agreement_rises_with_passes_and_is_then_flat():
    """Means of a separate numpy implementation over 12 seeds, N=200: .10, .59, .86, .94, 1, 1."""
    means = {i: sum(agreement(200, i, seed) for seed in range(12)) / 12 for i in (1, 2, 4, 8, 16, 32)}
    assert means[1] < 0.2
    assert means[1] < means[2] < means[4]
    assert means[2] == pytest.approx(0.59, abs=0.2)
    assert min(means[8], means[16], means[32]) > 0.85
    assert abs(means[32] - means[16]) < 0.1
