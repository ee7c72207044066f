"""How much a step computes: multiply-accumulates as the paper counts them, and floating-point operations as they are.

Notation: h x w grid of tokens, L = h*w, E embedding width, D = 2E inner width, N states, R rank of dt, K = 4
directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from .config import MotionConfig, NetworkConfig, VMRNNConfig
from .scan import formulas as formulas  # so that who imports this counts all with PyTorch's counter, too
from .scan.operators import scan_flops

K = 4
EVIDENCE, DECISIONS = 25, 35  # channels, as `motion_network` has them


def published_macs_per_step(config: NetworkConfig, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one step for a frame of `size` (H, W), as the paper counts.

    Convolutions (a transposed one over its input grid), linear layers and einsums; the scan, norms and elementwise work
    are left out. 127,401,984 for the published TaxiBJ configuration.
    """
    return sum(_block_macs(L, E, config.d_state) * depth + 2 * E * E * L for L, E, depth in _cells(config, size)) + (
        _motion_rest(config, size) if isinstance(config, MotionConfig) else _rest(config, size)
    )


def flops_per_step(config: NetworkConfig, size: tuple[int, int]) -> int:
    """Floating-point operations of one step for a frame of `size` (H, W): two per multiply-accumulate, and the scan.

    Of a network that carries the picture on, what it decides with: the search for motion and the drawing are left out.
    """
    scans = sum(
        depth * (scan_flops(1, L, 2 * E, config.d_state, _rank(E)) - 2 * K * L * 2 * E * _rank(E))
        for L, E, depth in _cells(config, size)
    )  # dt's einsum is part of the scan here, and counted by the paper too
    return 2 * published_macs_per_step(config, size) + scans


def _rank(E: int) -> int:
    return math.ceil(E / 16)


def _grid(config: NetworkConfig, size: tuple[int, int]) -> tuple[int, int]:
    """Tokens down and across, padding included."""
    H, W = (math.ceil(side / config.multiple) * config.multiple for side in size)
    return H // config.patch_size, W // config.patch_size


def _cells(config: NetworkConfig, size: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """L, E and depth of every cell."""
    h, w = _grid(config, size)
    if isinstance(config, MotionConfig):
        yield h * w, config.embed_dim, config.depths[0]
        yield h * w // 4, 2 * config.embed_dim, config.depths[1]
        return
    for level, depth in enumerate(config.depths):
        yield h * w // 4**level, config.embed_dim * 2**level, depth
    for level, depth in enumerate(config.depths_up):  # the last entry is the coarsest cell
        yield h * w // 4 ** (level + 1), config.embed_dim * 2 ** (level + 1), depth


def _block_macs(L: int, E: int, N: int) -> int:
    """One VSS block: in_proj, depthwise convolution, x_proj, dt_proj and out_proj."""
    D, R = 2 * E, _rank(E)
    return L * (E * 2 * D + 9 * D + K * D * (R + 2 * N) + K * D * R + D * E)


def _rest(config: VMRNNConfig, size: tuple[int, int]) -> int:
    """Patch embedding, merging, expanding and reconstruction."""
    h, w = _grid(config, size)
    L, E, C, p = h * w, config.embed_dim, config.image_channels, config.patch_size
    macs = L * E * C * p * p
    if config.variant == "D":
        for level in range(len(config.depths)):
            below, width = L // 4 ** (level + 1), E * 2**level
            macs += below * 4 * width * 2 * width  # merging
            macs += below * 2 * width * 4 * width  # expanding
    if p == 4:
        macs += L * E * E * 9
        L *= 4
    return macs + L * E * C * 9


def _motion_rest(config: MotionConfig, size: tuple[int, int]) -> int:
    """Of a network over the evidence of motion: patch embedding, merging, expanding, detail and decoder."""
    h, w = _grid(config, size)
    L, E, width = h * w, config.embed_dim, config.decoder_dim
    cells = L * E * EVIDENCE * 16 + 2 * (L // 4) * 4 * E * 2 * E
    convolutions = EVIDENCE * 4 * config.detail_dim + (2 * E + config.detail_dim) * 9 * width + width * 9 * width
    return cells + 4 * L * (convolutions + width * DECISIONS)
