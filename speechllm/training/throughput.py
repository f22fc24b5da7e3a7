"""How fast a training is: real tokens a second, and which share of the accelerator's peak that makes (MFU).

    work = model_work(model)                          # operations for a token, a target, a pair of tokens
    flops = work.flops(tokens=16_000, targets=6_000, pairs=4_000_000)
    mfu = flops / seconds / (peak_flops(torch.device("cuda"), None) * num_gpus)

    forward     2 operations for each weight of a matrix that a token meets, 4 Q for each pair of tokens and layer
    backward    as many for the inputs again, and as many for the weights that are trained

Together 6 N + 12 L Q T for a model that is trained as a whole: arXiv:2204.02311, appendix B. Three things differ from
that count, all downwards: padding is no work, the output matrix works only at targets (as it does here), and a token
attends to its own example alone, so T is the length of the example and not that of the row. What gradient checkpointing
computes twice is not counted twice. The peak is that of dense products in bfloat16, whatever type is trained in.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from speechllm.training.memory import layer_sizes

PEAK_TFLOPS = {
    "B200": 2250.0, "H200": 989.0, "GH200": 989.0, "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H800": 989.0,
    "A100": 312.0, "A800": 312.0, "L40S": 362.0, "L40": 181.0, "L4": 121.0, "A40": 149.7, "A10": 125.0,
    "RTX 4090": 165.2, "RTX 3090": 71.0,
}  # fmt: skip
"Dense bfloat16 TFLOP/s by part of the device's name (NVIDIA's data sheets, without sparsity); the first that fits."


@dataclass(frozen=True)
class ModelWork:
    """Operations of a training step, forward and backward."""

    per_token: float
    per_target: float
    "Of the output matrix."
    per_pair: float
    "For each ordered pair of tokens of one example."

    def flops(self, *, tokens: float, targets: float, pairs: float) -> float:
        """Return the operations for so many real tokens, targets, and pairs (the sum of squared example lengths)."""
        return self.per_token * tokens + self.per_target * targets + self.per_pair * pairs


def model_work(model: nn.Module) -> ModelWork:
    """Count the work of a causal LM of any family, adapters and frozen weights included."""
    lm = cast(PreTrainedModel, model)
    head = cast(nn.Module, lm.get_output_embeddings())
    heads = {id(module) for module in head.modules()}
    decoder = cast(nn.Module, lm.get_decoder())  # without the eyes of a family that also sees
    matrices = {id(m): m for part in (decoder, head) for m in part.modules() if isinstance(m, (nn.Linear, Conv1D))}
    per_token = sum(_matrix_work(module) for key, module in matrices.items() if key not in heads)
    per_target = sum(_matrix_work(module) for key, module in matrices.items() if key in heads)
    config: Any = lm.config.get_text_config(decoder=True)
    sizes = layer_sizes(config)
    share = (getattr(config, "num_experts_per_tok", None) or 1) / _num_experts(config)
    experts = [p for p in decoder.parameters() if p.ndim == 3]  # of all experts of a layer in one tensor
    per_token += share * sum(_work(p.numel(), p.requires_grad) for p in experts)
    return ModelWork(per_token, per_target, 12.0 * sizes["layers"] * sizes["query"])


def _matrix_work(layer: nn.Module) -> float:
    weight = cast(Any, layer).weight
    # Four-bit weights are packed: the layer knows its true size.
    number = layer.in_features * layer.out_features if isinstance(layer, nn.Linear) else weight.numel()
    return _work(number, weight.requires_grad)


def _work(number: int, is_trained: bool) -> float:
    return number * (6.0 if is_trained else 4.0)


def _num_experts(config: Any) -> int:
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if getattr(config, name, None):
            return getattr(config, name)
    return 1


def peak_flops(device: torch.device, given_tflops: float | None) -> float | None:
    """Return the peak of one device in FLOP/s: the one given, or that of a known GPU; None: not known, so no MFU."""
    if given_tflops is not None:
        return given_tflops * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((tflops * 1e12 for part, tflops in PEAK_TFLOPS.items() if part in name), None)
