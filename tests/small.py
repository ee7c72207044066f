"""Four small networks that differ in all that a checkpoint shows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vmrnn_cli.model import VMRNN, VMRNNConfig

B = VMRNNConfig(embed_dim=16, depths=(3,), context=4, horizon=3, image_size=(8, 16))
B4 = dataclasses.replace(B, patch_size=4, image_channels=2, d_state=8)
D = VMRNNConfig(variant="D", embed_dim=16, depths=(1, 2), depths_up=(3, 1))
D4 = dataclasses.replace(D, patch_size=4)
CONFIGS = pytest.mark.parametrize("config", [B, B4, D, D4], ids=["B", "B4", "D", "D4"])


def network(config, seed=0):
    torch.manual_seed(seed)
    return VMRNN(config)


def same(a, b):
    """Whether two networks have the same tensors, by name."""
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(t, theirs[name]) for name, t in ours.items())
