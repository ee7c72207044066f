"""Counts of operations: the published ones, and PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vmrnn_cli.flops import flops_per_step, published_macs_per_step
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.motion_network import MotionVMRNN
from vmrnn_cli.networks import NETWORKS
from vmrnn_cli.published import published_parameters
from vmrnn_cli.scan import native


def test_published_macs_of_taxibj():
    assert published_macs_per_step(NETWORKS["vmrnn-b-taxibj"], (32, 32)) == 127_401_984


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vmrnn-d-mmnist", 15_267_201), ("vmrnn-b-kth", 1_214_721), ("vmrnn-b-taxibj", 2_579_970)],
)
def test_published_parameters(name, parameters):
    assert published_parameters(VMRNN(NETWORKS[name])) == parameters


def test_flops_of_what_decides_on_motion_are_what_pytorch_counts():
    config = NETWORKS["vmrnn-d-motion"]
    with torch.device("meta"):
        model, evidence = MotionVMRNN(config).eval(), torch.empty(1, 1, 37, *(side // 2 for side in config.image_size))
    model.scan_backend = "torch"
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.decide_on(evidence, None)
    assert flops_per_step(config, config.image_size) == counter.get_total_flops()


@pytest.mark.parametrize("name", [name for name, config in NETWORKS.items() if isinstance(config, VMRNNConfig)])
def test_flops_of_the_presets_are_what_pytorch_counts(name):
    config = NETWORKS[name]
    with torch.device("meta"):  # shapes only: nothing is computed
        model, frame = VMRNN(config).eval(), torch.empty(1, config.image_channels, *config.image_size)
    model.scan_backend = "torch"
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(frame)
    assert flops_per_step(config, config.image_size) == counter.get_total_flops()


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("native", marks=pytest.mark.skipif(bool(native.why_unavailable()), reason="no native scan")),
        "torch",
    ],
)
@pytest.mark.parametrize(
    ("config", "size"),
    [
        (VMRNNConfig(embed_dim=16, depths=(2,)), (16, 16)),
        (VMRNNConfig(embed_dim=32, depths=(1,), patch_size=4, image_channels=3), (13, 18)),
        (VMRNNConfig(variant="D", embed_dim=16, depths=(1, 2), depths_up=(2, 1)), (17, 32)),
    ],
    ids=["B", "B4 padded", "D padded"],
)
def test_flops_are_what_pytorch_counts(config, size, backend):
    model = VMRNN(config).eval()
    model.scan_backend = backend
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, config.image_channels, *size))
    assert flops_per_step(config, size) == counter.get_total_flops()
