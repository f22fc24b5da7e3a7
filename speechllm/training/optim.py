"""Optimizers by name; the main one is Muon for hidden matrices with AdamW for everything else.

    optimizer = build_optimizer(model, OptimizerConfig(kind="muon", learning_rate=3e-3))

    group        kind="muon" steps it with   what is in it
    hidden       Muon                        2-D weights inside the network
    embeddings   AdamW                       input embeddings, output heads, newly added rows
    rest         AdamW, no weight decay      norms, biases, convolutions

    kind         hidden matrices                          everything else
    muon         Muon                                     AdamW
    adamw        AdamW                                    AdamW
    adamw8bit    AdamW, its moments in 8 bits             AdamW
    adafactor    Adafactor, factored second moments       Adafactor

The result is one `torch.optim.Optimizer` over all the groups, so that Trainer, Accelerate and
learning-rate schedules drive it like any other, and its `state_dict` goes to disk and back exactly.
Muon orthogonalises the momentum of each matrix (Jordan, 2024); its step is scaled to the RMS of an
AdamW step, so that one learning rate serves both (arXiv:2502.16982, section 2.2). Adafactor is that of
arXiv:1804.04235 with steps relative to a matrix's own size, no momentum, clipping at 1: for AudioPaLM's training
(arXiv:2306.12925, section 5) set learning_rate 5e-5, `schedule: constant_with_warmup` and `dropout: 0.1`.
The 8-bit moments are those of arXiv:2110.02861, through bitsandbytes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from speechllm.errors import ConfigError
from speechllm.models.four_bit import load_bitsandbytes


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its rates."""

    kind: Literal["muon", "adamw", "adamw8bit", "adafactor"] = "adamw"
    "muon: Muon for hidden matrices, AdamW elsewhere. adafactor: as AudioPaLM trained (arXiv:2306.12925, section 5)."
    learning_rate: float = 3e-4
    "Peak rate, before any schedule; Muon's is on AdamW's scale."
    embedding_learning_rate: float | None = None
    "Rate of embeddings and heads; None: the same as `learning_rate`."
    weight_decay: float = 0.0
    "Decoupled decay of hidden matrices; embeddings, norms and biases never decay."
    betas: tuple[float, float] = (0.9, 0.95)
    "Decay of AdamW's first and second moments."
    eps: float = 1e-8
    "Added to the root of AdamW's second moment."
    momentum: float = 0.95
    "Muon's (Nesterov) momentum."

    def __post_init__(self) -> None:
        for name in ("learning_rate", "embedding_learning_rate"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ConfigError(f"{name} = {rate}, expected a number above 0")


class JoinedOptimizer(torch.optim.Optimizer):
    """Several optimizers over disjoint parameters, seen and saved as one.

    The joined optimizer owns the groups and the state; its members work on the same objects.
    """

    def __init__(self, members: Sequence[torch.optim.Optimizer]):
        super().__init__([{"params": group["params"]} for m in members for group in m.param_groups], {})
        self.members = list(members)
        self.param_groups = [group for member in members for group in member.param_groups]
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step with every member."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore groups and state written by `state_dict`: each member its own, as types of state differ."""
        group = 0
        state: dict[Any, Any] = {}
        for member in self.members:
            last_group = group + len(member.param_groups)
            groups = state_dict["param_groups"][group:last_group]
            # Parameters go by number, or by name where weights are sharded: the groups say which are whose.
            ours = {key for part in groups for key in part["params"]}
            part = {key: value for key, value in state_dict["state"].items() if key in ours}
            member.state = defaultdict(dict)
            member.load_state_dict({"state": part, "param_groups": groups})
            state.update(member.state)
            group = last_group
        self.state = defaultdict(dict, state)
        self.param_groups = [group for member in self.members for group in member.param_groups]
        self._share()

    def _share(self) -> None:
        start = 0
        for member in self.members:
            stop = start + len(member.param_groups)
            member.param_groups = self.param_groups[start:stop]
            member.state = self.state
            start = stop


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, *, heads: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Return an optimizer over the trainable parameters of `model`.

    `heads` are further parameters to be treated as output heads, beside those of a transformers model.

    Raises:
        ConfigError: nothing in the model is trainable.
    """
    groups = split_parameters(model, heads)
    if not groups:
        raise ConfigError(f"{type(model).__name__} has no trainable parameter; unfreeze some before training")
    rates = {"embeddings": config.embedding_learning_rate or config.learning_rate}
    decays = {"hidden": config.weight_decay}
    dressed: list[dict[str, Any]] = [
        {
            "name": name,
            "params": parameters,
            "lr": rates.get(name, config.learning_rate),
            "weight_decay": decays.get(name, 0.0),
        }
        for name, parameters in groups.items()
    ]
    if config.kind == "adafactor":
        # Squares are kept above the paper's 1e-30; torch squares the first of the two.
        return torch.optim.Adafactor(dressed, lr=config.learning_rate, eps=(1e-15, 1e-3))
    special = [group for group in dressed if config.kind in ("muon", "adamw8bit") and group["name"] == "hidden"]
    adamw = [group for group in dressed if group not in special]
    members: list[torch.optim.Optimizer] = []
    if special and config.kind == "muon":
        members.append(
            torch.optim.Muon(special, lr=config.learning_rate, momentum=config.momentum, adjust_lr_fn="match_rms_adamw")
        )
    elif special:
        library = load_bitsandbytes("optimizer kind 'adamw8bit'")
        rates: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas, "eps": config.eps}
        members.append(library.optim.AdamW8bit(special, **rates))
    if adamw:
        members.append(torch.optim.AdamW(adamw, lr=config.learning_rate, betas=config.betas, eps=config.eps))
    return members[0] if len(members) == 1 else JoinedOptimizer(members)


def split_parameters(model: nn.Module, heads: Iterable[nn.Parameter] = ()) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters as {"hidden", "embeddings", "rest"}; empty groups are left out."""
    outer = {id(parameter) for parameter in heads}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            outer |= {id(parameter) for parameter in module.parameters()}
    output = getattr(model, "get_output_embeddings", lambda: None)()
    if output is not None:
        outer |= {id(parameter) for parameter in cast(nn.Module, output).parameters()}
    groups: dict[str, list[nn.Parameter]] = {"hidden": [], "embeddings": [], "rest": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # peft keeps the rows that it trains (`trainable_token_indices`) apart from the matrix they belong to.
        is_row = "trainable_tokens" in name
        kind = "embeddings" if is_row or id(parameter) in outer else "hidden" if parameter.ndim == 2 else "rest"
        groups[kind].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}
