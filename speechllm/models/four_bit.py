"""A frozen trunk in four bits, for adapters on a model that would not fit otherwise.

    quantize_trunk(model, "nf4")             # in place: linear layers but the head; embeddings and norms stay
    linear = dequantized_linear(layer)       # a stock layer with the very numbers that adapters were trained on

The values are those of bitsandbytes: blocks of 64 with a scale each, the scales in 8 bits (double quantization).
Adapters are folded into these dequantized weights: rounding the sum to four bits again would change the model.
(QLoRA: arXiv:2305.14314, section 3.)
"""

import importlib
from typing import Any, Literal, TypeAlias, cast

from torch import nn
from transformers import PreTrainedModel

from speechllm.errors import ConfigError

FourBitKind: TypeAlias = Literal["nf4", "fp4"]
PURPOSE = "a base model in four bits"
BLOCK = 64
"Weights that share a scale. (bitsandbytes 0.50.2 dequantizes on a CPU as if every row began a new block.)"


def quantize_trunk(model: PreTrainedModel, kind: FourBitKind = "nf4") -> None:
    """Freeze the model and put the weights of its linear layers, but for the output head, into four bits, in place.

    Raises:
        ConfigError: bitsandbytes is not installed or cannot do this on the model's device, or there is no such layer.
    """
    library = load_bitsandbytes(PURPOSE)
    head = model.get_output_embeddings()
    layers = {name: layer for name, layer in model.named_modules() if type(layer) is nn.Linear and layer is not head}
    if not layers:
        raise ConfigError(f"{type(model).__name__} has no nn.Linear below its head; leave lora.four_bit out")
    for name, layer in layers.items():
        if layer.weight.device.type == "cpu" and layer.in_features % BLOCK:
            raise ConfigError(
                f"{name} has width {layer.in_features}: on a CPU bitsandbytes misreads weights in four bits unless "
                f"their width is a multiple of {BLOCK}; train on CUDA, or leave lora.four_bit out"
            )
        replace_module(model, name, _quantized(library, layer, kind))
    model.requires_grad_(False)
    cast(Any, model).is_loaded_in_4bit = True  # peft asks for it before it looks at the layers


def is_four_bit(layer: object) -> bool:
    """Return whether this is a linear layer that keeps its weight in four bits."""
    return isinstance(layer, nn.Linear) and getattr(layer.weight, "quant_state", None) is not None


def dequantized_linear(layer: nn.Module) -> nn.Linear:
    """Return an ordinary layer with the numbers that a layer in four bits stands for."""
    library = load_bitsandbytes(PURPOSE)
    weight, bias = cast(Any, layer.weight), cast(Any, getattr(layer, "bias", None))
    values = library.functional.dequantize_4bit(weight.data, weight.quant_state).to(weight.quant_state.dtype)
    linear = nn.Linear(values.shape[1], values.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(values, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.data.to(values.dtype), requires_grad=False)
    return linear


def load_bitsandbytes(purpose: str) -> Any:
    """Return the package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(f"{purpose} needs the package bitsandbytes; pip install 'speechllm[qlora]'") from error


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of the one called `name`."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _quantized(library: Any, layer: nn.Linear, kind: FourBitKind) -> nn.Module:
    device = layer.weight.device
    small = library.nn.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=layer.weight.dtype,
        compress_statistics=True, quant_type=kind, device="meta",
    )  # fmt: skip
    small.weight = library.nn.Params4bit(
        layer.weight.detach().clone(), requires_grad=False, compress_statistics=True, quant_type=kind, module=small
    )
    if layer.bias is not None:
        small.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    # On CPUs with bfloat16 products bitsandbytes repacks the weights in the first pass without gradients,
    # and adapters trained after that get none, with no more than a warning.
    small.support_avx512bf16_for_cpu = False
    try:
        return small.to(device)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise ConfigError(
            f"bitsandbytes {library.__version__} cannot put weights into four bits on {device.type} "
            f"({str(error).splitlines()[0]}); train on CUDA, or leave lora.four_bit out"
        ) from error
