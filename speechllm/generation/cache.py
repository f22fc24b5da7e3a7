"""A key-value cache that is written in place: room is reserved ahead and doubled, never concatenated per step.

    cache = PreallocatedCache(num_layers=4, reserve=512)
    model(ids, past_key_values=cache, use_cache=True)       # any transformers model with full attention layers
    cache.select_rows(torch.tensor([0, 2]))                 # sequence 1 has ended

Layers return views of their buffers. Sliding-window layers are kept whole: the model's own mask hides what lies
outside the window, which costs memory but keeps every family on one code path.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin

ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


class PreallocatedLayer(CacheLayerMixin):
    """Keys and values of one layer, [B, H, capacity, D], of which the first `length` positions are filled."""

    is_sliding = False
    is_croppable = True

    def __init__(self, reserve: int):
        super().__init__()
        self.reserve = reserve
        self.length = 0
        self._buffers: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make the buffers on the first update, when shapes, dtype and device are known."""
        capacity = max(self.reserve, key_states.shape[-2])
        self._buffers = (_room(key_states, capacity), _room(value_states, capacity))
        self.is_initialized = True
        self._show()

    def update(
        self, key_states: Float[Tensor, "B H Q D"], value_states: Float[Tensor, "B H Q E"], *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T E"]]:
        """Write the new positions behind the filled ones and return views of everything filled."""
        if self._buffers is None:
            self.lazy_initialization(key_states, value_states)
        assert self._buffers is not None
        stop = self.length + key_states.shape[-2]
        if stop > self._buffers[0].shape[-2]:
            self._grow(stop)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer.narrow(2, self.length, stop - self.length).copy_(states)
        self.length = stop
        return self._show()

    def select_rows(self, rows: Int[Tensor, " N"]) -> None:
        """Keep (and order) the given sequences; a row may be asked for twice."""
        if self._buffers is None:
            return
        kept = []
        for buffer in self._buffers:
            # index_select copies before the rows are written over.
            fresh = buffer[: len(rows)] if len(rows) <= len(buffer) else _room(buffer, buffer.shape[-2], len(rows))
            fresh[:, :, : self.length] = buffer[:, :, : self.length].index_select(0, rows)
            kept.append(fresh)
        self._buffers = (kept[0], kept[1])
        self._show()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (keys that the next call will see, offset of the first)."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of filled positions."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: the layer grows."""
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the sequences (the name that transformers uses)."""
        self.select_rows(beam_idx)

    def _grow(self, needed: int) -> None:
        assert self._buffers is not None
        grown = []
        for buffer in self._buffers:
            room = _room(buffer, max(2 * buffer.shape[-2], needed))
            room[:, :, : self.length] = buffer[:, :, : self.length]
            grown.append(room)
        self._buffers = (grown[0], grown[1])

    def _show(self) -> tuple[Float[Tensor, "B H T D"], Float[Tensor, "B H T E"]]:
        assert self._buffers is not None
        keys, values = (buffer.narrow(2, 0, self.length) for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


class PreallocatedCache(Cache):
    """One `PreallocatedLayer` per layer of the model."""

    def __init__(self, num_layers: int, reserve: int = 64):
        super().__init__(layers=[PreallocatedLayer(reserve) for _ in range(num_layers)])


def new_cache(config: PreTrainedConfig, reserve: int) -> Cache:
    """Return a cache for the model: ours, or transformers' own where a layer is no attention (state spaces)."""
    config = config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    is_recurrent = any(hasattr(config, name) for name in ("mamba_d_state", "state_size", "ssm_cfg"))
    if kinds <= ATTENTION_LAYERS and not is_recurrent:
        return PreallocatedCache(config.num_hidden_layers, reserve)
    return DynamicCache(config=config)


def select_rows(cache: Cache, rows: Int[Tensor, " N"]) -> None:
    """Keep (and order) the given sequences of any cache."""
    if isinstance(cache, PreallocatedCache):
        for layer in cache.layers:
            assert isinstance(layer, PreallocatedLayer)
            layer.select_rows(rows)
    else:
        cache.reorder_cache(cast(torch.LongTensor, rows))


def _room(like: Tensor, capacity: int, num_rows: int | None = None) -> Tensor:
    B, H, _, D = like.shape
    return like.new_empty(num_rows or B, H, capacity, D)
