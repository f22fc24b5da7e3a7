import dataclasses

import numpy as np
import pytest
import torch

from speechllm.audio import Audio
from speechllm.errors import AudioError, CheckpointError, ConfigError, VocabularyError
from speechllm.generation.cascade import synthesize
from speechllm.generation.soundstorm import fill_at_once
from speechllm.generation.voice import VoicePrompt, encode_start, encode_voice, prompt_length
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.nn.conformer import ConformerConfig
from speechllm.tokenizers.fake import FakeSemanticTokenizer
from speechllm.tokenizers.mel import LogMelConfig
from speechllm.tokenizers.mel_rvq import MelRVQCodec, MelRVQConfig
from speechllm.tokenizers.vocoder import GriffinLimConfig

K, N, SEMANTIC = 3, 8, 16


@pytest.fixture(scope="module")
def codec():
    config = MelRVQConfig(
        mel=LogMelConfig(num_mels=10), num_codebooks=K, codebook_size=N, vocoder=GriffinLimConfig(num_iterations=2)
    )
    return MelRVQCodec(config, torch.randn(K, N, 40, generator=torch.Generator().manual_seed(0)) - 2)


@pytest.fixture(scope="module")
def acoustic(codec):
    torch.manual_seed(0)
    config = SoundStormConfig(
        num_conditions=SEMANTIC,
        num_codebooks=K,
        codebook_size=N,
        codebook_width=40,
        trunk=ConformerConfig(width=16, num_layers=1, num_heads=2),
        codec_fingerprint=codec.fingerprint,
    )
    model = SoundStorm(config).eval()
    model.codes.set_codebooks(codec.codebook_vectors())
    torch.nn.init.normal_(model.codes.shared_head.weight, std=0.2)
    return model


@pytest.fixture(scope="module")
def voice(codec, acoustic):
    noise = torch.randn(32_000, generator=torch.Generator().manual_seed(1)) * 0.1
    tokenizer = FakeSemanticTokenizer(SEMANTIC, frame_rate=12.5)
    return encode_voice(Audio(noise.numpy(), 16_000), tokenizer, codec, acoustic)


def codes(length, seed=0):
    return np.random.default_rng(seed).integers(SEMANTIC, size=length)


def test_each_code_becomes_80_ms_and_the_prompt_is_dropped(codec, acoustic, voice):
    with_voice = synthesize([codes(5), codes(9)], acoustic, codec, voice=voice, seed=0)
    without = synthesize([codes(5), codes(9)], acoustic, codec, voice=None, seed=0)
    for audios in (with_voice, without):
        assert [audio.duration_seconds for audio in audios] == pytest.approx([0.4, 0.72])
    assert not np.array_equal(with_voice[0].samples, without[0].samples)


def test_an_utterance_does_not_depend_on_its_batch(codec, acoustic, voice):
    several = [codes(n, seed=n) for n in (12, 3, 7, 12)]
    together = synthesize(several, acoustic, codec, voice=voice, seed=4)
    small = synthesize(several, acoustic, codec, voice=voice, seed=4, max_batch_frames=1)
    for one, other, alone in zip(together, small, several, strict=True):
        assert np.array_equal(one.samples, other.samples)
        assert np.array_equal(one.samples, synthesize([alone], acoustic, codec, voice=voice, seed=4)[0].samples)


def test_seeds_and_voices_are_heard(codec, acoustic, voice):
    other = VoicePrompt(voice.semantic_codes, (voice.acoustic_codes + 1) % N)
    base = synthesize([codes(12)], acoustic, codec, voice=voice, seed=0)[0].samples
    assert not np.array_equal(base, synthesize([codes(12)], acoustic, codec, voice=voice, seed=1)[0].samples)
    assert not np.array_equal(base, synthesize([codes(12)], acoustic, codec, voice=[other], seed=0)[0].samples)


def at_once(acoustic):
    model = SoundStorm(dataclasses.replace(acoustic.config, at_once=True)).eval()
    model.load_state_dict(acoustic.state_dict())
    return model


def test_at_once_quantises_the_first_pass_and_keeps_prompt_and_padding(acoustic):
    generator = torch.Generator().manual_seed(0)
    condition = torch.randint(SEMANTIC, (2, 24), generator=generator)
    prompt = torch.randint(N, (2, K, 6), generator=generator)
    lengths = torch.tensor([24, 16])
    masked = torch.cat((prompt, torch.full((2, K, 18), N)), dim=2)
    unknown = (torch.arange(24) >= 6).expand(2, 24)
    found = fill_at_once(acoustic, condition, masked, unknown, lengths=lengths)
    with torch.no_grad():
        vectors = acoustic(condition, masked, lengths, torch.zeros(2, dtype=torch.long)).vectors
    assert torch.equal(found[:, :, :6], prompt)
    assert torch.equal(found[0, :, 6:], acoustic.codes.quantise(vectors)[0, :, 6:])
    assert (found[1, :, 16:] == 0).all()
    alone = fill_at_once(acoustic, condition[1:, :16], masked[1:, :, :16], unknown[1:, :16], lengths=lengths[1:])
    assert torch.equal(found[1:, :, :16], alone)


