"""The scan and its two neighbours for NVIDIA GPUs, in Triton. Imported only where the backend is used.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states, R rank of dt, S = R + 2N, K = 4 directions;
l counts the tokens of a direction in its own order, place is where such a token lies in memory.

How the scan is laid out:

- One program is one warp that walks over tokens with the state (N, BLOCK_D) in registers, a thread owning whole
  channels: the sum over N needs no other thread. Directions are ways to compute `place`; nothing is flipped.
- Every direction writes its own output, and PyTorch adds the four: no atomics, so results are reproducible (on the
  same card and for the same batch: the chunks depend on both).
- Where batch x channels x directions are too few to fill the chip, the sequence is cut into chunks. Each is scanned
  from zero, which gives its last state and its total decay; a carry pass turns those into the state before each chunk;
  then all chunks run at once.
- Backward: the states before each tile of TILE tokens were kept. The adjoint recurrence, which runs the other way,
  gives the gradient that enters each tile from behind, with the same chunks. Then each tile is on its own: its states
  are recomputed into registers and it is walked backwards.

float32 inside whatever comes in. A is scaled by log2(e), so that a decay is a single exp2.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .native import token_stride

TILE = 16  # tokens from one kept state to the next
# Channels and states that `_gradient_kernel` has in registers; more leave them. Fixed, as sums depend on them.
GRADIENT_BLOCK, GRADIENT_STATES = 32, 4
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# Passed at every launch: sums of products as fused multiply-adds, which a later Triton no longer does unasked.
FUSED: dict[str, Any] = {"enable_fp_fusion": True}


# Integers whose divisibility is worth nothing here: a kernel is not compiled anew for another size of frame or batch.
SIZES = ["B", "H", "W", "L", "chunk", "chunks", "programs", "rows"]


def _kernel(function: Any) -> Any:
    """Triton's compiler, once for all sizes of frames and batches."""
    return triton.jit(function, do_not_specialize=[n for n in inspect.signature(function).parameters if n in SIZES])


def _tuned(*configs: tuple[dict[str, int], int], key: list[str]) -> Any:
    """Choose among (constants, warps) by timing, once per `key`, remembered on disk. The interpreter takes the last.

    No choice may change a result: none of the constants is part of the order of a sum.
    """
    choices = [triton.Config(constants, num_warps=warps) for constants, warps in configs]
    if not isinstance(tl.sum, triton.JITFunction):  # Triton was imported with TRITON_INTERPRET=1
        choices = choices[-1:]
    remembered = {"cache_results": True} if "cache_results" in inspect.signature(triton.autotune).parameters else {}
    return triton.autotune(choices, key=key, **remembered)


# ----------------------------------------------------------------------------------------------------------------------
# Selective scan: kernels


# The hints `multiple_of` say less than is true, on purpose: they keep Triton from giving a thread several neighbours
# of a row to load at once, a layout it would then carry into the recurrence and pay for with exchanges between threads.


@triton.jit
def _channels(block, BLOCK_D: tl.constexpr):
    return tl.multiple_of(block * BLOCK_D + tl.arange(0, BLOCK_D), 1)


@triton.jit
def _place(l, k, H, W):
    """Where the l-th token of direction k lies: 0 rows, 1 columns, 2 rows reversed, 3 columns reversed."""
    l = tl.where(k >= 2, H * W - 1 - l, l)
    return tl.where(k % 2 == 1, (l % H) * W + l // H, l)


@triton.jit
def _softplus(v):
    """log(1 + exp(v)), to float32's relative precision also where it is tiny: log1p(e) = 2 artanh(e / (2 + e))."""
    e = tl.exp(-tl.abs(v))
    z = e / (2.0 + e)  # at most 1/3
    s = z * z
    series = 1.0 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * (1 / 9 + s * (1 / 11 + s * (1 / 13))))))
    return tl.maximum(v, 0.0) + 2.0 * z * series


@triton.jit
def _softplus_slope(delta):
    """The derivative of softplus where its value is delta: 1 - exp(-delta), as a series where that would cancel."""
    d = tl.minimum(delta, 0.25)
    series = d * (1.0 - d * (1 / 2 - d * (1 / 6 - d * (1 / 24 - d * (1 / 120 - d * (1 / 720))))))
    return tl.where(delta < 0.25, series, 1.0 - tl.exp(-delta))


@triton.jit
def _delta(x_dbl, dt_weight, bias, R: tl.constexpr, R_PAD: tl.constexpr, valid):
    """softplus(dt_weight @ dt_r + bias) of the token at x_dbl: (BLOCK_D,), 0 beyond the last token."""
    r = tl.arange(0, R_PAD)
    dt_r = tl.load(x_dbl + r, mask=r < tl.where(valid, R, 0), other=0.0).to(tl.float32)
    return tl.where(valid, _softplus(tl.sum(dt_weight * dt_r[:, None], 0) + bias), 0.0)


