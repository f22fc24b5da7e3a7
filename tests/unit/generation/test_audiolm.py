import dataclasses
import itertools

import numpy as np
import pytest
import torch

from speechllm.errors import CheckpointError, ConfigError, DataError, VocabularyError
from speechllm.generation.audiolm import (
    AudioLMSampling,
    continue_speech,
    generate_acoustic,
    generate_unconditional,
)
from speechllm.generation.cascade import synthesize
from speechllm.generation.sampling import SamplingConfig
from speechllm.generation.token_lm import StageRequest, generate_codes
from speechllm.generation.voice import VoicePrompt
from speechllm.models.audiolm import AudioLM, AudioLMConfig
from speechllm.models.stage_layouts import STAGES, CodeSizes
from speechllm.models.token_lm import DecoderConfig, StageLMConfig
from speechllm.tokenizers.mel import LogMelConfig
from speechllm.tokenizers.mel_rvq import MelRVQCodec, MelRVQConfig
from speechllm.tokenizers.vocoder import GriffinLimConfig

SIZES = CodeSizes(num_conditions=6, codebook_size=5, num_codebooks=5, num_coarse=2)
DECODER = DecoderConfig(width=16, num_layers=2, num_heads=2, feed_forward=32)
RATE = 25.0


def build(*, dedup=False, sizes=SIZES, fingerprint="", strides=(None, None)):
    """Return a random model with windows of 4 s, 2 s and 0.5 s; codes come at 12.5 Hz, frames at 25 Hz."""

    def stage(seconds, dedup=dedup, stride=None):
        return StageLMConfig(
            decoder=DECODER, window_seconds=seconds, dedup=dedup, tokens_per_second=10.0 if dedup else None,
            prefix_stride=stride,
        )  # fmt: skip

    config = AudioLMConfig(
        sizes=sizes, frame_rate=RATE, frames_per_condition=2, prompt_seconds=0.8, semantic=stage(4.0),
        coarse=stage(2.0, stride=strides[0]),
        fine=stage(0.5, False, strides[1]) if sizes.num_coarse < sizes.num_codebooks else None,
        codec_fingerprint=fingerprint,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AudioLM(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.fixture(scope="module", params=[False, True], ids=["timed", "dedup"])
def model(request):
    return build(dedup=request.param)


@pytest.fixture(scope="module")
def timed():
    return build()


@pytest.fixture
def pytest_request(request):
    """Pytest's own, under another name than the one below."""
    return request


def draw(num, size, seed=0):
    return np.random.default_rng(seed).integers(size, size=num)


def request(lm, prefix, given, *, least, most, seed=0):
    rng = np.random.default_rng(seed)

    def codes(blocks, T):
        drawn = [rng.integers(lm.layout.vocabulary[name].size, size=T) for name in blocks]
        return np.stack(drawn) if drawn else np.zeros((0, 0), np.int64)

    return StageRequest(
        prefix=codes(lm.layout.prefix_blocks, prefix), given=codes(lm.layout.target_blocks, given),
        min_frames=least, max_frames=most, seed=(seed,),
    )  # fmt: skip


def voice(seconds, seed=0):
    num = round(seconds * RATE / 2)
    return VoicePrompt(draw(num, 6, seed), draw((5, 2 * num), 5, seed))


@pytest.fixture(scope="module")
def aligned():
    """As `timed`, with prefix and target on one axis of time: 2 frames x 2 levels to a code, 3 fine levels to 2."""
    return build(strides=(4.0, 1.5))


@pytest.mark.parametrize("kind", ["timed", "aligned"])
@pytest.mark.parametrize("stage", STAGES)
def test_cached_decoding_of_mixed_lengths_equals_the_whole_model_step_by_step(pytest_request, stage, kind):
    lm = getattr(pytest_request.getfixturevalue(kind), stage)
    requests = [request(lm, n, g, least=3, most=m, seed=n) for n, g, m in ((5, 2, 6), (9, 0, 4), (1, 1, 6))]
    drawn = generate_codes(lm, requests, SamplingConfig(temperature=0.0))
    for one, result in zip(requests, drawn, strict=True):
        written: list[int] = []
        K = lm.layout.num_levels
        while len(written) < K * one.max_frames:
            phase = len(written) % K
            ids = [*lm.layout.encode(one.prefix, one.given, end=False), *written]
            with torch.no_grad():
                start = torch.tensor([one.prefix.size + 1])
                places = lm.positions(start, len(ids))
                mask = None if places is None else torch.ones(1, len(ids), dtype=torch.bool)
                logits = lm.logits(lm.hidden(torch.tensor([ids]), positions=places, mask=mask)[0, -1], phase)
            if phase == 0 and len(written) < K * one.min_frames and lm.layout.eos_id is not None:
                logits[-1] = -torch.inf
            written.append(int(lm.ids_of(logits.argmax()[None], phase)[0]))
            if written[-1] == lm.layout.eos_id:
                break
        whole = np.array([*lm.layout.encode(one.prefix, one.given, end=False), *written])
        expected = lm.layout.decode(whole)
        assert np.array_equal(result.codes, expected.target[:, one.given.shape[1] :])
        assert result.ended == expected.ended


def test_lengths_stay_within_their_bounds_and_rows_do_not_depend_on_their_batch(timed):
    lm = timed.coarse
    requests = [request(lm, 3, 1, least=2, most=2 + n, seed=n) for n in range(12)] + [
        request(lm, 3, 0, least=0, most=0)
    ]
    sampling = SamplingConfig(temperature=1.0)
    together = generate_codes(lm, requests, sampling)
    small = generate_codes(lm, requests, sampling, max_batch_tokens=60)
    for one, result, other in zip(requests, together, small, strict=True):
        assert one.min_frames <= result.codes.shape[1] <= one.max_frames
        assert result.ended or result.codes.shape[1] == one.max_frames
        assert np.array_equal(result.codes, other.codes)
        assert np.array_equal(result.codes, generate_codes(lm, [one], sampling)[0].codes)
    assert any(result.ended for result in together), "a random model ends some rows early"


def test_a_stage_without_repeats_never_draws_one():
    lm = build(dedup=True).semantic
    requests = [request(lm, 0, 1, least=40, most=40, seed=seed) for seed in range(4)]
    for one, result in zip(requests, generate_codes(lm, requests, SamplingConfig(temperature=3.0)), strict=True):
        codes = np.concatenate((one.given[0], result.codes[0]))
        assert bool((codes[1:] != codes[:-1]).all())


def test_acoustic_generation_keeps_time_where_codes_do(timed):
    # 2 s windows hold 25 codes: the longer rows slide.
    rows = [draw(n, 6, seed=n) for n in (7, 25, 26, 90, 0)]
    spoken = generate_acoustic(timed, rows, seed=0)
    assert [one.acoustic_codes.shape for one in spoken] == [(5, 2 * len(codes)) for codes in rows]
    assert all(np.array_equal(one.semantic_codes, codes) for one, codes in zip(spoken, rows, strict=True))


def test_windows_slide_with_what_was_drawn_last_as_their_prompt(timed, monkeypatch):
    seen = []

    def watch(lm, requests, *args, **options):
        results = generate_codes(lm, requests, *args, **options)
        seen.extend((lm, one, result) for one, result in zip(requests, results, strict=True))
        return results

    monkeypatch.setattr("speechllm.generation.audiolm.generate_codes", watch)
    codes = draw(60, 6)
    (spoken,) = generate_acoustic(timed, [codes], seed=0)
    windows = [(one, result) for lm, one, result in seen if lm is timed.coarse]
    # A window of 25 codes; 0.8 s, ten codes or twenty frames, stand there again.
    assert [one.prefix[0].tolist() for one, _ in windows] == [
        codes[a:b].tolist() for a, b in ((0, 25), (15, 40), (30, 55), (45, 60))
    ]
    for (_, before), (after, _) in itertools.pairwise(windows):
        assert np.array_equal(after.given, before.codes[:, -20:])
    coarse = np.concatenate([result.codes for _, result in windows], axis=1)
    assert np.array_equal(spoken.acoustic_codes[:2], coarse)
    chunks = [one.prefix for lm, one, _ in seen if lm is timed.fine]
    assert np.array_equal(np.concatenate(chunks, axis=1), coarse)
    assert {chunk.shape[1] for chunk in chunks[:-1]} == {12}


def test_a_continuation_keeps_the_prompt_s_codes_and_adds_to_them(model):
    prompts = [voice(0.8), voice(1.6, seed=1), voice(5.0, seed=2)]
    spoken = continue_speech(model, prompts, seconds=3.0, seed=0)
    for prompt, one in zip(prompts, spoken, strict=True):
        P = prompt.acoustic_codes.shape[1]
        assert one.num_prompt_frames == P
        assert np.array_equal(one.acoustic_codes[:, :P], prompt.acoustic_codes)
        num_new = len(one.semantic_codes) - len(prompt.semantic_codes)
        if not model.coarse.config.dedup:
            assert num_new <= 38
            assert one.acoustic_codes.shape[1] == P + 2 * num_new
        assert 0 <= one.acoustic_codes.min() <= one.acoustic_codes.max() < 5


def test_what_is_drawn_follows_from_the_seed_and_not_from_the_batch(model):
    prompts = [voice(0.8), voice(1.6, seed=1), voice(0.8, seed=2)]
    first, again = (continue_speech(model, prompts, seconds=1.0, seed=3) for _ in range(2))
    alone = continue_speech(model, prompts[:1], seconds=1.0, seed=3)
    small = continue_speech(
        model, prompts, seconds=1.0, seed=3,
        sampling=dataclasses.replace(AudioLMSampling.of(model.config), max_batch_tokens=1),
    )  # fmt: skip
    for others in (again, alone, small):
        for one, other in zip(first, others, strict=False):
            assert np.array_equal(one.acoustic_codes, other.acoustic_codes)
            assert np.array_equal(one.semantic_codes, other.semantic_codes)
    drawn = [one.semantic_codes.tolist() for one in generate_unconditional(model, count=3, seconds=3.0, seed=0)]
    assert drawn[0] != drawn[1], "samples of one call differ"
    assert drawn != [one.semantic_codes.tolist() for one in generate_unconditional(model, count=3, seconds=3.0, seed=1)]


def test_speech_from_nothing_is_never_empty_and_never_too_long(model):
    spoken = generate_unconditional(model, count=6, seconds=6.0, seed=0)
    rate = model.config.code_rate(model.semantic.config)
    for one in spoken:
        assert 1 <= len(one.semantic_codes) <= 6 * rate
        frames = one.acoustic_codes.shape[1]
        assert frames >= 1
        # Each window may stretch to twice its length and half a second more.
        assert frames <= 2 * (2 * 6 * RATE) + 10 * RATE
    assert generate_unconditional(model, count=0, seconds=1.0, seed=0) == []


def test_all_levels_may_be_coarse():
    model = build(sizes=dataclasses.replace(SIZES, num_coarse=5))
    (spoken,) = generate_acoustic(model, [draw(4, 6)], seed=0)
    assert spoken.acoustic_codes.shape == (5, 8)


def test_temperatures_are_the_paper_s_unless_the_model_says_otherwise(timed):
    assert [getattr(AudioLMSampling(), stage).temperature for stage in STAGES] == [0.6, 0.8, 0.6]
    own = dataclasses.replace(timed.config, coarse=dataclasses.replace(timed.config.coarse, temperature=0.0))
    sampling = AudioLMSampling.of(own)
    assert [getattr(sampling, stage).temperature for stage in STAGES] == [0.6, 0.0, 0.6]


def test_what_cannot_be_done_is_said_in_one_line(timed):
    without = AudioLM(dataclasses.replace(timed.config, semantic=None))
    with pytest.raises(CheckpointError, match="no semantic stage"):
        continue_speech(without, [voice(0.8)], seconds=1.0, seed=0)
    with pytest.raises(ConfigError, match=r"seconds = 0\.0"):
        generate_unconditional(timed, count=1, seconds=0.0, seed=0)
    few = VoicePrompt(draw(5, 6), draw((3, 10), 5))
    with pytest.raises(DataError, match="3 acoustic levels, expected 5"):
        continue_speech(timed, [few], seconds=1.0, seed=0)


@pytest.fixture(scope="module")
def codec():
    config = MelRVQConfig(
        mel=LogMelConfig(num_mels=10), num_codebooks=5, codebook_size=5, vocoder=GriffinLimConfig(num_iterations=2)
    )
    return MelRVQCodec(config, torch.randn(5, 5, 40, generator=torch.Generator().manual_seed(0)) - 2)


def test_the_cascade_speaks_through_it_as_through_soundstorm(timed, codec):
    rows = [draw(n, 6, seed=n) for n in (30, 0, 4)]
    with_voice = synthesize(rows, timed, codec, voice=voice(0.8), seed=0)
    without = synthesize(rows, timed, codec, voice=None, seed=0)
    for audios in (with_voice, without):
        assert [audio.duration_seconds for audio in audios] == pytest.approx([2.4, 0.0, 0.32])
    assert not np.array_equal(with_voice[0].samples, without[0].samples)
    assert not np.array_equal(
        with_voice[0].samples, synthesize(rows, timed, codec, voice=voice(0.8), seed=1)[0].samples
    )
    alone = synthesize(rows[2:], timed, codec, voice=voice(0.8), seed=0, max_batch_frames=1)[0]
    assert np.array_equal(with_voice[2].samples, alone.samples)
    with pytest.raises(VocabularyError, match="another tokenizer"):
        synthesize([np.array([6])], timed, codec, voice=None, seed=0)


def test_another_codec_is_refused(codec):
    with pytest.raises(CheckpointError, match="was trained with codec"):
        synthesize([draw(3, 6)], build(fingerprint="abc"), codec, voice=None, seed=0)