def test_a_model_that_speaks_at_once_takes_one_pass_and_no_draws(codec, acoustic, voice, monkeypatch):
    model, passes = at_once(acoustic), []
    forward = SoundStorm.forward
    monkeypatch.setattr(SoundStorm, "forward", lambda self, *args: passes.append(1) or forward(self, *args))
    one, other = (synthesize([codes(8)], model, codec, voice=voice, seed=seed)[0] for seed in (1, 2))
    assert np.array_equal(one.samples, other.samples)
    assert len(passes) == 2


def test_at_once_needs_vectors():
    sizes = {"num_conditions": 4, "num_codebooks": 2, "codebook_size": 4, "tied": False}
    with pytest.raises(ConfigError, match="at_once needs the vectors of a tied model"):
        SoundStormConfig(**sizes, at_once=True)
    free = SoundStorm(SoundStormConfig(**sizes, trunk=ConformerConfig(width=16, num_layers=1, num_heads=2)))
    nothing = torch.zeros(1, 2, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ConfigError, match="use soundstorm_fill"):
        fill_at_once(free, torch.zeros(1, 3, dtype=torch.long), *nothing, lengths=torch.tensor([3]))


def test_no_codes_give_an_empty_waveform_in_its_place(codec, acoustic, voice):
    audios = synthesize([codes(0), codes(2)], acoustic, codec, voice=voice, seed=0)
    assert [audio.num_samples for audio in audios] == [0, 2 * 1_280]
    assert synthesize([], acoustic, codec, voice=voice, seed=0) == []


def test_what_does_not_belong_together_is_refused(codec, acoustic, voice):
    with pytest.raises(VocabularyError, match="another tokenizer"):
        synthesize([np.array([SEMANTIC])], acoustic, codec, voice=voice, seed=0)
    sounds = voice.acoustic_codes
    for strange in (sounds[:-1], sounds[:, 1:], np.full_like(sounds, 10_000), sounds - 10_000, sounds[0]):
        prompt = VoicePrompt(voice.semantic_codes, strange)
        with pytest.raises(VocabularyError, match="made by another codec"):
            synthesize([codes(3)], acoustic, codec, voice=prompt, seed=0)
    with pytest.raises(VocabularyError, match="another tokenizer"):
        synthesize([codes(3)], acoustic, codec, voice=VoicePrompt(voice.semantic_codes + SEMANTIC, sounds), seed=0)
    stranger = MelRVQCodec(codec.config, codec.codebooks + 1)
    with pytest.raises(CheckpointError, match="was trained with codec"):
        synthesize([codes(3)], acoustic, stranger, voice=voice, seed=0)


def test_a_prompt_has_three_seconds_repeated_or_cut(codec, acoustic):
    tokenizer = FakeSemanticTokenizer(SEMANTIC, frame_rate=12.5)
    noise = torch.randn(80_000, generator=torch.Generator().manual_seed(2)).numpy() * 0.1
    for seconds in (0.4, 1.0, 3.0, 5.0):
        prompt = encode_voice(Audio(noise[: int(seconds * 16_000)], 16_000), tokenizer, codec, acoustic)
        assert prompt.semantic_codes.shape == (38,)
        assert prompt.acoustic_codes.shape == (K, 76)
    short = encode_voice(Audio(noise[:6_400], 16_000), tokenizer, codec, acoustic)
    assert np.array_equal(short.semantic_codes[:5], short.semantic_codes[5:10])
    assert np.array_equal(short.acoustic_codes[:, :10], short.acoustic_codes[:, 10:20])


def test_what_is_to_be_continued_ends_where_it_ends(codec, acoustic):
    tokenizer = FakeSemanticTokenizer(SEMANTIC, frame_rate=12.5)
    noise = torch.randn(80_000, generator=torch.Generator().manual_seed(2)).numpy() * 0.1
    for seconds, num_codes in ((0.4, 5), (1.0, 12), (3.0, 37), (5.0, 37)):
        audio = Audio(noise[: int(seconds * 16_000)], 16_000)
        start, voice = (encode(audio, tokenizer, codec, acoustic) for encode in (encode_start, encode_voice))
        assert start.semantic_codes.shape == (num_codes,), "whole codes alone: 3 s are 37.5 of them"
        assert start.acoustic_codes.shape == (K, 2 * num_codes)
        assert np.array_equal(start.semantic_codes, voice.semantic_codes[:num_codes])
        assert np.array_equal(start.acoustic_codes, voice.acoustic_codes[:, : 2 * num_codes])
    with pytest.raises(AudioError, match="no whole semantic code"):
        encode_start(Audio(noise[:800], 16_000), tokenizer, codec, acoustic)


def test_prompts_of_another_rate_and_empty_prompts(codec, acoustic):
    assert prompt_length(25.0, 2) == 38
    assert prompt_length(50.0, 2, 2.0) == 50
    with pytest.raises(AudioError, match="no whole semantic code"):
        VoicePrompt(np.zeros(0, np.int64), np.zeros((K, 0), np.int64)).tiled(38, 2)
