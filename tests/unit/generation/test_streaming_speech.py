import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechllm.errors import CheckpointError, ConfigError, VocabularyError
from speechllm.generation import streaming_speech
from speechllm.generation.streaming_speech import OverlappingDecoder, StreamConfig, stream_speech
from speechllm.generation.voice import VoicePrompt
from speechllm.models.soundstorm import SoundStorm, SoundStormConfig
from speechllm.nn.conformer import ConformerConfig
from tests.support.tiny import tiny_acoustic, tiny_audiolm
from tests.support.tiny_codecs import soundstream

SEMANTIC, FRAME = 20, 40


class SmearingCodec:
    """Each frame's samples hold its code, and half of the codes of its two neighbours: sees one frame both ways."""

    sample_rate, frame_rate, num_codebooks, codebook_size, bitrate_kbps, fingerprint = 25 * FRAME, 25.0, 2, 8, 0.15, ""

    encode = codebook_vectors = to = save_pretrained = from_pretrained = lambda self, *_: pytest.fail("not needed")

    def decode(self, codes):
        frames = codes.float().sum(1)
        left = torch.nn.functional.pad(frames, (1, 0))[:, :-1]
        right = torch.nn.functional.pad(frames, (0, 1))[:, 1:]
        return (frames + 0.5 * left + 0.5 * right).repeat_interleave(FRAME, dim=1) / 100


@pytest.fixture(scope="module")
def storm():
    torch.manual_seed(0)
    config = SoundStormConfig(
        num_conditions=SEMANTIC, num_codebooks=2, codebook_size=8, tied=False,
        trunk=ConformerConfig(width=16, num_layers=1, num_heads=2),
    )  # fmt: skip
    return SoundStorm(config).eval()


def semantic(length, seed=0):
    return np.random.default_rng(seed).integers(SEMANTIC, size=length)


def in_pieces(codes, sizes):
    parts, start = [], 0
    for size in sizes:
        parts.append(codes[start : start + size])
        start += size
    return [*parts, codes[start:]]


def joined(audios):
    return np.concatenate([audio.samples for audio in audios])


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), max_size=12),
    held_fade=st.sampled_from([(1, 0), (2, 0), (2, FRAME), (3, 5), (3, 2 * FRAME)]),
)
def test_overlapping_decoder_gives_what_the_whole_would(sizes, held_fade):
    held, fade = held_fade
    codec = SmearingCodec()
    codes = np.random.default_rng(0).integers(8, size=(2, sum(sizes) + 3))
    config = StreamConfig(codec_held_seconds=held / 25, fade_seconds=fade / (25 * FRAME), codec_context_seconds=6 / 25)
    decoder = OverlappingDecoder(codec, config)
    samples = [decoder.push(part.T) for part in in_pieces(codes.T, sizes)]
    found = np.concatenate([*samples, decoder.flush()])
    whole = codec.decode(torch.from_numpy(codes)[None])[0].numpy()
    np.testing.assert_allclose(found, whole, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(0, 60), max_size=6))
def test_the_sizes_that_arrive_change_nothing(storm, sizes):
    codes = semantic(150)
    expected = joined(stream_speech([codes], storm, SmearingCodec(), voice=None, seed=3))
    assert len(expected) == 150 * 2 * FRAME
    found = joined(stream_speech(in_pieces(codes, sizes), storm, SmearingCodec(), voice=None, seed=3))
    assert np.array_equal(found, expected)


def test_a_codec_that_streams_gives_what_it_would_give_at_once(monkeypatch):
    codec = soundstream()
    torch.manual_seed(0)
    config = SoundStormConfig(
        num_conditions=SEMANTIC, num_codebooks=3, codebook_size=32, tied=False, frames_per_condition=64,
        trunk=ConformerConfig(width=16, num_layers=1, num_heads=2),
    )  # fmt: skip
    said = []
    real = streaming_speech.acoustic_codes

    def spy(model, codes, voices, decoding, *, seed):
        made = real(model, codes, voices, decoding, seed=seed)
        said.append(made[0])
        return made

    monkeypatch.setattr(streaming_speech, "acoustic_codes", spy)
    settings = StreamConfig(first_seconds=0.16, seconds=0.32, lookahead_seconds=0.0, context_seconds=0.16)
    audios = list(stream_speech([semantic(14)], SoundStorm(config).eval(), codec, voice=None, seed=0, config=settings))
    whole = codec.decode(torch.from_numpy(np.concatenate(said, axis=1))[None])[0].numpy()
    np.testing.assert_allclose(joined(audios), whole, atol=1e-5)
    assert len(audios) == len(said) > 2