@triton.jit
def _load_dt(dt_weight, dt_bias, k, d, D: tl.constexpr, R: tl.constexpr, R_PAD: tl.constexpr):
    """dt_weight of a direction as (R, BLOCK_D) and its bias as (BLOCK_D,)."""
    r = tl.arange(0, R_PAD)
    mask = (r < R)[:, None] & (d < D)[None, :]
    rd = tl.max_contiguous(tl.multiple_of((k * D + d[None, :]) * R + r[:, None], (1, 1)), (1, 1))
    weight = tl.load(dt_weight + rd, mask=mask, other=0.0)
    return weight.to(tl.float32), tl.load(dt_bias + k * D + d, mask=d < D, other=0.0).to(tl.float32)


@triton.jit
def _decay_rate(A_logs, k, n, d, D: tl.constexpr, N: tl.constexpr):
    """A log2(e) of states n and channels d of a direction: (N, BLOCK_D), 0 where there are none."""
    mask = (n < N)[:, None] & (d < D)[None, :]
    nd = tl.max_contiguous(tl.multiple_of((k * D + d[None, :]) * N + n[:, None], (1, 1)), (1, 1))
    return -LOG2_E * tl.exp(tl.load(A_logs + nd, mask=mask, other=float("-inf")).to(tl.float32))


