"""How much a step computes: multiply-accumulates as the paper counts them, and floating-point operations as they are.

PyTorch counts, as a network without numbers takes a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .config import NetworkConfig
from .model import VMRNN
from .networks import build
from .scan import formulas as formulas  # so that who imports this counts all with PyTorch's counter, too


def published_macs_per_step(config: NetworkConfig, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one step for a frame of `size` (H, W), as the paper counts.

    Convolutions (a transposed one over its input grid), linear layers and einsums; the scan, norms and elementwise work
    are left out. 127,401,984 for the published TaxiBJ configuration.
    """
    return _counted(config, size, {torch.ops.vmrnn.selective_scan: _einsum_of_dt}) // 2


def flops_per_step(config: NetworkConfig, size: tuple[int, int]) -> int:
    """Floating-point operations of one step for a frame of `size` (H, W): two per multiply-accumulate, and the scan.

    Of a network that carries the picture on, what it decides with: the search for motion and the drawing are left out.
    """
    return _counted(config, size)


def _counted(
    config: NetworkConfig, size: tuple[int, int], otherwise: dict[Any, Callable[..., int]] | None = None
) -> int:  # fmt: skip
    with torch.device("meta"):  # shapes only: nothing is computed
        model = build(config).eval()
        frame = torch.empty(1, config.image_channels, *size)
    model.scan_backend = "torch"
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=otherwise) as counter:
        if isinstance(model, VMRNN):
            model(frame)
        else:  # evidence is on half the grid
            channels = model.patch_embedding.proj.in_channels
            model.decide_on(frame.new_empty(1, 1, channels, *(-(-side // 2) for side in size)), None)
    return counter.get_total_flops()


def _einsum_of_dt(x: tuple, x_dbl: tuple, dt_weight: tuple, *_: Any, **__: Any) -> int:
    """What the paper counts of a scan: x (B, h, w, D), the weight (K, D, R)."""
    B, h, w, D = x
    K, _, R = dt_weight
    return 2 * B * h * w * D * K * R
