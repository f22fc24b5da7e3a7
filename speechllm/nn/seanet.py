"""SEANet: a causal convolutional encoder and decoder between waveforms and frames.

    encoder, decoder = SEANetEncoder(SEANetConfig()), SEANetDecoder(SEANetConfig())
    frames = encoder(torch.zeros(1, 1, 16_000))                 # [1, 512, 50]: 16 000 samples by strides 2, 4, 5, 8
    decoder(frames).shape                                       # (1, 1, 16000)

    state = {}                                                  # streaming: the same call with a memory
    parts = [encoder(piece, state) for piece in waveform.split(320, dim=2)]     # cat(parts) == encoder(waveform)

SoundStream (arXiv:2107.03312, section III): residual units of dilations 1, 3, 9, then a strided convolution that
doubles the width, in the decoder all of it backwards; ELU, no normalisation. Frame t sees the samples up to its own
end, sample s the frames up to its own. With `num_lstm_layers` and one dilation it is EnCodec's and AudioGen's form
(arXiv:2210.13438, section 3.1). Input lengths are multiples of the product of the strides.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.errors import ConfigError

SPEECH_LEVEL = 0.1
"Root mean square of usual speech: inside the networks it is about 1."
State: TypeAlias = dict[nn.Module, Any]
"What each layer remembers of the pieces before; a stream begins with an empty one."


@dataclass(frozen=True, kw_only=True)
class SEANetConfig:
    """Sizes; the defaults are SoundStream's."""

    width: int = 32
    "Channels at the sample rate; they double at each stride."
    latent_width: int = 512
    "Channels D of a frame."
    strides: tuple[int, ...] = (2, 4, 5, 8)
    "Of the encoder; the decoder takes them backwards. Their product is the samples in a frame."
    dilations: tuple[int, ...] = (1, 3, 9)
    "One residual unit each, before every stride."
    kernel_size: int = 7
    "Of the first and last convolutions."
    residual_kernel_size: int = 7
    "Of the dilated convolutions."
    num_lstm_layers: int = 0
    "LSTM layers beside the quantizer, on both sides: 2 in EnCodec, none in SoundStream."

    def __post_init__(self) -> None:
        for name in ("width", "latent_width", "kernel_size", "residual_kernel_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected at least 1")
        if not self.strides or min(self.strides) < 2:
            raise ConfigError(f"strides = {self.strides}, expected one or more numbers of at least 2")

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame stands for."""
        return math.prod(self.strides)


class CausalConv1d(nn.Module):
    """Convolution over the present and the past; the past of the first sample is silence."""

    def __init__(self, channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(channels, out_channels, kernel_size, dilation=dilation)
        self.context = (kernel_size - 1) * dilation

    def forward(self, x: Float[Tensor, "B C T"], state: State | None = None) -> Float[Tensor, "B C2 T"]:
        """Return as many steps as there were."""
        return self.conv(_with_past(self, x, self.context, state))


class CausalStridedConv1d(nn.Module):
    """Convolution that makes one step out of each `stride` steps and the `stride` before them.

    It is computed as a convolution of stride 1 over patches of `stride` steps: in bfloat16, strided ones give wrong
    numbers on processors with AMX (seen in torch 2.13, 16 channels, strides 4 and 8), and so do their gradients.
    """

    def __init__(self, channels: int, out_channels: int, *, stride: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, out_channels, 2 * stride, stride)
        self.stride = stride

    def forward(self, x: Float[Tensor, "B C T"], state: State | None = None) -> Float[Tensor, "B C2 T2"]:
        """Return T / stride steps."""
        patches = rearrange(_with_past(self, x, self.stride, state), "b c (t s) -> b (c s) t", s=self.stride)
        weight = rearrange(self.conv.weight, "o c (k s) -> o (c s) k", s=self.stride)
        return nn.functional.conv1d(patches, weight, self.conv.bias)


class CausalConvTranspose1d(nn.Module):
    """Transposed convolution that makes `stride` steps out of each, from it and the one before.

    Computed as a convolution of stride 1 that makes patches, for the reason in `CausalStridedConv1d`.
    """

    def __init__(self, channels: int, out_channels: int, *, stride: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, out_channels, 2 * stride, stride)
        self.stride = stride

    def forward(self, x: Float[Tensor, "B C T"], state: State | None = None) -> Float[Tensor, "B C2 T2"]:
        """Return T * stride steps."""
        # The second half of the kernel belongs to the step before, which comes first.
        halves = rearrange(self.conv.weight, "c o (k s) -> k o s c", s=self.stride).flip(0)
        weight = rearrange(halves, "k o s c -> (o s) c k")
        assert self.conv.bias is not None
        bias = self.conv.bias.repeat_interleave(self.stride)
        patches = nn.functional.conv1d(_with_past(self, x, 1, state), weight, bias)
        return rearrange(patches, "b (o s) t -> b o (t s)", s=self.stride)


class ResidualUnit(nn.Module):
    """Dilated and pointwise convolution beside an identity."""

    def __init__(self, width: int, kernel_size: int, dilation: int):
        super().__init__()
        self.dilated = CausalConv1d(width, width, kernel_size, dilation=dilation)
        self.pointwise = CausalConv1d(width, width, 1)

    def forward(self, x: Float[Tensor, "B C T"], state: State | None = None) -> Float[Tensor, "B C T"]:
        """Return as many steps as there were."""
        inner = self.dilated(nn.functional.elu(x), state)
        return x + self.pointwise(nn.functional.elu(inner), state)


class CausalLSTM(nn.Module):
    """LSTM beside an identity."""

    def __init__(self, width: int, num_layers: int):
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers, batch_first=True)

    def forward(self, x: Float[Tensor, "B C T"], state: State | None = None) -> Float[Tensor, "B C T"]:
        """Return as many steps as there were."""
        memory = None if state is None else state.get(self)
        made, memory = self.lstm(x.transpose(1, 2), memory)
        if state is not None:
            state[self] = memory
        return x + made.transpose(1, 2)


class ELU(nn.Module):
    """The activation, with the signature of the layers around it."""

    def forward(self, x: Float[Tensor, "B C T"], state: State | None = None) -> Float[Tensor, "B C T"]:
        """Return elu(x)."""
        del state
        return nn.functional.elu(x)


class SEANetEncoder(nn.Module):
    """Waveforms to frames."""

    def __init__(self, config: SEANetConfig):
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [CausalConv1d(1, width, config.kernel_size)]
        for stride in config.strides:
            layers += [ResidualUnit(width, config.residual_kernel_size, dilation) for dilation in config.dilations]
            layers += [ELU(), CausalStridedConv1d(width, 2 * width, stride=stride)]
            width *= 2
        layers += [CausalLSTM(width, config.num_lstm_layers)] if config.num_lstm_layers else []
        layers += [ELU(), CausalConv1d(width, config.latent_width, 3)]
        self.layers = nn.ModuleList(layers)
        _draw_weights(self.layers)
        _scale(self.layers[0], 1 / SPEECH_LEVEL)

    def forward(self, waveforms: Float[Tensor, "B 1 S"], state: State | None = None) -> Float[Tensor, "B D T"]:
        """Return T = S / samples_per_frame frames."""
        return _through(self.layers, waveforms, state)


class SEANetDecoder(nn.Module):
    """Frames to waveforms."""

    def __init__(self, config: SEANetConfig):
        super().__init__()
        width = config.width * 2 ** len(config.strides)
        layers: list[nn.Module] = [CausalConv1d(config.latent_width, width, config.kernel_size)]
        layers += [CausalLSTM(width, config.num_lstm_layers)] if config.num_lstm_layers else []
        for stride in reversed(config.strides):
            layers += [ELU(), CausalConvTranspose1d(width, width // 2, stride=stride)]
            width //= 2
            layers += [ResidualUnit(width, config.residual_kernel_size, dilation) for dilation in config.dilations]
        layers += [ELU(), CausalConv1d(width, 1, config.kernel_size)]
        self.layers = nn.ModuleList(layers)
        _draw_weights(self.layers)
        _scale(self.layers[-1], SPEECH_LEVEL)

    def forward(self, frames: Float[Tensor, "B D T"], state: State | None = None) -> Float[Tensor, "B 1 S"]:
        """Return S = T * samples_per_frame samples, not limited to [-1, 1]."""
        return _through(self.layers, frames, state)


@torch.no_grad()
def _draw_weights(layers: nn.ModuleList) -> None:
    """Draw weights that keep the size of what passes, without biases.

    PyTorch's own let a signal shrink to a third of its power in every layer and add biases that do not shrink: frames
    of different sounds would hardly differ, and a quantizer would give all of them one code, for good.
    """
    for layer in layers.modules():
        if isinstance(layer, (CausalConv1d, CausalStridedConv1d, CausalConvTranspose1d)):
            weight, bias = layer.conv.weight, layer.conv.bias
            assert bias is not None
            # Two steps of a transposed convolution meet in each of its outputs.
            inputs = 2 * weight.shape[0] if isinstance(layer, CausalConvTranspose1d) else weight[0].numel()
            weight.normal_(0, inputs**-0.5)
            bias.zero_()
    for layer in layers:
        if isinstance(layer, ResidualUnit):
            _scale(layer.pointwise, 0.5)


@torch.no_grad()
def _scale(layer: nn.Module, factor: float) -> None:
    assert isinstance(layer, CausalConv1d)
    layer.conv.weight.mul_(factor)


def _through(layers: nn.ModuleList, x: Tensor, state: State | None) -> Tensor:
    for layer in layers:
        x = layer(x, state)
    return x


def _with_past(layer: nn.Module, x: Tensor, context: int, state: State | None) -> Tensor:
    """Put the last `context` steps that `layer` has seen before `x`: silence, at the start of a stream."""
    past = None if state is None else state.get(layer)
    if past is None:
        past = x.new_zeros(*x.shape[:2], context)
    joined = torch.cat([past, x], dim=2)
    if state is not None:
        state[layer] = joined[:, :, joined.shape[2] - context :]
    return joined
