"""Inputs of the scan for tests, and how far apart two results are."""

from __future__ import annotations

import torch


def inputs(B, H, W, D, R, N=16, dtype=torch.float32, seed=0):
    """x, x_dbl, dt_weight, dt_bias, A_logs, Ds of the sizes that occur in trained networks."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    A_logs = torch.arange(1, N + 1, dtype=torch.float64).log().repeat(4 * D, 1) + 0.3 * normal(4 * D, N)
    tensors = (
        normal(B, H, W, D), normal(B, H, W, 4, R + 2 * N), normal(4, D, R) * R**-0.5, normal(4, D) - 3, A_logs,
        normal(4 * D),
    )  # fmt: skip
    return [t.to(dtype) for t in tensors]


def distance(a, b):
    """Relative distance in the 2-norm."""
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()
