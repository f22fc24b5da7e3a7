"""Faster kernels, where they are: what can be asked for, and one clear line where it cannot be had.

    model:    {attn_implementation: flash_attention_2}     # rows_per_batch: 1; or flex_attention, with any rows
    training: {bf16: true, gradient_checkpointing: true, liger: true}

    kernel                 needs                                         packed rows
    sdpa, eager            nothing                                       a mask of rows x length^2, any rows_per_batch
    flash_attention_2, 3   the package, CUDA, bfloat16                   positions of one row: rows_per_batch: 1
    flex_attention         CUDA (on a CPU it has no backward pass)       a mask of blocks, any rows_per_batch
    liger                  the package, a GPU for Triton                 does not matter

Liger's own losses stay off: ours has logits at targets alone, which is less work than its fused one over all tokens.
"""

import importlib.util

import torch
from torch import nn

from speechllm.errors import ConfigError, MissingDependencyError


def check_kernels(model: nn.Module, *, liger: bool, rows_per_batch: int, device: torch.device) -> None:
    """Refuse kernels that are not there or would train another model than asked for.

    Raises:
        ConfigError: a kernel does not fit the device or the batch.
        MissingDependencyError: its package is not installed.
    """
    attention = str(getattr(getattr(model, "config", None), "_attn_implementation", None))
    # transformers finds the borders of packed examples for flash attention in single rows only.
    if "flash" in attention and rows_per_batch > 1:
        raise ConfigError(
            f"attn_implementation = {attention!r} sees the borders of packed examples only with one row in a "
            f"batch, rows_per_batch is {rows_per_batch}; set it to 1 (with a longer max_tokens), or use sdpa"
        )
    if attention == "flex_attention" and device.type == "cpu":
        raise ConfigError("attn_implementation = 'flex_attention' has no backward pass on a CPU; train with sdpa there")
    if not liger:
        return
    if importlib.util.find_spec("liger_kernel") is None:
        raise MissingDependencyError("liger-kernel", "kernels", "training.liger")
    if device.type == "cpu":
        raise ConfigError("training.liger needs a GPU: its kernels are Triton's; leave it out on a CPU")