def test_the_first_sound_needs_no_more_than_the_stated_codes(storm):
    config = StreamConfig(first_seconds=0.8, seconds=4.0, lookahead_seconds=0.24)
    taken = []

    def arriving():
        for code in semantic(300):
            taken.append(code)
            yield np.array([code])

    first = next(stream_speech(arriving(), storm, SmearingCodec(), voice=None, seed=0, config=config))
    assert len(taken) == round(12.5 * config.latency_seconds) == 13
    # 10 codes are said; 0.08 s of them are held back.
    assert first.duration_seconds == pytest.approx(0.8 - 0.08)


def test_memory_does_not_grow_with_the_speech(storm, monkeypatch):
    """Five minutes: no pass ever sees more than a piece with its prompt."""
    widths = {"acoustic": 0, "codec": 0}
    forward, decode = SoundStorm.forward, SmearingCodec.decode

    def storm_spy(self, condition, *rest):
        widths["acoustic"] = max(widths["acoustic"], condition.shape[1])
        return forward(self, condition, *rest)

    def codec_spy(self, codes):
        widths["codec"] = max(widths["codec"], codes.shape[2])
        return decode(self, codes)

    monkeypatch.setattr(SoundStorm, "forward", storm_spy)
    monkeypatch.setattr(SmearingCodec, "decode", codec_spy)
    voice = VoicePrompt(semantic(38, 1), np.zeros((2, 76), np.int64))
    minutes = (semantic(50, seed) for seed in range(75))
    config = StreamConfig()
    total = sum(a.num_samples for a in stream_speech(minutes, storm, SmearingCodec(), voice=voice, seed=0))
    assert total == 300 * 25 * FRAME
    seconds = 3.04 + config.context_seconds + config.seconds + config.lookahead_seconds
    assert widths["acoustic"] <= round(seconds * 25) + 4
    assert widths["codec"] <= round((config.seconds + config.codec_context_seconds) * 25) + 4


def test_later_pieces_go_on_in_the_voice_of_the_first(storm, monkeypatch):
    prompts = []
    real = streaming_speech.acoustic_codes

    def spy(model, codes, voices, decoding, *, seed):
        made = real(model, codes, voices, decoding, seed=seed)
        prompts.append((voices[0], made[0]))
        return made

    monkeypatch.setattr(streaming_speech, "acoustic_codes", spy)
    config = StreamConfig(first_seconds=0.8, seconds=1.6, lookahead_seconds=0.16, context_seconds=0.4)
    list(stream_speech([semantic(60)], storm, SmearingCodec(), voice=None, seed=0, config=config))
    assert prompts[0][0] is None
    assert np.array_equal(prompts[1][0].acoustic_codes, prompts[0][1][:, 10:20])
    assert np.array_equal(prompts[1][0].semantic_codes, semantic(60)[5:10])
    prompts.clear()
    voice = VoicePrompt(semantic(7, 1), np.ones((2, 14), np.int64))
    list(stream_speech([semantic(60)], storm, SmearingCodec(), voice=voice, seed=0, config=config))
    assert [p.acoustic_codes.shape[1] for p, _ in prompts] == [14, 24, 24, 24]
    assert (prompts[3][0].acoustic_codes[:, :14] == 1).all()


def test_audiolm_streams_if_it_keeps_time():
    codec, _ = tiny_acoustic(SEMANTIC)
    model = tiny_audiolm(codec, SEMANTIC)
    audios = list(stream_speech([semantic(20)], model, codec, voice=None, seed=0))
    assert sum(a.num_samples for a in audios) == 20 * 1_280
    coarse = dataclasses.replace(model.config.coarse, dedup=True, tokens_per_second=10.0)
    dedup = type(model)(dataclasses.replace(model.config, coarse=coarse)).eval()
    with pytest.raises(ConfigError, match="dedup: false"):
        list(stream_speech([np.zeros(20, np.int64)], dedup, codec, voice=None, seed=0))


def test_nothing_to_say_is_silence_without_pieces(storm):
    assert list(stream_speech([], storm, SmearingCodec(), voice=None, seed=0)) == []
    assert list(stream_speech([np.zeros(0, np.int64)] * 3, storm, SmearingCodec(), voice=None, seed=0)) == []
    assert len(joined(stream_speech([semantic(1)], storm, SmearingCodec(), voice=None, seed=0))) == 2 * FRAME


def test_what_does_not_belong_together_is_refused(storm):
    with pytest.raises(VocabularyError, match="another tokenizer"):
        list(stream_speech([np.array([SEMANTIC])], storm, SmearingCodec(), voice=None, seed=0))
    stranger = SoundStorm(dataclasses.replace(storm.config, codec_fingerprint="other"))
    with pytest.raises(CheckpointError, match="was trained with codec"):
        list(stream_speech([semantic(3)], stranger, SmearingCodec(), voice=None, seed=0))
    with pytest.raises(ConfigError, match=r"seconds = 0\.0, expected more"):
        StreamConfig(seconds=0.0)
    with pytest.raises(ConfigError, match="lengthen it"):
        StreamConfig(codec_context_seconds=0.05)
