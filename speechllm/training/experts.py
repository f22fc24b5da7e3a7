"""Mixtures of experts: the loss that keeps all experts in use, beside that of the ids.

    weight = balance_weight(model, None)           # 0.02 for a Mixtral whose config says output_router_logits: true
    outputs = model(**batch, **balance_options(model, weight))
    loss = loss_of_ids + weight * outputs.aux_loss

The router sends each token to a few experts; without a pull the other way it sends more and more to the same. The loss
is transformers' own, of the Switch Transformer (arXiv:2101.03961, section 2.2): a mean over the tokens of a batch,
padding included. Families that balance by other means (a bias that the router learns) have none.
"""

from typing import Any, cast

from torch import nn

from speechllm.errors import ConfigError


def own_weight(model: nn.Module) -> float | None:
    """Return the weight that the model's config names; None if the family has no such loss."""
    config: Any = cast(Any, model).config.get_text_config(decoder=True)
    known = hasattr(config, "output_router_logits") and hasattr(config, "router_aux_loss_coef")
    return float(config.router_aux_loss_coef) if known else None


def balance_weight(model: nn.Module, given: float | None) -> float:
    """Return the weight of the balancing loss: the one given, or, as transformers has it, what the config says.

    Raises:
        ConfigError: one is given for a model that has no such loss.
    """
    own = own_weight(model)
    if given and own is None:
        raise ConfigError(
            f"training.router_loss = {given}, but {type(model).__name__} has no loss that balances experts; drop it"
        )
    if given is not None:
        return given
    config: Any = cast(Any, model).config.get_text_config(decoder=True)
    return own if own is not None and config.output_router_logits else 0.0


def balance_options(model: nn.Module, weight: float) -> dict[str, bool]:
    """Return what a call of the model needs to be told."""
    return {} if own_weight(model) is None else {"output_router_logits": weight > 0}
