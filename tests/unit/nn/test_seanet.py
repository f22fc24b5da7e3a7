"""SEANet: causal, the same in pieces, sizes by formula."""

import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.nn.seanet import (
    CausalConvTranspose1d,
    CausalStridedConv1d,
    SEANetConfig,
    SEANetDecoder,
    SEANetEncoder,
)


def config(**changes):
    options = {"width": 4, "latent_width": 8, "strides": (2, 5), "dilations": (1, 3)} | changes
    return SEANetConfig(**options)


def networks(**changes):
    torch.manual_seed(0)
    return SEANetEncoder(config(**changes)).eval(), SEANetDecoder(config(**changes)).eval()


@pytest.mark.parametrize("strides", [(2, 2, 2, 4), (2, 2, 4, 4), (2, 4, 4, 4), (2, 4, 5, 8), (3,)])
def test_frames_by_the_product_of_the_strides(strides):
    encoder, decoder = networks(strides=strides, width=2, dilations=(1,))
    hop = config(strides=strides).samples_per_frame
    frames = encoder(torch.randn(2, 1, 3 * hop))
    assert frames.shape == (2, 8, 3)
    assert decoder(frames).shape == (2, 1, 3 * hop)


@pytest.mark.parametrize("num_lstm_layers", [0, 1])
def test_a_frame_sees_no_later_sample_and_a_sample_no_later_frame(num_lstm_layers):
    encoder, decoder = networks(num_lstm_layers=num_lstm_layers)
    waveforms = torch.randn(1, 1, 60, requires_grad=True)
    encoder(waveforms)[0, :, 2].sum().backward()
    assert waveforms.grad[0, 0, :30].abs().min() >= 0
    assert waveforms.grad[0, 0, 29] != 0
    assert not waveforms.grad[0, 0, 30:].any()
    frames = torch.randn(1, 8, 6, requires_grad=True)
    decoder(frames)[0, 0, 20:30].sum().backward()
    assert frames.grad[0, :, 2].any()
    assert not frames.grad[0, :, 3:].any()


@pytest.mark.parametrize("num_lstm_layers", [0, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_pieces_give_what_the_whole_gives(frames, num_lstm_layers):
    encoder, decoder = networks(num_lstm_layers=num_lstm_layers)
    waveforms, latents = torch.randn(2, 1, 130), torch.randn(2, 8, 13)
    state = {}
    pieces = torch.cat([encoder(piece, state) for piece in waveforms.split(10 * frames, dim=2)], dim=2)
    torch.testing.assert_close(pieces, encoder(waveforms), atol=1e-6, rtol=1e-5)
    state = {}
    pieces = torch.cat([decoder(piece, state) for piece in latents.split(frames, dim=2)], dim=2)
    torch.testing.assert_close(pieces, decoder(latents), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("strides", [(8, 5), (4, 2)])
def test_bfloat16_makes_what_float32_makes_and_so_do_its_gradients(strides):
    """Strided convolutions of torch 2.13 do not, on processors with AMX, from 16 channels on."""
    torch.manual_seed(0)
    size = SEANetConfig(width=16, latent_width=8, strides=strides, dilations=(1,), residual_kernel_size=3)
    hop = size.samples_per_frame
    for network, inputs in (
        (SEANetEncoder(size), 0.1 * torch.randn(2, 1, 40 * hop)),
        (SEANetDecoder(size), torch.randn(2, 8, 40)),
    ):
        target, found = torch.randn_like(network(inputs)), []
        for enabled in (False, True):
            network.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                made = network(inputs)
            (made.float() * target).sum().backward()
            gradients = [parameter.grad.clone() for parameter in network.parameters()]
            found.append([made.detach().float(), *gradients])
        for exact, coarse in zip(*found, strict=True):
            assert float(torch.cosine_similarity(exact.flatten(), coarse.flatten(), dim=0)) > 0.98


def test_strided_layers_are_the_convolutions_of_their_weights():
    torch.manual_seed(0)
    down, up = CausalStridedConv1d(3, 5, stride=4), CausalConvTranspose1d(3, 5, stride=4)
    x = torch.randn(2, 3, 20)
    torch.testing.assert_close(down(x), down.conv(torch.nn.functional.pad(x, (4, 0))), atol=1e-6, rtol=1e-5)
    # The first step is made from silence and itself, and what would come after the last one is cut.
    torch.testing.assert_close(up(x), up.conv(x)[:, :, :80], atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("strides", [(2, 4, 5, 8), (8, 5, 4, 2), (2, 2, 2, 4)])
def test_random_weights_keep_the_size_of_speech_and_tell_sounds_apart(strides):
    encoder, decoder = networks(strides=strides, width=8, latent_width=32)
    frames = encoder(0.1 * torch.randn(4, 1, 50 * config(strides=strides).samples_per_frame))
    between = float(frames.std((0, 2)).mean())
    assert 0.2 < between < 5
    assert float(frames.mean((0, 2)).abs().mean()) < between
    assert 0.02 < float(decoder(torch.randn(4, 32, 50)).std()) < 0.5


@pytest.mark.parametrize("bad", [{"strides": ()}, {"strides": (1, 2)}, {"width": 0}])
def test_sizes_that_make_no_network_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        config(**bad)
