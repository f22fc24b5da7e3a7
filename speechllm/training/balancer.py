"""Weights of losses that mean shares of the gradient, whatever the scale of each loss.

    balancer = Balancer({"mel": 1.0, "adversarial": 3.0})
    loss = balancer({"mel": mel, "adversarial": adversarial}, output)      # both computed from `output`
    loss.backward()                                                       # goes through the network once

The gradient that the output gets is   sum_i  w_i / sum(w) * g_i / <|g_i|>,   where g_i is the gradient of loss i at
the output and <|g_i|> a running mean of its length: here a quarter comes from the spectrogram, three quarters from the
discriminator, even if one loss is a hundred times the other. (EnCodec, arXiv:2210.13438, section 3.4, equation 5.)
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechllm.errors import ConfigError


class Balancer(nn.Module):
    """The running means are buffers: they are saved with the model, so that a resumed run goes on as it was."""

    totals: Tensor
    counts: Tensor

    def __init__(self, weights: Mapping[str, float], *, decay: float = 0.999):
        super().__init__()
        if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ConfigError(f"loss weights are {dict(weights)}, expected numbers of at least 0, one above it")
        self.weights, self.decay = dict(weights), decay
        # Sums of decaying terms and of their weights: their quotient is a mean from a loss's first step on.
        self.register_buffer("totals", torch.zeros(len(weights)))
        self.register_buffer("counts", torch.zeros(len(weights)))

    def forward(
        self, losses: Mapping[str, Tensor], output: Float[Tensor, "B S"], copy: Float[Tensor, "B S"] | None = None
    ) -> Float[Tensor, ""]:
        """Return a scalar: its value is the weighted sum of the losses, its gradient at `output` the balanced one.

        A loss that is not among `losses` has no share in this step.

        Args:
            losses: by name.
            output: of the network.
            copy: detached from the network, and what the losses were computed from; None: from the output itself.
        """
        names = [name for name in self.weights if name in losses]
        value = sum((self.weights[name] * losses[name].detach() for name in names), start=output.new_zeros(()))
        if not output.requires_grad:
            return value
        gradients = [self._gradient(losses[name], output if copy is None else copy) for name in names]
        present = torch.tensor([list(self.weights).index(name) for name in names], device=output.device)
        norms = torch.stack([gradient.norm() for gradient in gradients])
        self.totals[present] = self.totals[present] * self.decay + norms
        self.counts[present] = self.counts[present] * self.decay + 1
        means = (self.totals / self.counts)[present]
        weights = torch.tensor([self.weights[name] for name in names], device=output.device)
        scales = weights / weights.sum().clamp_min(1e-12) / means.clamp_min(1e-12)
        balanced = sum((s * g for s, g in zip(scales, gradients, strict=True)), start=torch.zeros_like(output))
        # A product whose gradient is `balanced`, in place of the losses; then the value is put right.
        carrier = (output * balanced).sum()
        return carrier - carrier.detach() + value

    @staticmethod
    def _gradient(loss: Tensor, output: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, [output], retain_graph=True)
        return gradient
