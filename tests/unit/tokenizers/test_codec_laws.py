"""The laws that every codec keeps, each on a tiny model: one list of codecs, one list of laws."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from speechllm.errors import AudioError, VocabularyError
from speechllm.tokenizers.codec import CODECS, Codec, load_codec
from tests.support import tiny_codecs
from tests.support.tiny_codecs import tones


@dataclass(frozen=True)
class Case:
    """A codec and what it claims."""

    name: str
    build: Callable[[], Any]
    hop: int
    quantized: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
    "Codec and codes to the model's own quantizer output [B, D, T]."
    latents: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
    "Codec and waveforms to what is quantised [B, D, T], where codebooks were fitted."
    is_causal: bool = True
    streams: bool = False


CASES = [
    Case(
        "mel-rvq",
        tiny_codecs.mel_rvq,
        640,
        latents=lambda codec, waveforms: codec.patches(waveforms).float().transpose(1, 2),
    ),
    *(
        Case(
            name,
            functools.partial(tiny_codecs.soundstream, num_lstm_layers=num_lstm_layers),
            20,
            quantized=lambda codec, codes: codec.quantizer.decode(codes),
            latents=lambda codec, waveforms: codec.encoder(waveforms[:, None]).detach(),
            streams=True,
        )
        for name, num_lstm_layers in (("soundstream", 0), ("soundstream-lstm", 1))
    ),
    Case(
        "encodec",
        lambda: tiny_codecs.pretrained(tiny_codecs.encodec_model()),
        16,
        quantized=lambda codec, codes: codec.model.quantizer.decode(codes.transpose(0, 1)),
    ),
    Case(
        "dac",
        lambda: tiny_codecs.pretrained(tiny_codecs.dac_model()),
        10,
        quantized=lambda codec, codes: codec.model.quantizer.from_codes(codes)[0],
        is_causal=False,
    ),
    Case(
        "mimi",
        lambda: tiny_codecs.pretrained(tiny_codecs.mimi_model()),
        40,
        quantized=lambda codec, codes: codec.model.quantizer.decode(codes),
        streams=True,
    ),
    Case(
        "xcodec",
        lambda: tiny_codecs.pretrained(tiny_codecs.xcodec_model()),
        320,
        quantized=lambda codec, codes: codec.model.quantizer.decode(codes.transpose(0, 1)),
        is_causal=False,
    ),
]


@functools.cache
def built(case):
    return case.build()


def having(claim):
    return [pytest.param(case, id=case.name) for case in CASES if claim(case)]


every = pytest.mark.parametrize("case", having(lambda case: True))
causal = pytest.mark.parametrize("case", having(lambda case: case.is_causal))
streaming = pytest.mark.parametrize("case", having(lambda case: case.streams))
fitted = pytest.mark.parametrize("case", having(lambda case: case.latents))
own_quantizer = pytest.mark.parametrize("case", having(lambda case: case.quantized))


def batch(case, frames=11):
    """Return two waveforms whose last frame is partial."""
    samples = frames * case.hop - case.hop // 3
    return torch.stack([tones(seed, samples) for seed in (1, 2)])


@every
def test_it_is_a_codec_and_its_class_is_registered(case):
    codec = built(case)
    assert isinstance(codec, Codec)
    assert any(CODECS[kind] is type(codec) for kind in CODECS)


@pytest.mark.parametrize("case", having(lambda case: case.name not in ("encodec", "mimi")))
def test_any_device_may_ask_and_the_codec_answers_on_its_own(case):
    """`meta` stands for an accelerator (EnCodec and Mimi read numbers of their buffers, and meta has none)."""
    codec = case.build().to("meta")
    waveforms = batch(case, frames=2)
    codes = torch.zeros(2, codec.num_codebooks, 2, dtype=torch.long)
    assert codec.encode(waveforms).device.type == "meta"
    assert codec.decode(codes).device.type == "meta"
    if case.streams:
        assert codec.streaming_encoder().push(waveforms).device.type == "meta"
        assert codec.streaming_decoder().push(codes).device.type == "meta"


@every
def test_rates_follow_from_the_frame(case):
    codec = built(case)
    assert codec.frame_rate == codec.sample_rate / case.hop
    levels, bits = codec.num_codebooks, math.log2(codec.codebook_size)
    assert codec.bitrate_kbps == pytest.approx(codec.frame_rate * levels * bits / 1_000)


@every
@pytest.mark.parametrize(("frames", "more"), [(0, 1), (3, 0), (3, 1)])
def test_the_last_partial_frame_counts(case, frames, more):
    codec, S = built(case), frames * case.hop + more
    codes = codec.encode(torch.full((2, S), 0.1))
    T = math.ceil(S / case.hop)
    assert codes.shape == (2, codec.num_codebooks, T)
    assert codes.dtype == torch.int64
    waveforms = codec.decode(codes)
    assert waveforms.shape == (2, T * case.hop)
    assert float(waveforms.abs().max()) <= 1


@every
def test_codes_are_in_range_and_not_all_the_same(case):
    codec = built(case)
    codes = codec.encode(batch(case, 30))
    assert int(codes.min()) >= 0
    assert int(codes.max()) < codec.codebook_size
    assert len(codes.unique()) > 8


@every
def test_a_row_does_not_depend_on_the_others(case):
    codec, waveforms = built(case), batch(case)
    together = codec.encode(waveforms)
    for row, waveform in zip(together, waveforms, strict=True):
        assert torch.equal(codec.encode(waveform[None])[0], row)


@causal
def test_silence_on_the_right_only_appends_codes(case):
    codec, waveforms = built(case), batch(case)
    assert getattr(codec, "is_causal", True)
    padded = torch.nn.functional.pad(waveforms, (0, 9 * case.hop + 5))
    codes = codec.encode(waveforms)
    assert torch.equal(codec.encode(padded)[:, :, : codes.shape[2]], codes)


@every
def test_every_prefix_of_the_levels_decodes(case):
    codec = built(case)
    codes = codec.encode(batch(case))
    waveforms = [codec.decode(codes[:, :k]) for k in range(1, codec.num_codebooks + 1)]
    assert {len(waveform[0]) for waveform in waveforms} == {codes.shape[2] * case.hop}
    assert all(bool(torch.isfinite(waveform).all()) for waveform in waveforms)
    assert not torch.equal(waveforms[0], waveforms[-1])


@own_quantizer
def test_a_frame_is_the_sum_of_its_vectors(case):
    codec = built(case)
    codes = codec.encode(batch(case))
    vectors = codec.codebook_vectors()
    K, N, D = vectors.shape
    assert (codec.num_codebooks, codec.codebook_size) == (K, N)
    for levels in range(1, K + 1):
        summed = torch.stack([vectors[k][codes[:, k]] for k in range(levels)]).sum(0)
        own = case.quantized(codec, codes[:, :levels]).transpose(1, 2)
        torch.testing.assert_close(summed, own, atol=1e-5, rtol=1e-5)


@fitted
def test_every_level_lowers_the_error(case):
    codec, waveforms = built(case), torch.stack([tones(seed, 24_000) for seed in range(3)])
    codes, truth = codec.encode(waveforms), case.latents(codec, waveforms)
    vectors, errors = codec.codebook_vectors(), []
    for levels in range(1, codec.num_codebooks + 1):
        summed = torch.stack([vectors[k][codes[:, k]] for k in range(levels)]).sum(0)
        errors.append(float((summed.transpose(1, 2) - truth).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]


@every
def test_codes_are_bit_equal_after_reload(case, tmp_path):
    codec, waveforms = built(case), batch(case)
    codec.save_pretrained(tmp_path)
    again = load_codec(tmp_path)
    codes = codec.encode(waveforms)
    assert type(again) is type(codec)
    assert again.fingerprint == codec.fingerprint
    assert torch.equal(again.encode(waveforms), codes)
    assert torch.equal(again.decode(codes), codec.decode(codes))
    assert torch.equal(again.codebook_vectors(), codec.codebook_vectors())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@every
def test_the_fingerprint_follows_the_weights(case, tmp_path):
    codec = built(case)
    codec.save_pretrained(tmp_path)
    other = load_codec(tmp_path)
    largest = max(other.state_dict().values(), key=torch.numel)
    with torch.no_grad():
        largest.view(-1)[0] += 1
    assert other.fingerprint != codec.fingerprint


@streaming
@pytest.mark.parametrize("share", [0.3, 1.0, 2.7], ids=lambda share: f"{share}-frames")
def test_streaming_encode_equals_offline(case, share):
    codec, waveforms = built(case), batch(case, 25)
    stream = codec.streaming_encoder()
    codes = [stream.push(part) for part in waveforms.split(int(share * case.hop), dim=1)]
    codes.append(stream.flush())
    assert torch.equal(torch.cat(codes, dim=2), codec.encode(waveforms))
    assert stream.flush().shape[2] == 0


@streaming
@pytest.mark.parametrize("frames", [1, 3, 13])
def test_streaming_decode_equals_offline(case, frames):
    codec = built(case)
    codes = codec.encode(batch(case, 25))
    stream = codec.streaming_decoder()
    waveforms = torch.cat([stream.push(part) for part in codes.split(frames, dim=2)], dim=1)
    # Convolutions round by shape: a few last bits of float32.
    torch.testing.assert_close(waveforms, codec.decode(codes), atol=2e-5, rtol=0)


@every
def test_unusable_input_is_refused_in_one_line(case):
    codec = built(case)
    levels, size = codec.num_codebooks, codec.codebook_size
    refused = [
        (AudioError, "empty", lambda: codec.encode(torch.zeros(1, 0))),
        (AudioError, "NaN", lambda: codec.encode(torch.tensor([[0.0, float("nan")]]))),
        (VocabularyError, rf"expected 0\.\.{size - 1}", lambda: codec.decode(torch.full((1, levels, 2), size))),
        (VocabularyError, "expected 0", lambda: codec.decode(torch.full((1, levels, 2), -1))),
        (VocabularyError, f"{levels + 1} levels", lambda: codec.decode(torch.zeros(1, levels + 1, 2).long())),
        (VocabularyError, "0 levels", lambda: codec.decode(torch.zeros(1, 0, 2).long())),
    ]
    for error, match, call in refused:
        with pytest.raises(error, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
