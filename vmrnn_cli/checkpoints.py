"""Weights on disk: our folders (config.json + model.safetensors) and the checkpoints that were published with VMRNN.

Published checkpoints come in two layouts, that of the Moving MNIST code and that of the OpenSTL-style code, bare or
inside a training dictionary, with or without the `module.` prefix of DistributedDataParallel. They hold no
configuration: it is inferred from the names and shapes. Tensors that the published networks hold but never use are
dropped by name.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import InputError
from .model import VMRNN, VMRNNConfig

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"

# ----------------------------------------------------------------------------------------------------------------------
# Published names

_BLOCK_PARTS = {"ln_1": "norm", "self_attention": "ss2d", "linear": "mix"}
_RENAMES: tuple[tuple[str, str], ...] = (
    # pattern of a published name -> ours
    (r"(?:ST|Downsample)\.patch_embed\.(.+)", r"patch_embedding.\1"),
    (r"ST\.layers?(?:\.0)?\.VSBs\.(\d+)\.(ln_1|self_attention|linear)\.(.+)", r"down.0.blocks.\1.{\2}.\3"),
    (r"Downsample\.layers\.(\d+)\.VSBs\.(\d+)\.(ln_1|self_attention|linear)\.(.+)", r"down.\1.blocks.\2.{\3}.\4"),
    (r"Upsample\.layers\.(\d+)\.VSBs\.(\d+)\.(ln_1|self_attention|linear)\.(.+)", r"up.\1.blocks.\2.{\3}.\4"),
    (r"Downsample\.downsample\.(\d+)\.(norm|reduction)\.(.+)", r"merging.\1.\2.\3"),
    (r"Upsample\.upsample\.(\d+)\.(norm|expand)\.(.+)", r"expanding.\1.\2.\3"),
    (r"(?:ST\.patch_inflated|Upsample\.Unembed)\.Conv\.(.+)", r"reconstruction.final.\1"),
    (r"(?:ST\.patch_inflated|Upsample\.Unembed)\.Conv_\.(.+)", r"reconstruction.inflate.\1"),
)
_UNUSED = (
    r"Upsample\.patch_embed\..+",  # a second patch embedding that nothing calls
    r".+\.VSBs\.[1-9]\d*\.linear\..+",  # the mixing layer, built in every block and used in the first
)


def our_name(published: str) -> str | None:
    """Our name of a published tensor, or None for one that nothing uses.

    Raises:
        KeyError: the name belongs to no published layout.
    """
    if any(re.fullmatch(pattern, published) for pattern in _UNUSED):
        return None
    for pattern, ours in _RENAMES:
        match = re.fullmatch(pattern, published)
        if match:
            return re.sub(r"\{(\w+)\}", lambda part: _BLOCK_PARTS[part[1]], match.expand(ours))
    raise KeyError(published)


def infer_config(tensors: Mapping[str, Tensor]) -> VMRNNConfig:
    """The configuration of a network from its tensors, under our names. `image_size` cannot be seen and stays 64x64."""
    embed_dim, channels, patch_size, _ = tensors["patch_embedding.proj.weight"].shape
    d_state = tensors["down.0.blocks.0.ss2d.A_logs"].shape[1]
    depths, depths_up = (_depths(tensors, path) for path in ("down", "up"))
    published = next((p for p in PRESETS.values() if p.depths == depths and p.patch_size == patch_size), VMRNNConfig())
    return VMRNNConfig(
        variant="D" if depths_up else "B",
        image_channels=channels,
        image_size=published.image_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depths=depths,
        depths_up=depths_up[::-1],
        d_state=d_state,
        context=published.context,
        horizon=published.horizon,
    )


def _depths(names: Iterable[str], path: str) -> tuple[int, ...]:
    """Blocks per cell of the down or up path."""
    found = {match.groups() for name in names if (match := re.match(rf"{path}\.(\d+)\.blocks\.(\d+)\.", name))}
    cells = sorted({int(cell) for cell, _ in found})
    return tuple(sum(cell == int(c) for c, _ in found) for cell in cells)


PRESETS = {
    "vmrnn-d-mmnist": VMRNNConfig("D", 1, (64, 64), 2, 128, (2, 6), (6, 2), context=10, horizon=10),
    "vmrnn-b-kth": VMRNNConfig("B", 1, (128, 128), 2, 128, (6,), context=10, horizon=20),
    "vmrnn-b-taxibj": VMRNNConfig("B", 2, (32, 32), 4, 128, (12,), context=4, horizon=4),
    "tiny": VMRNNConfig("B", 1, (64, 64), 2, 32, (2,), context=10, horizon=10),
}
