"""How the next id is chosen: greedy, or by temperature, top-k and top-p.

    choose(logits, SamplingConfig(temperature=0.8, top_k=50), uniforms)     # [B] row indices

Each sequence brings its own uniform number in [0, 1), so what it becomes does not depend on who else is in
the batch. Top-p is nucleus sampling (Holtzman et al., arXiv:1904.09751, section 3.1).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from speechllm.errors import ConfigError
from speechllm.nn.precision import widest_float


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How one modality is sampled."""

    temperature: float = 0.0
    "Divides the logits; 0 takes the likeliest id (greedy), 1 samples from the model as it is."
    top_k: int = 0
    "Sample among the k likeliest ids only; 0 means all."
    top_p: float = 1.0
    "Sample among the likeliest ids that together hold this share of the probability."

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature}, expected 0 (greedy) or more")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}, expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected a share above 0 and up to 1")

    @property
    def is_greedy(self) -> bool:
        """True if no randomness is involved."""
        return self.temperature == 0


def choose(
    logits: Float[Tensor, "B R"], config: SamplingConfig, uniforms: Float[np.ndarray, " B"] | None = None
) -> Int[Tensor, " B"]:
    """Return the index chosen in each row; illegal entries are -inf and are never chosen.

    Args:
        logits: any float dtype; each row has at least one finite entry.
        config: temperature and cuts.
        uniforms: one number in [0, 1) per row; needed unless greedy.
    """
    if config.is_greedy:
        return logits.argmax(-1)
    assert uniforms is not None, "sampling needs one uniform number per row"
    values, order = (logits.float() / config.temperature).sort(dim=-1, descending=True)
    if config.top_k:
        values, order = values[:, : config.top_k], order[:, : config.top_k]
    wide = widest_float(logits.device)
    cumulative = values.softmax(-1).to(wide).cumsum(-1)
    # The id that crosses top_p stays in: everything up to and with it is the nucleus.
    nucleus = (cumulative < config.top_p).sum(-1, keepdim=True).clamp(max=cumulative.shape[1] - 1)
    total = cumulative.gather(1, nucleus)
    drawn = torch.as_tensor(uniforms, dtype=wide, device=logits.device)[:, None] * total
    index = (cumulative <= drawn).sum(-1, keepdim=True)
    # Rounding may push the draw onto entries of probability zero, which come last in the order.
    last_possible = (values > -torch.inf).sum(-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(torch.minimum(index, nucleus), last_possible))[:, 0]


def log_probability(logits: Float[Tensor, "B R"], index: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the log probability (natural, among the finite entries, temperature 1) of each chosen index."""
    logits = logits.float()
    return logits.gather(1, index[:, None])[:, 0] - logits.logsumexp(-1)
