"""The selective scan in plain PyTorch, a tile of tokens at a time: no compiler, any device, any float type.

Notation: B batch, L = H*W tokens, D inner width, N states, R rank of dt, K = 4 directions, T tokens of a tile.

All directions advance together. Within a tile the decays and inputs of the T tokens are computed at once and the
recurrence is T fused multiply-adds on (B, K, N, D); memory is that of one tile, whatever L is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import scan_orders, split_x_dbl

TILE = 32


class _Sequence(NamedTuple):
    """The inputs of the recurrence in the order in which each direction visits the tokens."""

    order: Tensor  # (K, L)
    x: Tensor  # (L, B, K, D)
    dt_r: Tensor  # (L, B, K, R)
    B: Tensor  # (L, B, K, N)
    C: Tensor  # (L, B, K, N)
    before: Tensor  # (L, B, K, D), delta before softplus
    A: Tensor  # (K, N, D)


def _visit(t: Tensor, order: Tensor) -> Tensor:
    """t (B, L, K, *) or (B, L, *) -> (L, B, K, *), each direction in its own order."""
    per_direction = t.unbind(2) if t.dim() == 4 else [t] * len(order)
    return torch.stack([d[:, o].transpose(0, 1) for d, o in zip(per_direction, order, strict=True)], dim=2)


def _leave(t: Tensor, order: Tensor) -> Tensor:
    """The inverse of `_visit`: t (L, B, K, *) -> (B, L, K, *)."""
    back = torch.argsort(order, dim=1)
    return torch.stack([t[o, :, k].transpose(0, 1) for k, o in enumerate(back)], dim=2)


def _sequence(x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor) -> _Sequence:
    _, H, W, D = x.shape
    K, _, R = dt_weight.shape
    order = scan_orders(H, W, x.device)
    dt_r, B, C = split_x_dbl(_visit(x_dbl.flatten(1, 2), order), R)
    before = torch.einsum("lbkr,kdr->lbkd", dt_r, dt_weight) + dt_bias
    A = -A_logs.view(K, D, -1).exp().transpose(1, 2)
    return _Sequence(order, _visit(x.flatten(1, 2), order), dt_r, B, C, before, A)


def _states(s: _Sequence, tile: slice, state: Tensor) -> tuple[Tensor, Tensor]:
    """Decays (T, B, K, N, D) of a tile and its states (T + 1, B, K, N, D), the first being the one before it."""
    delta = F.softplus(s.before[tile])[..., None, :]  # (T, B, K, 1, D)
    decay = torch.exp(delta * s.A)
    inputs = (delta * s.x[tile][..., None, :]) * s.B[tile][..., None]
    states = torch.cat([state[None], inputs])
    for t in range(len(decay)):
        states[t + 1].addcmul_(decay[t], states[t])
    return decay, states


def kept_shape(shape: tuple[int, ...], K: int, N: int, tile: int = TILE) -> tuple[int, ...]:
    """Shape of the states kept for the backward pass, for x of `shape` (B, H, W, D)."""
    B, H, W, D = shape
    return (-(-H * W // tile), B, K, N, D)


def forward(
    x: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    keep: bool = True,
    tile: int = TILE,
) -> tuple[Tensor, Tensor]:
    """See `vmrnn_cli.scan.selective_scan`. Second result: the states before each tile, for `backward`."""
    batch, H, W, D = x.shape
    K, _, N = len(dt_weight), D, A_logs.shape[-1]
    s = _sequence(x, x_dbl, dt_weight, dt_bias, A_logs)
    state, kept = x.new_zeros(batch, K, N, D), []
    out = torch.empty_like(s.x)
    for l0 in range(0, H * W, tile):
        here = slice(l0, l0 + tile)
        if keep:
            kept.append(state)
        _, states = _states(s, here, state)
        out[here] = torch.einsum("tbkn,tbknd->tbkd", s.C[here], states[1:])
        state = states[-1].clone()
    y = _leave(out, s.order).sum(2).view_as(x) + Ds.view(K, D).sum(0) * x
    return y, torch.stack(kept) if keep else x.new_empty(0)


def backward(
    dy: Tensor,
    x: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    kept: Tensor,
    tile: int = TILE,
) -> tuple[Tensor, ...]:
    """Gradients of the six inputs of `forward`: per tile, recompute the states, then run the recurrence backwards."""
    batch, H, W, D = x.shape
    K = len(dt_weight)
    s = _sequence(x, x_dbl, dt_weight, dt_bias, A_logs)
    dys = _visit(dy.flatten(1, 2), s.order)  # (L, B, K, D)
    dxs, d_before = torch.empty_like(s.x), torch.empty_like(s.before)
    dB, dC, dA = torch.empty_like(s.B), torch.empty_like(s.C), torch.zeros_like(s.A)
    carried = torch.zeros_like(kept[0])  # decay times gradient of the first state of the tile after
    for i, l0 in reversed(list(enumerate(range(0, H * W, tile)))):
        here = slice(l0, l0 + tile)
        decay, states = _states(s, here, kept[i])
        delta = F.softplus(s.before[here])
        g = dys[here][..., None, :] * s.C[here][..., None]  # (T, B, K, N, D)
        g[-1] += carried
        for t in range(len(g) - 1, 0, -1):
            g[t - 1].addcmul_(decay[t], g[t])
        carried = decay[0] * g[0]
        dC[here] = torch.einsum("tbknd,tbkd->tbkn", states[1:], dys[here])
        dB[here] = torch.einsum("tbknd,tbkd->tbkn", g, delta * s.x[here])
        du = torch.einsum("tbkn,tbknd->tbkd", s.B[here], g)
        d_exponent = g * decay * states[:-1]
        dA += torch.einsum("tbknd,tbkd->knd", d_exponent, delta)
        d_delta = du * s.x[here] + torch.einsum("tbknd,knd->tbkd", d_exponent, s.A)
        dxs[here] = du * delta
        d_before[here] = d_delta * torch.sigmoid(s.before[here])
    d_dt_r = torch.einsum("lbkd,kdr->lbkr", d_before, dt_weight)
    dx = dy * Ds.view(K, D).sum(0) + _leave(dxs, s.order).sum(2).view_as(x)
    dx_dbl = _leave(torch.cat([d_dt_r, dB, dC], -1), s.order).view_as(x_dbl)
    d_dt_weight = torch.einsum("lbkd,lbkr->kdr", d_before, s.dt_r)
    dDs = (dy * x).sum((0, 1, 2)).expand(K, D)
    dA_logs = (dA * s.A).transpose(1, 2)
    return dx, dx_dbl, d_dt_weight, d_before.sum((0, 1)), dA_logs.reshape(A_logs.shape), dDs.reshape(Ds.shape)
