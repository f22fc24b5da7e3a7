"""Conformer trunk: sees the whole sequence both ways, keeps away from padding.

    trunk = Conformer(ConformerConfig(width=256, num_layers=4, num_heads=4))
    trunk(x, mask)                       # x [B, T, D], mask [B, T] True where there is a frame

A layer is half a feed-forward, attention, convolution, half a feed-forward (arXiv:2005.08100, section
2), with rotary positions and a depthwise convolution that looks both ways (SoundStorm,
arXiv:2305.09636, section 3.2). Deviation: LayerNorm instead of BatchNorm inside the convolution
module, so that a frame does not depend on its batch.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from speechllm.errors import ConfigError
from speechllm.nn.rotary import apply_rotary, rotary_angles

SHORT = 512
"""Up to this many frames a CPU that trains in bfloat16 writes attention out: forward and backward took 14 ms against
34 ms of torch's own kernel (B 20, H 4, T 120, one thread). In float32, and wherever no gradient is needed, the kernel
is the faster one: 7 ms against 20 ms without gradient in float32, 3 ms against 6 ms in bfloat16 (B 1, H 8, T 500)."""


@dataclass(frozen=True, kw_only=True)
class ConformerConfig:
    """Sizes of the trunk. SoundStorm's own: width 1024, 12 layers, 16 heads, feed_forward_factor 4, kernel 5."""

    width: int = 256
    "Width D of a frame."
    num_layers: int = 4
    "Number of layers."
    num_heads: int = 4
    "Attention heads; they divide the width into even parts."
    feed_forward_factor: int = 2
    "Inner width of a feed-forward, in widths."
    kernel_size: int = 5
    "Frames that the depthwise convolution sees; odd."
    dropout: float = 0.0
    "Share of activations dropped in training."

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads):
            raise ConfigError(f"width {self.width} does not split into {self.num_heads} heads of an even width")
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size is {self.kernel_size}, expected an odd number")


class Conformer(nn.Module):
    """A stack of Conformer layers and a final norm."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return frames; those where `mask` is False influence no other and mean nothing themselves."""
        T, D = x.shape[1:]
        rotary = rotary_angles(T, D // self.config.num_heads, device=x.device)
        for layer in self.layers:
            x = layer(x, mask, rotary)
        return self.norm(x)


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, each on the residual stream; then a norm."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.first = _feed_forward(config)
        self.attention = SelfAttention(config)
        self.convolution = ConvolutionModule(config)
        self.second = _feed_forward(config)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"],
        rotary: tuple[Float[Tensor, "T R"], Float[Tensor, "T R"]],
    ) -> Float[Tensor, "B T D"]:
        """Return the layer's output."""
        x = torch.add(x, self.dropout(self.first(x)), alpha=0.5)
        x = x + self.dropout(self.attention(x, mask, rotary))
        x = x + self.dropout(self.convolution(x, mask))
        x = torch.add(x, self.dropout(self.second(x)), alpha=0.5)
        return self.norm(x)


class SelfAttention(nn.Module):
    """Multi-head attention over all frames that are no padding."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"],
        rotary: tuple[Float[Tensor, "T R"], Float[Tensor, "T R"]],
    ) -> Float[Tensor, "B T D"]:
        """Return what each frame gathers."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b t (three h d) -> three b h t d", three=3, h=self.num_heads)
        q, k = (apply_rotary(part, *rotary) for part in (q, k))
        if is_better_written_out(q):
            gathered = attention_written_out(q, k, v, mask)
        else:
            gathered = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.out(rearrange(gathered, "b h t d -> b t (h d)"))


def is_better_written_out(q: Float[Tensor, "B H T D"]) -> bool:
    """Return whether torch's own kernel is the slower one; see `SHORT`."""
    is_training = torch.is_grad_enabled() and q.requires_grad
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and is_training and q.shape[2] <= SHORT


def attention_written_out(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B H T D"]:
    """Return what `scaled_dot_product_attention` returns."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    # In place: no gradient needs the scores, and another large block costs as much as the arithmetic.
    return scores.masked_fill_(~mask[:, None, None, :], -torch.inf).softmax(-1).to(v.dtype) @ v


class ConvolutionModule(nn.Module):
    """Gate, depthwise convolution over time (not causal), norm, SiLU."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.gate = nn.Linear(config.width, 2 * config.width)
        self.depthwise = nn.Conv1d(
            config.width, config.width, config.kernel_size, padding=config.kernel_size // 2, groups=config.width
        )
        self.inner_norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return the convolved frames; padding counts as zeros, like what lies beyond the ends."""
        x = nn.functional.glu(self.gate(self.norm(x)), dim=-1) * mask[:, :, None]
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return self.out(nn.functional.silu(self.inner_norm(x)))


def _feed_forward(config: ConformerConfig) -> nn.Sequential:
    inner = config.feed_forward_factor * config.width
    return nn.Sequential(
        nn.LayerNorm(config.width),
        nn.Linear(config.width, inner),
        nn.SiLU(),
        nn.Dropout(config.dropout),
        nn.Linear(inner, config.width),
    )


def length_mask(lengths: Tensor, T: int) -> Bool[Tensor, "B T"]:
    """Return True at the first lengths[b] of T positions."""
    return torch.arange(T, device=lengths.device)[None] < lengths[:, None]
