"""The scan through mamba-ssm's CUDA kernel, as the published VMRNN code calls it: the yardstick for ours.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states, R rank of dt, K = 4 directions.

`selective_scan_fn` scans K*D independent channels along one axis, in groups of D that share B and C. The four
directions become such groups by copying: the grid row by row and column by column, and both reversed.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.cache
def why_unavailable() -> str | None:
    """Why mamba-ssm cannot be used, or None if it can."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "mamba_ssm":
            return "the package mamba-ssm is not installed (pip install 'vmrnn[mamba]')"
        return f"mamba-ssm needs a package that is not installed: {error.name}"
    except Exception as error:  # a compiled extension for another PyTorch fails in its own ways
        return f"mamba-ssm is installed but its import fails: {type(error).__name__}: {error}"
    return None


def _sequence(image: Tensor, k: int) -> Tensor:
    """image (B, *, H, W) -> (B, *, L) in the order of direction k."""
    tokens = (image.transpose(2, 3) if k % 2 else image).flatten(2)
    return tokens.flip(-1) if k >= 2 else tokens


def _image(sequence: Tensor, k: int, H: int, W: int) -> Tensor:
    """The inverse of `_sequence`."""
    tokens = sequence.flip(-1) if k >= 2 else sequence
    return tokens.unflatten(-1, (W, H)).transpose(2, 3) if k % 2 else tokens.unflatten(-1, (H, W))


def selective_scan(x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor) -> Tensor:
    """See `vmrnn_cli.scan.selective_scan`. Differentiable by the kernel's own backward pass."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    B, H, W, D = x.shape
    K, _, R = dt_weight.shape
    image, images = x.float().permute(0, 3, 1, 2), x_dbl.float().permute(3, 0, 4, 1, 2)  # (B, D, H, W), (K, B, S, H, W)
    u = torch.stack([_sequence(image, k) for k in range(K)], dim=1)  # (B, K, D, L)
    ordered = torch.stack([_sequence(images[k], k) for k in range(K)], dim=1)  # (B, K, S, L)
    N = A_logs.shape[-1]
    dt_r, Bs, Cs = ordered.split([R, N, N], dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dt_r, dt_weight.float())
    y = selective_scan_fn(
        u.view(B, K * D, H * W),
        delta.reshape(B, K * D, H * W),
        -A_logs.float().exp(),  # (K*D, N)
        Bs.contiguous(),  # (B, K, N, L)
        Cs.contiguous(),
        Ds.float(),
        delta_bias=dt_bias.float().flatten(),
        delta_softplus=True,
    )  # (B, K*D, L)
    y = y.unflatten(1, (K, D)).float()
    total = _image(y[:, 0], 0, H, W)
    for k in range(1, K):
        total = total + _image(y[:, k], k, H, W)
    return total.permute(0, 2, 3, 1)
