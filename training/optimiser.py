"""Muon for the convolutions, AdamW for the rest: the optimiser of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Steps along the nearest half-orthogonal matrix to the momentum of each weight, its kernel laid flat.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": a Newton-Schulz iteration
    of fifth order brings all singular values near 1. torch.optim.Muon takes matrices only, not convolutions.

    Args:
        parameters: of two or more dimensions; the first is that of the outputs.
        lr: length of a step; each has a norm of about ``lr · sqrt(outputs)``.
        momentum: of Nesterov's kind.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 - an interface
        """Moves every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                direction = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                scale = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(half_orthogonal(direction).view_as(weight), alpha=-group["lr"] * scale)


def half_orthogonal(matrix: Tensor) -> Tensor:
    """About U Vᵀ of the matrix U S Vᵀ: its singular values come to lie between 0.7 and 1.2."""
    a, b, c = _COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    turned: Tensor = x.T if tall else x
    return turned


def optimisers(student: nn.Module, *, rate: float, trunk_rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """Muon on the trunk's convolutions; AdamW on the heads, norms and biases, these without decay."""
    convolutions = [p for name, p in student.named_parameters() if name.startswith("trunk.") and p.ndim > 1]
    heads = [p for name, p in student.named_parameters() if not name.startswith("trunk.") and p.ndim > 1]
    flat = [p for p in student.parameters() if p.ndim <= 1]
    return [
        Muon(convolutions, lr=trunk_rate, weight_decay=decay),
        torch.optim.AdamW([{"params": heads, "weight_decay": decay}, {"params": flat, "weight_decay": 0.0}], lr=rate),
    ]
