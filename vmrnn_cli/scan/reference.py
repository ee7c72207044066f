"""The selective scan as it is defined, token by token: the oracle that every other backend is compared with.

Notation: B batch, L = H*W tokens, D inner width, N states, R rank of dt, K = 4 directions. Works in any float type.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def scan_orders(H: int, W: int, device: torch.device) -> Tensor:
    """(K, L): the row-major positions of the tokens in the order in which each direction visits them."""
    rows = torch.arange(H * W, device=device)
    columns = rows.view(H, W).t().reshape(-1)
    return torch.stack([rows, columns, rows.flip(0), columns.flip(0)])


def split_x_dbl(x_dbl: Tensor, R: int) -> tuple[Tensor, Tensor, Tensor]:
    """dt_r (..., R), B (..., N), C (..., N) out of x_dbl (..., R + 2N)."""
    N = (x_dbl.shape[-1] - R) // 2
    dt_r, B, C = x_dbl.split([R, N, N], dim=-1)
    return dt_r, B, C


def kept_shape(shape: tuple[int, ...], K: int, N: int) -> tuple[int, ...]:
    """Shape of the states kept for the backward pass, for x of `shape` (B, H, W, D)."""
    B, H, W, D = shape
    return (K, H * W + 1, B, D, N)


def forward(
    x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """See `vmrnn_cli.scan.selective_scan`. Second result: all states, for `backward`."""
    batch, H, W, D = x.shape
    K, _, R = dt_weight.shape
    flat, y = x.flatten(1, 2), torch.zeros_like(x).flatten(1, 2)  # (B, L, D)
    A, skip = -A_logs.view(K, D, -1).exp(), Ds.view(K, D)
    states = x.new_zeros(kept_shape(x.shape, K, A.shape[-1]))
    for k, order in enumerate(scan_orders(H, W, x.device)):
        dt_r, B, C = split_x_dbl(x_dbl[..., k, :].flatten(1, 2), R)
        delta = F.softplus(dt_r @ dt_weight[k].t() + dt_bias[k])  # (B, L, D)
        for i, p in enumerate(order.tolist()):
            decay = torch.exp(delta[:, p, :, None] * A[k])  # (B, D, N)
            states[k, i + 1] = decay * states[k, i] + (delta[:, p] * flat[:, p])[..., None] * B[:, p, None, :]
            y[:, p] += (states[k, i + 1] * C[:, p, None, :]).sum(-1) + skip[k] * flat[:, p]
    return y.view_as(x), states if keep else x.new_empty(0)


def backward(
    dy: Tensor, x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, states: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the six inputs of `forward`, by the recurrence run backwards."""
    batch, H, W, D = x.shape
    K, _, R = dt_weight.shape
    x, dy = x.flatten(1, 2), dy.flatten(1, 2)  # (B, L, D)
    A, skip = -A_logs.view(K, D, -1).exp(), Ds.view(K, D)
    dx, dx_dbl = dy * skip.sum(0), torch.zeros_like(x_dbl)
    d_dt_weight, d_dt_bias, dA = torch.zeros_like(dt_weight), torch.zeros_like(dt_bias), torch.zeros_like(A)
    for k, order in enumerate(scan_orders(H, W, x.device)):
        dt_r, B, C = split_x_dbl(x_dbl[..., k, :].flatten(1, 2), R)
        d_dt_r, dB, dC = (torch.zeros_like(t) for t in (dt_r, B, C))
        before = dt_r @ dt_weight[k].t() + dt_bias[k]  # (B, L, D)
        delta, d_before = F.softplus(before), torch.zeros_like(before)
        g = x.new_zeros(batch, D, A.shape[-1])  # gradient of the state
        for i, p in reversed(list(enumerate(order.tolist()))):
            decay = torch.exp(delta[:, p, :, None] * A[k])
            g = g + dy[:, p, :, None] * C[:, p, None, :]
            dC[:, p] = (dy[:, p, :, None] * states[k, i + 1]).sum(1)
            dB[:, p] = (g * (delta[:, p] * x[:, p])[..., None]).sum(1)
            du = (g * B[:, p, None, :]).sum(-1)  # u = delta x
            d_exponent = g * decay * states[k, i]  # of delta A
            dA[k] += (d_exponent * delta[:, p, :, None]).sum(0)
            dx[:, p] += du * delta[:, p]
            d_before[:, p] = (du * x[:, p] + (d_exponent * A[k]).sum(-1)) * torch.sigmoid(before[:, p])
            g = g * decay
        d_dt_r = d_before @ dt_weight[k]
        d_dt_weight[k] = torch.einsum("bld,blr->dr", d_before, dt_r)
        d_dt_bias[k] = d_before.sum((0, 1))
        dx_dbl[..., k, :] = torch.cat([d_dt_r, dB, dC], -1).view(batch, H, W, -1)
    dDs = (dy * x).sum((0, 1)).expand(K, D)
    return dx.view(batch, H, W, D), dx_dbl, d_dt_weight, d_dt_bias, (dA * A).view_as(A_logs), dDs.reshape(Ds.shape)
