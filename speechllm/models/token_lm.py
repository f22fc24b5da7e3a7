"""A small decoder-only LM over one stage's layout: it predicts the target, one level's codes at a time.

    lm = TokenLM(StageLMConfig(window_seconds=10), stage_layout("coarse", sizes))
    lm(ids, starts, lengths)                       # [B, T] -> log probability of each target id, for the loss
    lm.logits(lm.hidden(ids, ...)[:, -1], phase)   # what may follow: this level's codes (then EOS), nothing else

Each place in a frame has a head of its own over the ids that are legal there. So an illegal id cannot be drawn, and
a step multiplies with the rows of one level where one head for the whole vocabulary has K times as many.

The trunk is a stock Llama, drawn at random: rotary positions, RMSNorm, gated feed-forward. AudioLM (arXiv:2209.03143,
section 4) has T5's learned relative bias instead. That is a look-up for every pair of positions, added to the scores
in each layer and in each step of decoding, and it shuts out the fused attention kernels; rotary positions are relative
without it. The paper's dropout of 0.1 is on attention weights alone here, the only place where a Llama has any.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, LlamaConfig, LlamaModel

from speechllm.errors import ConfigError
from speechllm.models.stage_layouts import StageLayout
from speechllm.nn.llama_step import LlamaSteps


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of the trunk. AudioLM's own: width 1024, 12 layers, 16 heads, feed_forward 4096 (section 4)."""

    width: int = 256
    "Width D of a position."
    num_layers: int = 4
    "Number of layers."
    num_heads: int = 4
    "Attention heads; they divide the width into even parts."
    feed_forward: int = 1024
    "Inner width of the gated feed-forward."
    dropout: float = 0.0
    "Share of attention weights dropped in training."

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads):
            raise ConfigError(f"width = {self.width}, expected a multiple of 2 * num_heads = {2 * self.num_heads}")


@dataclass(frozen=True, kw_only=True)
class StageLMConfig:
    """One stage: its trunk, and what its rows are."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    "Sizes of the Llama."
    window_seconds: float
    "Longest stretch of speech that a row holds, in training and in use; AudioLM's: 30 semantic, 10 coarse, 3 fine."
    dedup: bool = False
    """Consecutive repeats of a semantic code are one id, as in AudioLM. Their durations are lost: the coarse stage then
    draws them. False where lengths are to be kept, as with SoundStorm or under another LM's codes."""
    tokens_per_second: float | None = None
    "Semantic ids that a second of speech takes without repeats; training measures it."
    prefix_stride: float | None = None
    """Positions from one id of the prefix to the next, the target's first id being level with the prefix's first: with
    as many as there are target ids to a prefix id, both run along one axis of time, and a small LM need not learn
    which code a frame speaks. Not the paper's. None: positions run on through prefix and target. Where repeats are
    removed there is no such number."""
    temperature: float | None = None
    "Of the draws, unless another is asked for; None: the paper's for this stage."

    def __post_init__(self) -> None:
        if self.window_seconds <= 0:
            raise ConfigError(f"window_seconds = {self.window_seconds}, expected above 0")
        if self.prefix_stride is not None and (self.dedup or self.prefix_stride <= 0):
            raise ConfigError(
                f"prefix_stride = {self.prefix_stride} with dedup = {self.dedup}; expected above 0, with dedup: false"
            )
        if self.temperature is not None and self.temperature < 0:
            raise ConfigError(f"temperature = {self.temperature}, expected 0 (greedy) or more")


class TargetScores(NamedTuple):
    """What the model says of the targets of a batch; M is the longest target, EOS included."""

    log_probs: Float[Tensor, "B M"]
    "Natural logarithm of each target id's probability among the ids that are legal there; 0 beyond a row's end."
    is_best: Bool[Tensor, "B M"]
    "Where the likeliest id is the target."
    is_target: Bool[Tensor, "B M"]
    "False beyond a row's end."


