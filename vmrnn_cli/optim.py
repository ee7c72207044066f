"""The optimizer of the default recipe: Muon for weight matrices, AdamW for the rest.

Muon (Jordan et al., 2024) replaces the momentum of a weight matrix by the nearest orthogonal matrix, found with five
Newton-Schulz steps, so that every direction of the matrix learns at the same rate.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic that Muon's author tuned for fast convergence to about 1


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of (..., rows, columns) close to 1."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for tensors of matrices (..., rows, columns).

    Args:
        params: parameters with two or more dimensions; more than two are a batch of matrices (as x_proj has one per
            direction).
        lr: step length, relative to a matrix with singular values of 1.
        momentum: share of the past in the momentum.
        weight_decay: decoupled, relative to `lr`.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                update = orthogonalise(p.grad + group["momentum"] * momentum)
                scale = max(1.0, p.shape[-2] / p.shape[-1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def muon_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the parameters of a VMRNN: the matrices of its linear maps for Muon, all else for AdamW."""
    names = (".in_proj.", ".out_proj.", ".x_proj_weight", ".mix.weight", ".reduction.", ".expand.")
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= 2 and any(part in name for part in names)
        (matrices if is_matrix else others).append(parameter)
    return matrices, others


def make_optimizers(model: nn.Module, name: str, *, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon and AdamW ("muon"), or Adam as published ("adam")."""
    if name == "adam":
        return [torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)]
    matrices, others = muon_parameters(model)
    return [
        Muon(matrices, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=lr / 4, betas=(0.9, 0.98), weight_decay=0.0),
    ]
