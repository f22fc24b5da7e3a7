"""How much memory a training will take, before it takes it.

    estimate = estimate_memory(model, optimizer_config, max_tokens=512, rows=8, bf16=True, checkpointing=False)
    print(estimate)       # 2.41 GiB = weights 0.50 + gradients 0.50 + optimizer 0.62 + activations 0.79

    weights       bytes of all parameters; under autocast also the bfloat16 copies of the matrices
    gradients     bytes of what is trained
    optimizer     AdamW two numbers a parameter, Muon one, 8-bit AdamW two bytes and their scales, Adafactor the
                  means of squares of rows and columns
    activations   tokens x layers x (26 D + 4 Q + 4 K + 8 F) bytes under autocast, x 4 (6 D + 2 Q + 2 K + 4 F) in
                  float32: D is the width, Q and K those of all query and all key heads, F the feed-forward's. With
                  checkpointing tokens x layers x 4 D, and one layer whole. Except with flash and flex attention each
                  layer keeps the mask of packed rows twice: tokens x length of a row. Logits at the targets: thrice.

The numbers of activations are what autograd keeps for a block of two RMS norms, rotary attention without a stored score
matrix and a gated feed-forward layer: counted tensor by tensor, as arXiv:2205.05198, section 4.1, does for GPT. What a
kernel needs while it runs is not in it, nor what other programs hold: expect a tenth more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from speechllm.models.adapters import embedding_matrix
from speechllm.training.optim import OptimizerConfig, split_parameters

SCALES_PER_BLOCK = 4 / 256
"Bytes of scale that an 8-bit number costs beside its own: bitsandbytes has a float32 for 256."
SMALL = 4096
"Tensors with fewer numbers stay in 32 bits in 8-bit optimizers."
WITHOUT_MASK = ("flash", "flex", "kernels-community")
"How the names of attention begin that know the borders of packed examples without a matrix."
GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.activations

    @property
    def fixed(self) -> int:
        """What does not depend on the batch, and is known exactly."""
        return self.weights + self.gradients + self.optimizer

    def __str__(self) -> str:
        """Return the sum and its parts in GiB."""
        parts = " + ".join(f"{name} {size / GIB:.2f}" for name, size in vars(self).items())
        return f"{self.total / GIB:.2f} GiB = {parts}"


def estimate_memory(
    model: nn.Module,
    optimizer: OptimizerConfig,
    *,
    max_tokens: int,
    rows: int,
    bf16: bool,
    checkpointing: bool,
    target_share: float = 1.0,
) -> MemoryEstimate:
    """Return what one process needs for a step of `rows` rows of `max_tokens` (with weights that are not sharded).

    `target_share` is the share of tokens that have loss: only they have logits.
    """
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    copies = 2 * sum(p.numel() for p in parameters if p.ndim == 2 and p.dtype == torch.float32) if bf16 else 0
    return MemoryEstimate(
        weights=sum(map(_bytes, parameters)) + copies,
        gradients=sum(map(_bytes, trained)),
        optimizer=optimizer_bytes(model, optimizer),
        activations=round(rows * max_tokens * _per_token(model, max_tokens, bf16, checkpointing, target_share)),
    )


def optimizer_bytes(model: nn.Module, config: OptimizerConfig) -> int:
    """Return the bytes of the state that `build_optimizer(model, config)` will hold after a step."""
    total = 0.0
    for name, group in split_parameters(model).items():
        for parameter in group:
            hidden = name == "hidden"
            if config.kind == "adafactor":
                total += _factored(parameter) * parameter.element_size()
            elif config.kind == "muon" and hidden:
                total += _bytes(parameter)
            elif config.kind == "adamw8bit" and hidden and parameter.numel() >= SMALL:
                total += 2 * parameter.numel() * (1 + SCALES_PER_BLOCK)
            else:
                total += 2 * _bytes(parameter)
    return round(total)


def _factored(parameter: nn.Parameter) -> int:
    if parameter.ndim < 2:
        return parameter.numel()
    *batch, rows, columns = parameter.shape
    return (rows + columns) * int(torch.tensor(batch).prod())


def _bytes(parameter: nn.Parameter) -> int:
    return parameter.numel() * parameter.element_size()


def _per_token(model: nn.Module, row: int, bf16: bool, checkpointing: bool, target_share: float) -> float:
    """Return the bytes of activations for a token of a row."""
    config = cast(PreTrainedModel, model).config
    sizes = layer_sizes(config)
    width, query, key, inner = sizes["width"], sizes["query"], sizes["key"], sizes["inner"]
    in_float32 = 4 * (6 * width + 2 * query + 2 * key + 4 * inner)
    layer = 26 * width + 4 * query + 4 * key + 8 * inner if bf16 else in_float32
    if not str(getattr(config, "_attn_implementation", "")).startswith(WITHOUT_MASK):
        layer += (4 if bf16 else 8) * row
    kept = sizes["layers"] * 4 * width + layer if checkpointing else sizes["layers"] * layer
    logits = 3 * 4 * target_share * len(embedding_matrix(cast(Any, model).get_input_embeddings()))
    return kept + logits


def layer_sizes(config: Any) -> Mapping[str, int]:
    """Return the sizes of a decoder's blocks from the config of any family."""
    config = config.get_text_config(decoder=True)
    width, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or width // heads
    inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
    experts = getattr(config, "num_experts_per_tok", None) or 1
    return {
        "layers": config.num_hidden_layers,
        "width": width,
        "query": heads * head,
        "key": (getattr(config, "num_key_value_heads", None) or heads) * head,
        "inner": experts * (inner or getattr(config, "n_inner", None) or 4 * width),
    }


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a training may still take on a GPU, this process's own included; None: not known."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)
