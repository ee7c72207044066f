"""FLOP formulas of the operators, for PyTorch's `FlopCounterMode`; the gate is elementwise and has none.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states, R rank of dt.
A module of its own because PyTorch's counter imports Triton, which takes longer than all of ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from .operators import scan_flops


@register_flop_formula(torch.ops.vmrnn.selective_scan)
def _(x: tuple, x_dbl: tuple, dt_weight: tuple, dt_bias: tuple, A_logs: tuple, *_: Any, **__: Any) -> int:
    B, H, W, D = x
    return scan_flops(B, H * W, D, A_logs[-1], dt_weight[-1], dt_weight[0])


@register_flop_formula(torch.ops.vmrnn.selective_scan_backward)
def _(dy: tuple, x: tuple, x_dbl: tuple, dt_weight: tuple, dt_bias: tuple, A_logs: tuple, *_: Any, **__: Any) -> int:
    B, H, W, D = x
    return 2 * scan_flops(B, H * W, D, A_logs[-1], dt_weight[-1], dt_weight[0])


@register_flop_formula(torch.ops.vmrnn.conv_silu)
def _(x: tuple, *_: Any, **__: Any) -> int:
    B, H, W, D = x
    return 2 * 9 * B * H * W * D


@register_flop_formula(torch.ops.vmrnn.conv_silu_backward)
def _(dy: tuple, *_: Any, **__: Any) -> int:
    B, H, W, D = dy
    return 2 * 2 * 9 * B * H * W * D
