"""Dropout where the Transformer of 2017 has it, for families that were published without any.

    with residual_dropout(model, 0.1):
        ...                               # train: passes in evaluation mode stay as they are

It falls on the embeddings and on what each attention and feed-forward layer adds to the stream (arXiv:1706.03762,
section 5.4), found by the class names that all families of transformers follow: `*Attention`, `*MLP`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from speechllm.errors import ConfigError

SUBLAYERS = ("Attention", "MLP", "MoeBlock", "MoE")
"How the class names of the layers end whose outputs are added to the stream."


@contextlib.contextmanager
def residual_dropout(model: nn.Module, rate: float) -> Iterator[None]:
    """Drop outputs of embeddings and sublayers at `rate` while the model is in training mode.

    What a family's own config drops comes on top.

    Raises:
        ConfigError: no such layer is found.
    """
    handles = []
    if rate > 0:
        embeddings = cast(PreTrainedModel, model).get_input_embeddings()
        handles = [layer.register_forward_hook(_dropper(rate)) for layer in [embeddings, *_sublayers(model)]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sublayers(model: nn.Module) -> list[nn.Module]:
    """Return the outermost modules that are attention or feed-forward layers."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and type(module).__name__.endswith(SUBLAYERS):
            found[name] = module
    if not found:
        raise ConfigError(
            f"dropout: the {type(model).__name__} has no module whose class ends in {' or '.join(SUBLAYERS[:2])}; "
            "set the family's own dropout in its config instead"
        )
    return list(found.values())


def _dropper(rate: float) -> Any:
    def drop(module: nn.Module, _: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (nn.functional.dropout(output[0], rate, module.training), *output[1:])
        return nn.functional.dropout(output, rate, module.training)

    return drop