class TokenLM(nn.Module):
    """The LM of one stage. Rows are padded on the right in training, on the left in use; neither changes a row."""

    def __init__(self, config: StageLMConfig, layout: StageLayout):
        super().__init__()
        self.config, self.layout = config, layout
        sizes = config.decoder
        self.trunk = LlamaModel(
            LlamaConfig(
                vocab_size=layout.vocabulary.size,
                hidden_size=sizes.width,
                intermediate_size=sizes.feed_forward,
                num_hidden_layers=sizes.num_layers,
                num_attention_heads=sizes.num_heads,
                attention_dropout=sizes.dropout,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        choices = [len(layout.legal_ids(k)) for k in range(layout.num_levels)]
        # EOS is the last column of the head where it is legal, and of no other.
        self.eos_column = None if layout.eos_id is None else choices[0] - 1
        self.heads = nn.ModuleList(nn.Linear(sizes.width, count, bias=False) for count in choices)
        self._block_starts = [layout.vocabulary[name].start for name in layout.target_blocks]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.trunk.embed_tokens.weight.device

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        starts: Int[Tensor, " B"],
        lengths: Int[Tensor, " B"],
        read: Int[Tensor, "B T"] | None = None,
    ) -> TargetScores:
        """Score every target id; the prefix is read and not predicted.

        Args:
            ids: rows padded on the right, whatever with.
            starts: index of each row's first target id, the one after BOS.
            lengths: ids of each row.
            read: what the model reads where that is not `ids`: the same with noise.
        """
        # Attention looks back only, so that padding on the right needs no mask. Positions that jump are taken for
        # packed rows by transformers, unless a mask says that all is one row.
        positions = self.positions(starts, ids.shape[1])
        mask = None if positions is None else torch.ones_like(ids).bool()
        hidden = self.hidden(ids if read is None else read, positions=positions, mask=mask)
        M = int((lengths - starts).max())
        places = starts[:, None] + torch.arange(M, device=ids.device)
        is_target = places < lengths[:, None]
        places = places.clamp(max=ids.shape[1] - 1)
        wanted = ids.gather(1, places)
        before = (places - 1)[:, :, None].expand(-1, -1, hidden.shape[2])
        seen = hidden.gather(1, before)
        log_probs = hidden.new_zeros(wanted.shape, dtype=torch.float32)
        is_best = torch.zeros_like(is_target)
        for phase in range(self.layout.num_levels):
            turn = slice(phase, None, self.layout.num_levels)
            if phase >= M:
                break
            logits = self.logits(seen[:, turn], phase)
            index = self._index(wanted[:, turn], phase).masked_fill(~is_target[:, turn], 0)
            log_probs[:, turn] = -nn.functional.cross_entropy(logits.transpose(1, 2), index, reduction="none")
            is_best[:, turn] = logits.argmax(-1) == index
        return TargetScores(log_probs.masked_fill(~is_target, 0), is_best & is_target, is_target)

    def positions(
        self, starts: Int[Tensor, " B"], T: int, *, firsts: Int[Tensor, " B"] | None = None
    ) -> Int[Tensor, "B T"] | None:
        """Return the place of each id on the axis of time; None where positions run on (`StageLMConfig.prefix_stride`).

        BOS is at 0, the target's ids follow; prefix ids stand level with the target ids that they are about.

        Args:
            starts: index of each row's first target id.
            T: ids of the padded rows.
            firsts: index of each row's first id, where padding is on the left.
        """
        if self.config.prefix_stride is None:
            return None
        places = torch.arange(T, device=starts.device)[None]
        behind = places - starts[:, None] + 1
        since = places if firsts is None else places - firsts[:, None]
        level = 1 + (since * self.config.prefix_stride).floor().long()
        return torch.where(behind >= 0, behind, level).clamp(min=0)

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B L"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Return the trunk's output.

        Args:
            ids: the next ids.
            mask: False at padding, over everything in the cache and `ids`; None: there is none.
            positions: place of each id in its row; None: from 0, or from the cache's length.
            cache: keys and values of what was read before; gets those of `ids`.
        """
        inputs: dict[str, Any] = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        return self.trunk(input_ids=ids, use_cache=cache is not None, **inputs).last_hidden_state

    def steps(self) -> LlamaSteps:
        """Return the trunk as it is now, ready for single ids: `hidden` of a filled cache, in evaluation mode."""
        return LlamaSteps(self.trunk)

    def logits(self, hidden: Float[Tensor, "*B D"], phase: int) -> Float[Tensor, "*B C"]:
        """Return float32 logits of the ids that are legal at place `phase` of a frame, in `legal_ids`' order."""
        return self.heads[phase](hidden).float()

    def ids_of(self, index: Int[Tensor, " B"], phase: int) -> Int[Tensor, " B"]:
        """Return the ids that the heads' columns stand for."""
        ids = index + self._block_starts[phase]
        if phase or self.eos_column is None or self.layout.eos_id is None:
            return ids
        return torch.where(index == self.eos_column, self.layout.eos_id, ids)

    def _index(self, ids: Int[Tensor, "B m"], phase: int) -> Int[Tensor, "B m"]:
        """Return the heads' columns of ids: the inverse of `ids_of`."""
        index = ids - self._block_starts[phase]
        if phase or self.eos_column is None:
            return index
        return torch.where(ids == self.layout.eos_id, self.eos_column, index)
