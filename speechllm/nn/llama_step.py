"""One more id for each row of a stock Llama: its forward, without what generality costs.

    hidden = trunk(input_ids=prompt, past_key_values=cache).last_hidden_state          # any length, the model's own way
    steps, memory = LlamaSteps(trunk), StepMemory(cache, reserve=500)                  # weights and past as they stand
    hidden = steps(ids, positions=positions, memory=memory, mask=None)                 # one id, the same numbers

For a small model and a single id, time goes into reading: each weight once, and the keys and values of all that was
read before. What stands around the products (masks made anew, look-ups of attention functions, nested calls) takes half
as long again. Here are the same products. Matrices that read the same vector are one. All of them, and the keys, lie in
memory as a vector times a matrix runs through them, [in, out], which on a CPU in float32 is a tenth to a third faster
than `nn.Linear`'s [out, in]. They are copies: they take the trunk's memory once more and know nothing of later steps of
training.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, LlamaModel
from transformers.cache_utils import CacheLayerMixin
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm


class StepMemory:
    """Keys [B*H, d, capacity] and values [B*H, capacity, d] of each layer, filled up to `length`, then step by step."""

    def __init__(self, cache: Cache, *, reserve: int):
        """Copy what a cache holds.

        Args:
            cache: filled by the model's own forward.
            reserve: steps to come; more are refused.
        """
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.length = cache.get_seq_length()
        for layer in cast(Sequence[CacheLayerMixin], cache.layers):
            assert layer.keys is not None, "the cache is filled"
            assert layer.values is not None, "the cache is filled"
            keys, values = layer.keys.flatten(0, 1), layer.values.flatten(0, 1)
            rows, _, width = keys.shape
            room = (
                keys.new_empty(rows, width, self.length + reserve),
                keys.new_empty(rows, self.length + reserve, width),
            )
            room[0][:, :, : self.length], room[1][:, : self.length] = keys.mT, values
            self.layers.append(room)

    def add(
        self, index: int, key: Float[Tensor, "BH d"], value: Float[Tensor, "BH d"]
    ) -> tuple[Float[Tensor, "BH d T"], Float[Tensor, "BH T d"]]:
        """Return keys and values of one layer, with those of the id that is being read."""
        keys, values = self.layers[index]
        keys.select(2, self.length).copy_(key)
        values.select(1, self.length).copy_(value)
        return keys.narrow(2, 0, self.length + 1), values.narrow(1, 0, self.length + 1)

    def select_rows(self, rows: Int[Tensor, " N"], num_heads: int) -> None:
        """Keep the given sequences."""
        kept = (rows[:, None] * num_heads + torch.arange(num_heads, device=rows.device)).flatten()
        self.layers = [(keys[kept], values[kept]) for keys, values in self.layers]


class _Layer(NamedTuple):
    """One layer's matrices; W is the width of all heads together, F that of the feed-forward."""

    attention_norm: LlamaRMSNorm
    queries_keys_values: Float[Tensor, "D 3*W"]
    "Queries are scaled."
    heads_out: Float[Tensor, "W D"]
    feed_forward_norm: LlamaRMSNorm
    gate_up: Float[Tensor, "D 2*F"]
    down: Float[Tensor, "F D"]


class LlamaSteps:
    """A trunk ready to read one id a row, in evaluation mode, again and again."""

    def __init__(self, trunk: LlamaModel):
        """Lay out the weights.

        Args:
            trunk: with as many heads for keys as for queries, plain rotary positions and no biases.
        """
        self.trunk, self.num_heads = trunk, trunk.config.num_attention_heads
        self.layers = []
        for layer in cast(Sequence[LlamaDecoderLayer], trunk.layers):
            attention, mlp = layer.self_attn, layer.mlp
            read = _matrix(attention.q_proj, attention.k_proj, attention.v_proj)
            read[:, : read.shape[1] // 3] *= attention.scaling
            self.layers.append(
                _Layer(
                    layer.input_layernorm,
                    read,
                    _matrix(attention.o_proj),
                    layer.post_attention_layernorm,
                    _matrix(mlp.gate_proj, mlp.up_proj),
                    _matrix(mlp.down_proj),
                )
            )

    def __call__(
        self,
        ids: Int[Tensor, "B 1"],
        *,
        positions: Int[Tensor, "B 1"],
        memory: StepMemory,
        mask: Bool[Tensor, "B L"] | None,
    ) -> Float[Tensor, "B 1 D"]:
        """Return the trunk's output for one id a row.

        Args:
            ids: the next id of each row.
            positions: its place in the row.
            memory: of what was read before; gets `ids`.
            mask: False at padding, over everything in the memory and `ids`; None: there is none.
        """
        B, H = len(ids), self.num_heads
        x = self.trunk.embed_tokens(ids[:, 0])
        cos, sin = self.trunk.rotary_emb(x, position_ids=positions)
        half = sin.shape[-1] // 2
        # The two halves of a head are a pair: turning is x cos + (-second, first) sin, the sign being the sine's here.
        sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        unseen = None if mask is None else ~mask.repeat_interleave(H, dim=0)[:, None]
        for index, layer in enumerate(self.layers):
            read = (_normed(x, layer.attention_norm) @ layer.queries_keys_values).view(B, 3 * H, -1)
            pair, value = read[:, : 2 * H], read[:, 2 * H :]
            query, key = torch.addcmul(pair * cos, pair.roll(half, -1), sin).chunk(2, dim=1)
            keys, values = memory.add(index, key.reshape(B * H, -1), value.reshape(B * H, -1))
            scores = torch.bmm(query.reshape(B * H, 1, -1), keys)
            if unseen is not None:
                scores = scores.masked_fill(unseen, -torch.inf)
            gathered = torch.bmm(scores.softmax(-1), values)
            x = torch.addmm(x, gathered.view(B, -1), layer.heads_out)
            gate, up = (_normed(x, layer.feed_forward_norm) @ layer.gate_up).chunk(2, dim=-1)
            x = torch.addmm(x, nn.functional.silu(gate) * up, layer.down)
        memory.length += 1
        return _normed(x, self.trunk.norm)[:, None]


def _matrix(*projections: nn.Module) -> Float[Tensor, "D E"]:
    """Return what takes a vector through all of them at once; anything linear counts, an adapter as well."""
    return torch.cat([_transposed(projection) for projection in projections], dim=1)


def _transposed(projection: nn.Module) -> Float[Tensor, "D E"]:
    weight = cast(Tensor, projection.weight)
    if type(projection) is nn.Linear:
        return weight.detach().t()
    with torch.no_grad():
        return projection(torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device))


def _normed(x: Float[Tensor, "B D"], norm: LlamaRMSNorm) -> Float[Tensor, "B D"]:
    """Return the RMS norm in one call."""
    return nn.functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