@_tuned(
    ({"BLOCK_D": 32, "UNROLL": 4}, 1),
    ({"BLOCK_D": 64, "UNROLL": 1}, 1),
    ({"BLOCK_D": 64, "UNROLL": 2}, 1),
    ({"BLOCK_D": 32, "UNROLL": 2}, 1),
    ({"BLOCK_D": 128, "UNROLL": 2}, 4),
    key=["programs", "D", "N", "FINAL", "KEEP"],
)
@_kernel
def _scan_kernel(
    x,  # (B, L, D)
    x_dbl,  # (B, L, K, S)
    dt_weight,  # (K, D, R)
    dt_bias,  # (K, D)
    A_logs,  # (K * D, N)
    Ds,  # (K, D)
    chunk_states,  # (B, K, chunks, N, D): of the first pass the last states, in the final pass the states before
    chunk_deltas,  # (B, K, chunks, D), of the first pass: sums of delta
    y,  # (K, B, L, D)
    kept,  # (B, K, tiles, N, D)
    B, H, W, L, chunk,
    programs,  # their number, rounded up, for the choice of constants
    D: tl.constexpr, N: tl.constexpr, R: tl.constexpr, N_PAD: tl.constexpr, R_PAD: tl.constexpr, TILE: tl.constexpr,
    FINAL: tl.constexpr,  # write y; else only what the carry pass needs
    CHUNKED: tl.constexpr, KEEP: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Scan one chunk of one direction for one block of channels."""
    c, b, k = tl.program_id(0), tl.program_id(2) // 4, tl.program_id(2) % 4
    d, n = _channels(tl.program_id(1), BLOCK_D), tl.arange(0, N_PAD)
    S: tl.constexpr = R + 2 * N
    nd = tl.multiple_of(n[:, None] * D + d[None, :], (1, 1))
    nd_mask = (n < N)[:, None] & (d < D)[None, :]
    weight, bias = _load_dt(dt_weight, dt_bias, k, d, D, R, R_PAD)
    decay_rate = _decay_rate(A_logs, k, n, d, D, N)
    skip = tl.load(Ds + k * D + d, mask=d < D, other=0.0).to(tl.float32)
    bk = (b * 4 + k).to(tl.int64)
    in_chunk = (bk * tl.num_programs(0) + c) * D
    tiles = (L + TILE - 1) // TILE
    x += b.to(tl.int64) * L * D + d
    x_dbl += b.to(tl.int64) * L * (4 * S) + k * S
    y += (k.to(tl.int64) * B + b) * L * D + d
    state = tl.zeros((N_PAD, BLOCK_D), tl.float32)
    if FINAL and CHUNKED:
        state = tl.load(chunk_states + in_chunk * N + nd, mask=nd_mask, other=0.0)
    total = tl.zeros((BLOCK_D,), tl.float32)
    first = c * chunk
    for l0 in range(first, tl.minimum(first + chunk, L), UNROLL):
        if KEEP:
            if l0 % TILE == 0:
                tl.store(kept + (bk * tiles + l0 // TILE) * (N * D) + nd, state, mask=nd_mask)
        deltas, xs, Bs, Cs = (), (), (), ()  # all loads come before the first store, which they may not pass
        for i in tl.static_range(UNROLL):
            valid = l0 + i < L
            place = _place(l0 + i, k, H, W).to(tl.int64)
            token = x_dbl + place * (4 * S)
            deltas += (_delta(token, weight, bias, R, R_PAD, valid),)
            xs += (tl.load(x + place * D, mask=d < tl.where(valid, D, 0), other=0.0).to(tl.float32),)
            Bs += (tl.load(token + R + n, mask=n < tl.where(valid, N, 0), other=0.0).to(tl.float32),)
            if FINAL:
                Cs += (tl.load(token + R + N + n, mask=n < tl.where(valid, N, 0), other=0.0).to(tl.float32),)
        for i in tl.static_range(UNROLL):
            state = tl.exp2(decay_rate * deltas[i][None, :]) * state + Bs[i][:, None] * (deltas[i] * xs[i])[None, :]
            if FINAL:
                out = tl.sum(Cs[i][:, None] * state, 0) + skip * xs[i]
                place = _place(l0 + i, k, H, W).to(tl.int64)
                tl.store(y + place * D, out, mask=d < tl.where(l0 + i < L, D, 0))
            else:
                total += deltas[i]
    if not FINAL:
        tl.store(chunk_states + in_chunk * N + nd, state, mask=nd_mask)
        tl.store(chunk_deltas + in_chunk + d, total, mask=d < D)


@_tuned(
    ({"BLOCK_D": 32, "UNROLL": 4}, 1),
    ({"BLOCK_D": 64, "UNROLL": 1}, 1),
    ({"BLOCK_D": 64, "UNROLL": 2}, 1),
    ({"BLOCK_D": 32, "UNROLL": 2}, 1),
    ({"BLOCK_D": 128, "UNROLL": 2}, 4),
    key=["programs", "D", "N", "FINAL"],
)
@_kernel
def _adjoint_kernel(
    dy,  # (B, L, D)
    x_dbl,  # (B, L, K, S)
    dt_weight,  # (K, D, R)
    dt_bias,  # (K, D)
    A_logs,  # (K * D, N)
    chunk_states,  # (B, K, chunks, N, D): of the first pass what leaves each chunk, in the final pass what enters it
    chunk_deltas,  # (B, K, chunks, D), of the first pass: sums of delta
    adjoint,  # (B, K, tiles, N, D): gradient of the state after each tile, by all that comes later
    delta_out,  # (K, B, L, D)
    B, H, W, L, chunk,
    programs,  # their number, rounded up, for the choice of constants
    D: tl.constexpr, N: tl.constexpr, R: tl.constexpr, N_PAD: tl.constexpr, R_PAD: tl.constexpr, TILE: tl.constexpr,
    FINAL: tl.constexpr, CHUNKED: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Run the adjoint recurrence g_{l-1} = exp(delta_l A) (g_l + dy_l C_l) over one chunk, from its end."""
    c, b, k = tl.program_id(0), tl.program_id(2) // 4, tl.program_id(2) % 4
    d, n = _channels(tl.program_id(1), BLOCK_D), tl.arange(0, N_PAD)
    S: tl.constexpr = R + 2 * N
    nd = tl.multiple_of(n[:, None] * D + d[None, :], (1, 1))
    nd_mask = (n < N)[:, None] & (d < D)[None, :]
    weight, bias = _load_dt(dt_weight, dt_bias, k, d, D, R, R_PAD)
    decay_rate = _decay_rate(A_logs, k, n, d, D, N)
    bk = (b * 4 + k).to(tl.int64)
    in_chunk = (bk * tl.num_programs(0) + c) * D
    tiles = (L + TILE - 1) // TILE
    dy += b.to(tl.int64) * L * D + d
    x_dbl += b.to(tl.int64) * L * (4 * S) + k * S
    delta_out += (k.to(tl.int64) * B + b) * L * D + d
    g = tl.zeros((N_PAD, BLOCK_D), tl.float32)
    if FINAL and CHUNKED:
        g = tl.load(chunk_states + in_chunk * N + nd, mask=nd_mask, other=0.0)
    total = tl.zeros((BLOCK_D,), tl.float32)
    first = c * chunk
    tokens = tl.minimum(chunk, tiles * TILE - first)  # whole tiles; tokens beyond L change nothing
    for done in range(0, tokens, UNROLL):
        last = first + tokens - 1 - done
        if FINAL:
            if done % TILE == 0:
                tl.store(adjoint + (bk * tiles + last // TILE) * (N * D) + nd, g, mask=nd_mask)
        deltas, dys, Cs = (), (), ()
        for i in tl.static_range(UNROLL):
            valid = last - i < L
            place = _place(last - i, k, H, W).to(tl.int64)
            token = x_dbl + place * (4 * S)
            deltas += (_delta(token, weight, bias, R, R_PAD, valid),)
            dys += (tl.load(dy + place * D, mask=d < tl.where(valid, D, 0), other=0.0).to(tl.float32),)
            Cs += (tl.load(token + R + N + n, mask=n < tl.where(valid, N, 0), other=0.0).to(tl.float32),)
        for i in tl.static_range(UNROLL):
            g = tl.exp2(decay_rate * deltas[i][None, :]) * (g + Cs[i][:, None] * dys[i][None, :])
            if FINAL:
                place = _place(last - i, k, H, W).to(tl.int64)
                tl.store(delta_out + place * D, deltas[i], mask=d < tl.where(last - i < L, D, 0))
            else:
                total += deltas[i]
    if not FINAL:
        tl.store(chunk_states + in_chunk * N + nd, g, mask=nd_mask)
        tl.store(chunk_deltas + in_chunk + d, total, mask=d < D)


@_kernel
def _carry_kernel(
    chunk_states,  # (B, K, chunks, N, D): each chunk's result from zero; becomes the state that enters it
    chunk_deltas,  # (B, K, chunks, D)
    A_logs,  # (K * D, N)
    chunks,
    D: tl.constexpr, N: tl.constexpr, REVERSED: tl.constexpr, BLOCK_D: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Go over the chunks, for one state of a block of channels: state = decay of the chunk * state + its own result."""
    n, bk = tl.program_id(0), tl.program_id(2)
    d = _channels(tl.program_id(1), BLOCK_D)
    A_log = tl.load(A_logs + (bk % 4 * D + d) * N + n, mask=d < D, other=float("-inf")).to(tl.float32)
    decay_rate = -LOG2_E * tl.exp(A_log)
    row = bk.to(tl.int64) * chunks
    state = tl.zeros((BLOCK_D,), tl.float32)
    for c0 in range(0, chunks, UNROLL):
        results, deltas = (), ()
        for i in tl.static_range(UNROLL):
            c = chunks - 1 - (c0 + i) if REVERSED else c0 + i
            mask = d < tl.where(c0 + i < chunks, D, 0)
            results += (tl.load(chunk_states + ((row + c) * N + n) * D + d, mask=mask, other=0.0),)
            deltas += (tl.load(chunk_deltas + (row + c) * D + d, mask=mask, other=0.0),)
        for i in tl.static_range(UNROLL):
            c = chunks - 1 - (c0 + i) if REVERSED else c0 + i
            tl.store(chunk_states + ((row + c) * N + n) * D + d, state, mask=d < tl.where(c0 + i < chunks, D, 0))
            state = tl.exp2(decay_rate * deltas[i]) * state + results[i]


@_kernel
def _gradient_kernel(
    x, dy,  # (B, L, D)
    x_dbl,  # (B, L, K, S)
    A_logs,  # (K * D, N)
    Ds,  # (K, D)
    kept,  # (B, K, tiles, N, D)
    delta,  # (K, B, L, D); becomes the gradient before softplus
    adjoint,  # (B, K, tiles, N, D); becomes each tile's part of the gradient of A_logs
    dx,  # (K, B, L, D)
    dBC,  # (blocks, B, L, K, 2N), of each block of channels
    B, H, W, L,
    D: tl.constexpr, N: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
    STATES: tl.constexpr,
):  # fmt: skip
    """Gradients of one tile of one direction for one block of channels, STATES states at a time."""
    tile, block, b, k = tl.program_id(0), tl.program_id(1), tl.program_id(2) // 4, tl.program_id(2) % 4
    d, rows = _channels(block, BLOCK_D), tl.arange(0, TILE)
    S: tl.constexpr = R + 2 * N
    bk, image = (b * 4 + k).to(tl.int64), (k.to(tl.int64) * B + b) * L * D
    in_tile = (bk * tl.num_programs(0) + tile) * (N * D)
    x += b.to(tl.int64) * L * D
    dy += b.to(tl.int64) * L * D
    x_dbl += b.to(tl.int64) * L * (4 * S) + k * S
    dBC += (block.to(tl.int64) * B + b) * L * (8 * N) + k * (2 * N)
    delta += image
    dx += image
    first = tile * TILE
    dx_tile = tl.zeros((TILE, BLOCK_D), tl.float32)
    d_delta = tl.zeros((TILE, BLOCK_D), tl.float32)
    for n0 in range(0, N, STATES):
        n = n0 + tl.arange(0, STATES)
        nd = tl.multiple_of(n[:, None] * D + d[None, :], (1, 1))
        nd_mask = (n < N)[:, None] & (d < D)[None, :]
        decay_rate = _decay_rate(A_logs, k, n, d, D, N)
        state = tl.load(kept + in_tile + nd, mask=nd_mask, other=0.0)
        states = (state,)
        for t in tl.static_range(TILE):
            place, inside = _place(first + t, k, H, W).to(tl.int64), first + t < L
            mask = d < tl.where(inside, D, 0)
            step = tl.load(delta + place * D + d, mask=mask, other=0.0)
            xt = tl.load(x + place * D + d, mask=mask, other=0.0).to(tl.float32)
            Bt = tl.load(x_dbl + place * (4 * S) + R + n, mask=n < tl.where(inside, N, 0), other=0.0).to(tl.float32)
            state = tl.exp2(decay_rate * step[None, :]) * state + Bt[:, None] * (step * xt)[None, :]
            states += (state,)
        g = tl.load(adjoint + in_tile + nd, mask=nd_mask, other=0.0)
        dA = tl.zeros((STATES, BLOCK_D), tl.float32)
        for i in tl.static_range(TILE - 1, -1, -1):
            place, inside = _place(first + i, k, H, W).to(tl.int64), first + i < L
            mask = d < tl.where(inside, D, 0)
            step = tl.load(delta + place * D + d, mask=mask, other=0.0)
            xt = tl.load(x + place * D + d, mask=mask, other=0.0).to(tl.float32)
            dyt = tl.load(dy + place * D + d, mask=mask, other=0.0).to(tl.float32)
            mask = n < tl.where(inside, N, 0)
            token = x_dbl + place * (4 * S) + R + n
            Bt = tl.load(token, mask=mask, other=0.0).to(tl.float32)
            Ct = tl.load(token + N, mask=mask, other=0.0).to(tl.float32)
            g += Ct[:, None] * dyt[None, :]
            out = dBC + place * (8 * N) + n
            tl.store(out, tl.sum(g * (step * xt)[None, :], 1), mask=mask)
            tl.store(out + N, tl.sum(states[i + 1] * dyt[None, :], 1), mask=mask)
            du = tl.sum(g * Bt[:, None], 0)  # u = delta x
            g *= tl.exp2(decay_rate * step[None, :])
            d_exponent = g * states[i]  # of delta A
            dA += d_exponent * step[None, :]
            d_step = du * xt + LN_2 * tl.sum(d_exponent * decay_rate, 0)
            here = (rows == i)[:, None]
            dx_tile = tl.where(here, dx_tile + (du * step)[None, :], dx_tile)
            d_delta = tl.where(here, d_delta + d_step[None, :], d_delta)
        tl.store(adjoint + in_tile + nd, dA * decay_rate * LN_2, mask=nd_mask)
    skip = tl.load(Ds + k * D + d, mask=d < D, other=0.0).to(tl.float32)
    places = _place(first + rows, k, H, W).to(tl.int64)
    td = tl.multiple_of(places[:, None] * D + d[None, :], (1, 1))
    mask = (first + rows < L)[:, None] & (d < D)[None, :]
    tl.store(dx + td, dx_tile + tl.load(dy + td, mask=mask, other=0.0).to(tl.float32) * skip[None, :], mask=mask)
    slope = _softplus_slope(tl.load(delta + td, mask=mask, other=0.0))
    tl.debug_barrier()  # all threads have read delta before any overwrites it
    tl.store(delta + td, d_delta * slope, mask=mask)


# ----------------------------------------------------------------------------------------------------------------------
# Selective scan: what PyTorch calls


def kept_shape(shape: tuple[int, ...], K: int, N: int) -> tuple[int, ...]:
    """Shape of the states kept for the backward pass, for x of `shape` (B, H, W, D)."""
    B, H, W, D = shape
    return (B, K, triton.cdiv(H * W, TILE), N, D)


def gradient_constants(N: int) -> dict[str, int]:
    """The choice of constants of `_gradient_kernel`."""
    return {"BLOCK_D": GRADIENT_BLOCK, "STATES": min(GRADIENT_STATES, triton.next_power_of_2(N))}


def chunk_tokens(B: int, L: int, D: int, device: torch.device) -> int:
    """How many tokens a program takes: all, or fewer so that a card is full of programs even at batch 1."""
    if device.type != "cuda":
        return triton.cdiv(L, TILE) * TILE
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    programs = 4 * B * triton.cdiv(D, 32)
    chunks = triton.cdiv(16 * processors, programs) if programs < 4 * processors else 1
    return triton.cdiv(max(triton.cdiv(L, chunks), 2 * TILE), TILE) * TILE


class _Scan:
    """Sizes, common arguments and launches of one call; a bare class so that forward and backward share them."""

    def __init__(self, x: Tensor, dt_weight: Tensor, A_logs: Tensor, chunk: int | None) -> None:
        self.B, self.H, self.W, self.D = x.shape
        self.K, _, self.R = dt_weight.shape
        self.N, self.L = A_logs.shape[-1], self.H * self.W
        self.device = x.device
        self.chunk = chunk or chunk_tokens(self.B, self.L, self.D, x.device)
        self.chunks = triton.cdiv(self.L, self.chunk)
        self.A_logs = A_logs

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def run(self, kernel: Any, tensors: tuple[Tensor, ...], reversed_order: bool, **constants: Any) -> None:
        """Launch a recurrence, `_scan_kernel` or `_adjoint_kernel`, with two passes before it if there are chunks.

        tensors : its inputs, then its outputs, the chunks' buffers left out: those go after the first `inputs`
        """
        inputs = constants.pop("inputs")

        def grid(meta: dict[str, int]) -> tuple[int, int, int]:
            return self.chunks, triton.cdiv(self.D, meta["BLOCK_D"]), self.B * self.K

        chunked = self.chunks > 1
        shape = (self.B, self.K, self.chunks) if chunked else (0, 0, 0)
        buffers = self.empty(*shape, self.N, self.D), self.empty(*shape, self.D)
        constants |= {
            "D": self.D, "N": self.N, "R": self.R, "N_PAD": triton.next_power_of_2(self.N),
            "R_PAD": triton.next_power_of_2(self.R), "TILE": TILE, "CHUNKED": chunked, **FUSED,
        }  # fmt: skip
        arguments = (
            *tensors[:inputs], *buffers, *tensors[inputs:],
            self.B, self.H, self.W, self.L, self.chunk,
            triton.next_power_of_2(self.chunks * self.B),
        )  # fmt: skip
        if chunked:
            first = constants | ({"KEEP": False} if "KEEP" in constants else {})
            kernel[grid](*arguments, FINAL=False, **first)
            block = min(128, triton.next_power_of_2(self.D))
            _carry_kernel[(self.N, triton.cdiv(self.D, block), self.B * self.K)](
                *buffers, self.A_logs, self.chunks,
                D=self.D, N=self.N, REVERSED=reversed_order, BLOCK_D=block, UNROLL=8, num_warps=block // 32 or 1,
                **FUSED,
            )  # fmt: skip
        kernel[grid](*arguments, FINAL=True, **constants)


def scan_forward(
    x: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    keep: bool,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """See `vmrnn_cli.scan.selective_scan`; also the states before each tile (empty without `keep`).

    Inputs may be of any float types; y is float32. `chunk`: tokens of a chunk, a multiple of TILE; None chooses.
    """
    x, x_dbl, dt_weight, dt_bias, A_logs, Ds = (t.contiguous() for t in (x, x_dbl, dt_weight, dt_bias, A_logs, Ds))
    scan = _Scan(x, dt_weight, A_logs, chunk)
    y = scan.empty(scan.K, *x.shape)
    kept = scan.empty(*(kept_shape(x.shape, scan.K, scan.N) if keep else (0,)))
    scan.run(
        _scan_kernel,
        (x, x_dbl, dt_weight, dt_bias, A_logs, Ds, y, kept),
        inputs=6,
        reversed_order=False,
        KEEP=keep,
    )
    return y.sum(0), kept


def scan_backward(
    dy: Tensor,
    x: Tensor,
    x_dbl: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    kept: Tensor,
    chunk: int | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of the six inputs of `scan_forward`, each in the type of its input."""
    inputs = (x, x_dbl, dt_weight, dt_bias, A_logs, Ds)
    dy, x, x_dbl, dt_weight, dt_bias, A_logs, Ds = (t.contiguous() for t in (dy, *inputs))
    scan = _Scan(x, dt_weight, A_logs, chunk)
    B, K, L, D, N, R = scan.B, scan.K, scan.L, scan.D, scan.N, scan.R
    adjoint, delta = torch.empty_like(kept), scan.empty(K, B, L, D)
    scan.run(_adjoint_kernel, (dy, x_dbl, dt_weight, dt_bias, A_logs, adjoint, delta), inputs=5, reversed_order=True)
    blocks, tiles = triton.cdiv(D, GRADIENT_BLOCK), kept.shape[2]
    dx, dBC = scan.empty(K, B, L, D), scan.empty(blocks, B, L, K, 2 * N)
    _gradient_kernel[(tiles, blocks, B * K)](
        x, dy, x_dbl, A_logs, Ds, kept, delta, adjoint, dx, dBC, B, scan.H, scan.W, L,
        D=D, N=N, R=R, TILE=TILE, num_warps=1, **gradient_constants(N), **FUSED,
    )  # fmt: skip
    d_before = delta.view(K, B * L, D)  # what delta has become
    d_dt_r = torch.bmm(d_before, dt_weight.float()).transpose(0, 1).reshape(B, L, K, R)
    # Image by image, as a long sum of small matrices leaves most of a card idle.
    dt_r = x_dbl[..., :R].view(B, L, K, R).permute(2, 0, 1, 3).reshape(K * B, L, R).float()
    d_weight = torch.bmm(delta.view(K * B, L, D).transpose(1, 2), dt_r).view(K, B, D, R).sum(1)
    gradients = (
        dx.sum(0).view(x.shape),
        torch.cat([d_dt_r, dBC.sum(0)], dim=-1).view(x_dbl.shape),
        d_weight,
        d_before.sum(1),
        adjoint.sum((0, 2)).transpose(1, 2).reshape(K * D, N),  # what the adjoint states have become
        (dy.float() * x).sum((0, 1, 2)).repeat(K),
    )
    return tuple(g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True))


# ----------------------------------------------------------------------------------------------------------------------
# Depthwise 3x3 convolution + SiLU

CONV_TOKENS = 32  # tokens of a program; fixed, so that sums over them do not depend on the tuning


@triton.jit
def _convolve(x, stride, weight, l, d, H, W, D: tl.constexpr, MIRRORED: tl.constexpr):
    """The depthwise convolution at tokens l (TOKENS,) and channels d, with the kernel or its mirror image."""
    row, column = l // W, l % W
    total = tl.zeros((l.shape[0], d.shape[0]), tl.float32)
    for tap in tl.static_range(9):
        i, j = tap // 3 - 1, tap % 3 - 1
        inside = (row + i >= 0) & (row + i < H) & (column + j >= 0) & (column + j < W)
        place = (l + i * W + j).to(tl.int64)
        near = tl.load(x + place[:, None] * stride + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
        w = tl.load(weight + d * 9 + (8 - tap if MIRRORED else tap), mask=d < D, other=0.0).to(tl.float32)
        total += near.to(tl.float32) * w[None, :]
    return total


@_kernel
def _conv_kernel(
    x,  # (B, L, D), tokens `stride` apart
    weight,  # (D, 3, 3)
    bias,  # (D,)
    y,  # (B, L, D)
    H, W, stride,
    D: tl.constexpr, MIRRORED: tl.constexpr, TOKENS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """SiLU of the convolution; with MIRRORED the bare convolution with the mirrored kernel, its adjoint."""
    b, L = tl.program_id(2).to(tl.int64), H * W
    l = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    out = _convolve(x + b * L * stride, stride, weight, l, d, H, W, D, MIRRORED)
    if not MIRRORED:
        out += tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
        out *= tl.sigmoid(out)
    place = (b * L + l)[:, None] * D + d[None, :]
    tl.store(y + place, out.to(y.dtype.element_ty), mask=(l < L)[:, None] & (d < D)[None, :])


@_kernel
def _conv_gradient_kernel(
    x,  # (B, L, D), tokens `stride` apart
    weight,  # (D, 3, 3)
    bias,  # (D,)
    dy,  # (B, L, D)
    before,  # (B, L, D), float32: gradient before SiLU
    d_weights,  # (B * groups, 10, D): each group of tokens' part of the gradients of the 9 taps and the bias
    H, W, stride,
    D: tl.constexpr, TOKENS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients before SiLU, and of the weights."""
    group, b, L = tl.program_id(0), tl.program_id(2).to(tl.int64), H * W
    l = group * TOKENS + tl.arange(0, TOKENS)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = (l < L)[:, None] & (d < D)[None, :]
    x += b * L * stride
    v = _convolve(x, stride, weight, l, d, H, W, D, False)
    v += tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    place = (b * L + l)[:, None] * D + d[None, :]
    s = tl.sigmoid(v)
    g = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32) * s * (1.0 + v * (1.0 - s))
    tl.store(before + place, g, mask=mask)
    out = d_weights + (b * tl.num_programs(0) + group) * (10 * D) + d
    row, column = l // W, l % W
    for tap in tl.static_range(9):
        i, j = tap // 3 - 1, tap % 3 - 1
        inside = (row + i >= 0) & (row + i < H) & (column + j >= 0) & (column + j < W) & (l < L)
        near = (l + i * W + j).to(tl.int64)[:, None] * stride + d[None, :]
        xs = tl.load(x + near, mask=inside[:, None] & (d < D)[None, :], other=0.0).to(tl.float32)
        tl.store(out + tap * D, tl.sum(g * xs, 0), mask=d < D)
    tl.store(out + 9 * D, tl.sum(g, 0), mask=d < D)


def _conv_grid(B: int, L: int, D: int) -> tuple[tuple[int, int, int], dict[str, Any]]:
    block = min(64, triton.next_power_of_2(D))
    grid = (triton.cdiv(L, CONV_TOKENS), triton.cdiv(D, block), B)
    return grid, {"D": D, "TOKENS": CONV_TOKENS, "BLOCK_D": block, "num_warps": 8, **FUSED}


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the depthwise 3x3 convolution of x (B, H, W, D), weight (D, 1, 3, 3), bias (D,), in the type of x."""
    x, stride = token_stride(x)
    weight, bias = weight.contiguous(), bias.contiguous()
    B, H, W, D = x.shape
    y = x.new_empty(B, H, W, D)
    grid, constants = _conv_grid(B, H * W, D)
    _conv_kernel[grid](x, weight, bias, y, H, W, stride, MIRRORED=False, **constants)
    return y


def conv_backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the inputs of `conv_forward`, each in the type of its input."""
    x, stride = token_stride(x)
    dy, weight, bias = dy.contiguous(), weight.contiguous(), bias.contiguous()
    B, H, W, D = x.shape
    grid, constants = _conv_grid(B, H * W, D)
    before = x.new_empty((B, H, W, D), dtype=torch.float32)
    d_weights = x.new_empty((B * grid[0], 10, D), dtype=torch.float32)
    _conv_gradient_kernel[grid](x, weight, bias, dy, before, d_weights, H, W, stride, **constants)
    dx = x.new_empty(B, H, W, D)
    _conv_kernel[grid](before, weight, bias, dx, H, W, D, MIRRORED=True, **constants)
    d_taps = d_weights[:, :9].sum(0).t().reshape(weight.shape)
    return dx, d_taps.to(weight.dtype), d_weights[:, 9].sum(0).to(bias.dtype)


# ----------------------------------------------------------------------------------------------------------------------
# LayerNorm + gate: LayerNorm(y) * SiLU(z)

GATE_ROWS = 16  # tokens that one program of the backward pass takes, one after the other; fixed like CONV_TOKENS


@triton.jit
def _normalise(y, eps, d, D: tl.constexpr):
    """(y - mean) / deviation of one token, and 1 / deviation; 0 beyond D."""
    mean = tl.sum(y, 0) / D
    centred = tl.where(d < D, y - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / D + eps)
    return centred * scale, scale


@triton.jit
def _gate_kernel(y, z, weight, bias, out, stride, eps, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """One token; y and out (rows, D), z (rows, D) with rows `stride` apart."""
    row, d = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK_D)
    n, _ = _normalise(tl.load(y + row * D + d, mask=d < D, other=0.0).to(tl.float32), eps, d, D)
    zs = tl.load(z + row * stride + d, mask=d < D, other=0.0).to(tl.float32)
    w = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    normed = n * w + tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)
    tl.store(out + row * D + d, (normed * zs * tl.sigmoid(zs)).to(out.dtype.element_ty), mask=d < D)


@_kernel
def _gate_gradient_kernel(
    d_out, y, z, weight, bias, dy, dz,
    d_weights,  # (programs, 2, D): each program's part of the gradients of weight and bias
    rows, stride, eps,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS tokens. With n = LayerNorm(y) before its weights and e = d_out silu(z) weight:
    dy = scale (e - mean(e) - n mean(e n)).
    """
    d = tl.arange(0, BLOCK_D)
    w = tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
    shift = tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)
    d_weight, d_bias = tl.zeros((BLOCK_D,), tl.float32), tl.zeros((BLOCK_D,), tl.float32)
    first = tl.program_id(0) * ROWS
    for r in range(first, tl.minimum(first + ROWS, rows)):
        row = tl.cast(r, tl.int64)
        n, scale = _normalise(tl.load(y + row * D + d, mask=d < D, other=0.0).to(tl.float32), eps, d, D)
        zs = tl.load(z + row * stride + d, mask=d < D, other=0.0).to(tl.float32)
        g = tl.load(d_out + row * D + d, mask=d < D, other=0.0).to(tl.float32)
        s = tl.sigmoid(zs)
        gn = g * zs * s
        e = gn * w
        d_weight += gn * n
        d_bias += gn
        d_normed = scale * (e - tl.sum(e, 0) / D - n * (tl.sum(e * n, 0) / D))
        tl.store(dy + row * D + d, d_normed.to(dy.dtype.element_ty), mask=d < D)
        d_gate = g * (n * w + shift) * s * (1.0 + zs * (1.0 - s))
        tl.store(dz + row * D + d, d_gate.to(dz.dtype.element_ty), mask=d < D)
    out = d_weights + tl.program_id(0).to(tl.int64) * (2 * D) + d
    tl.store(out, d_weight, mask=d < D)
    tl.store(out + D, d_bias, mask=d < D)


def _gate_constants(D: int) -> dict[str, Any]:
    block = triton.next_power_of_2(D)
    return {"D": D, "BLOCK_D": block, "num_warps": min(8, max(1, block // 256)), **FUSED}


def gate_forward(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm(y) * SiLU(z), both (B, H, W, D), in the type of z."""
    z, stride = token_stride(z)
    y, weight, bias = y.contiguous(), weight.contiguous(), bias.contiguous()
    out = z.new_empty(z.shape)
    D = y.shape[-1]
    _gate_kernel[(y.numel() // D,)](y, z, weight, bias, out, stride, eps, **_gate_constants(D))
    return out


def gate_backward(
    d_out: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs of `gate_forward`, each in the type of its input."""
    z, stride = token_stride(z)
    d_out, y, weight, bias = d_out.contiguous(), y.contiguous(), weight.contiguous(), bias.contiguous()
    D = y.shape[-1]
    rows = y.numel() // D
    programs = triton.cdiv(rows, GATE_ROWS)
    dy, dz = torch.empty_like(y), z.new_empty(z.shape)
    d_weights = y.new_empty((programs, 2, D), dtype=torch.float32)
    _gate_gradient_kernel[(programs,)](
        d_out, y, z, weight, bias, dy, dz, d_weights, rows, stride, eps, ROWS=GATE_ROWS, **_gate_constants(D)
    )
    return dy, dz, d_weights[:, 0].sum(0).to(weight.dtype), d_weights[:, 1].sum(0).to(bias.dtype)
