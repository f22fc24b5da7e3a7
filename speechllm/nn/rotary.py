"""Rotary positions: queries and keys turned by an angle that grows with their place in time.

    cos, sin = rotary_angles(T, head_width)
    q = apply_rotary(q, cos, sin)        # [B, H, T, D]; scores then depend on distances alone

RoFormer (arXiv:2104.09864, section 3.4.2), the two halves of a head paired as in GPT-NeoX.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def rotary_angles(
    T: int, head_width: int, *, base: float = 10_000.0, device: torch.device | None = None
) -> tuple[Float[Tensor, "T R"], Float[Tensor, "T R"]]:
    """Return cosines and sines for positions 0 .. T - 1, R = head_width / 2 frequencies."""
    frequencies = base ** (-torch.arange(0, head_width, 2, device=device) / head_width)
    angles = torch.arange(T, device=device)[:, None] * frequencies
    return angles.cos(), angles.sin()


def apply_rotary(
    x: Float[Tensor, "B H T D"], cos: Float[Tensor, "T R"], sin: Float[Tensor, "T R"]
) -> Float[Tensor, "B H T D"]:
    """Turn each pair (x[i], x[i + D / 2]) by its position's angle; lengths are kept."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)
