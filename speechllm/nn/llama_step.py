"""One more id for each row of a stock Llama: its forward, without what generality costs.

    hidden = trunk(input_ids=prompt, past_key_values=cache).last_hidden_state          # any length, the model's own way
    hidden = llama_step(trunk, ids, positions=positions, cache=cache, mask=None)       # one id, the same numbers

For a small model and a single id the products read each weight once, some 10 ms for 20M weights, and what stands
around them (masks made anew, look-ups of attention functions, nested calls, norms in six kernels) takes half as long
again. Here are the same products in the same order. Linear layers are called as modules, so that adapters count.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm


def llama_step(
    trunk: LlamaModel,
    ids: Int[Tensor, "B 1"],
    *,
    positions: Int[Tensor, "B 1"],
    cache: Cache,
    mask: Bool[Tensor, "B L"] | None,
) -> Float[Tensor, "B 1 D"]:
    """Return the trunk's output for one id a row, in evaluation mode.

    Args:
        trunk: with as many heads for keys as for queries, and plain rotary positions.
        ids: the next id of each row.
        positions: its place in the row.
        cache: keys and values of what was read before; gets those of `ids`.
        mask: False at padding, over everything in the cache and `ids`; None: there is none.
    """
    B, H = len(ids), trunk.config.num_attention_heads
    x = trunk.embed_tokens(ids)
    cos, sin = (part[:, None] for part in trunk.rotary_emb(x, position_ids=positions))
    half = sin.shape[-1] // 2
    # The two halves of a head are a pair: turning is x cos + (-second, first) sin, the sign being the sine's here.
    sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    seen = None if mask is None else mask[:, None, None]
    for index, layer in enumerate(cast(Sequence[LlamaDecoderLayer], trunk.layers)):
        attention, feed_forward = layer.self_attn, layer.mlp
        y = _normed(x, layer.input_layernorm)
        q, k, v = (project(y).view(B, H, 1, -1) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
        pair = torch.cat((q, k), dim=1)
        q, k = torch.addcmul(pair * cos, pair.roll(half, -1), sin).chunk(2, dim=1)
        keys, values = cache.update(k, v, index)
        gathered = nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=seen)
        x = x + attention.o_proj(gathered.reshape(B, 1, -1))
        y = _normed(x, layer.post_attention_layernorm)
        x = x + feed_forward.down_proj(nn.functional.silu(feed_forward.gate_proj(y)) * feed_forward.up_proj(y))
    return _normed(x, trunk.norm)


def _normed(x: Float[Tensor, "B 1 D"], norm: LlamaRMSNorm) -> Float[Tensor, "B 1 D"]:
    """Return the RMS norm in one kernel."""
    return nn.functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
