"""The LM's output matrix cut to the rows that are legal next: one small product per step instead of a whole one.

    forward = cut_forward(model, rows)                      # rows: what `grammar.head_rows` gives per modality
    logits = forward([(None, 1)], input_ids=..., past_key_values=cache)     # everybody is in an audio part

A shallow copy of the causal LM gets another output module; all weights stay shared and the model itself is not
touched. What a family does after its head (soft cap, scale) runs as it always does. At construction the cut logits
are compared with the whole ones, so that a family that does something unforeseen falls back to the whole head.
"""

import copy
import inspect
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.generation.grammar import HeadRows

Plan: TypeAlias = Sequence[tuple[Tensor | None, int]]
"Groups of sequences, (their rows or None for all, index of the modality): each row stands in one group."


class CutHead(nn.Module):
    """Computes for each group of sequences the rows of its modality, at the last position only."""

    def __init__(self, weight: Float[Tensor, "V D"], bias: Tensor | None, rows: Sequence[HeadRows]):
        super().__init__()
        self.plan: Plan = [(None, 0)]
        self._parts: list[tuple[Tensor, Tensor | None]] = []
        for part in rows:
            if part.is_prefix:
                cut = (weight[: len(part.ids)], None if bias is None else bias[: len(part.ids)])
            else:
                ids = part.ids.to(weight.device)
                cut = (weight[ids], None if bias is None else bias[ids])
            self._parts.append(cut)

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B 1 R"]:
        """Return logits; where groups differ in width, the narrower ones are filled up with zeros."""
        hidden = hidden[:, -1:]
        if len(self.plan) == 1:
            return F.linear(hidden, *self._parts[self.plan[0][1]])
        width = max(len(self._parts[modality][0]) for _, modality in self.plan)
        logits = hidden.new_zeros(len(hidden), 1, width)
        for rows, modality in self.plan:
            weight, bias = self._parts[modality]
            logits[rows, :, : len(weight)] = F.linear(hidden[rows], weight, bias)
        return logits


class CutForward:
    """Calls a view of the model whose head is a `CutHead`; returns one logits tensor per group."""

    def __init__(self, model: nn.Module, rows: Sequence[HeadRows]):
        head, name = _head(model)
        weight = _effective_weight(head)
        bias = getattr(head, "bias", None)
        self.head = CutHead(weight.detach(), None if bias is None else bias.detach(), rows)
        self.view = copy.copy(model)
        self.view.__dict__["_modules"] = {**model._modules, name: self.head}
        self.widths = [len(part.ids) for part in rows]

    def __call__(self, plan: Plan, inputs: dict[str, Any]) -> list[Float[Tensor, "b R"]]:
        """Run the model on `inputs` and return the last position's logits of each group."""
        self.head.plan = plan
        logits = self.view(**inputs).logits[:, -1]
        return [_take(logits, rows)[:, : self.widths[modality]] for rows, modality in plan]


class WholeForward:
    """The fallback: the whole head, then the rows that are needed."""

    def __init__(self, model: nn.Module, rows: Sequence[HeadRows]):
        self.model, self.rows = model, rows
        parameters = inspect.signature(model.forward).parameters
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    def __call__(self, plan: Plan, inputs: dict[str, Any]) -> list[Float[Tensor, "b R"]]:
        """Run the model on `inputs` and return the last position's logits of each group."""
        logits = self.model(**inputs, **self._only_last).logits[:, -1]
        return [_take(logits, rows)[:, self.rows[m].ids.to(logits.device)] for rows, m in plan]


Forward: TypeAlias = CutForward | WholeForward


def can_cut(model: nn.Module, rows: Sequence[HeadRows]) -> bool:
    """Return whether cut logits equal whole ones on this model; warn once, by name, if not."""
    ids = torch.tensor([[0, 1]], device=next(model.parameters()).device)
    inputs = {"input_ids": ids, "use_cache": False}
    reason = "its cut logits differ from the whole ones"
    try:
        with torch.no_grad():
            whole, cut = WholeForward(model, rows), CutForward(model, rows)
            for modality in range(len(rows)):
                (expected,), (got,) = whole([(None, modality)], inputs), cut([(None, modality)], inputs)
                scale = float(expected.abs().max())
                # Same products in another blocking: equal up to rounding of the dtype at hand.
                tolerance = 64 * torch.finfo(expected.dtype).eps * max(scale, 1.0)
                if not torch.allclose(expected, got, rtol=0.0, atol=tolerance):
                    break
            else:
                return True
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
    warnings.warn(
        f"{type(model).__name__}: decoding computes the whole output matrix, which is slower ({reason})", stacklevel=3
    )
    return False


def cut_forward(model: nn.Module, rows: Sequence[HeadRows], *, cut: bool) -> Forward:
    """Return the function that runs the model; made anew for each decode, so that weights are never stale."""
    return CutForward(model, rows) if cut else WholeForward(model, rows)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the causal LM inside a PEFT wrapper (its adapters stay in force), or the model itself."""
    base = getattr(model, "get_base_model", None)
    return base() if callable(base) else model  # pyright: ignore[reportReturnType]


def _take(logits: Tensor, rows: Tensor | None) -> Tensor:
    return logits if rows is None else logits[rows]


def _head(model: nn.Module) -> tuple[nn.Module, str]:
    head = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    for name, module in model.named_children():
        if module is head:
            return head, name
    raise ValueError("its output matrix is no direct child of the model")


def _effective_weight(head: Any) -> Tensor:
    """Return the matrix [V, D] that the head multiplies with, PEFT's trained token rows included."""
    if type(head) is nn.Linear:
        return head.weight
    adapter = getattr(head, "token_adapter", None)
    if adapter is not None:
        return adapter.get_merged_weights(adapter.active_adapters)
    raise ValueError(f"its head is a {type(head).__name__}")
