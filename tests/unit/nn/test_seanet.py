"""SEANet: causal, the same in pieces, sizes by formula."""

import pytest
import torch

from speechllm.errors import ConfigError
from speechllm.nn.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder


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


@pytest.mark.parametrize("bad", [{"strides": ()}, {"strides": (1, 2)}, {"width": 0}])
def test_sizes_that_make_no_network_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        config(**bad)
