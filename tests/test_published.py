"""The names and layouts of the published code, there and back."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small import CONFIGS, B, network

from vmrnn_cli.model import VMRNN
from vmrnn_cli.networks import NETWORKS
from vmrnn_cli.published import infer_config, our_name, published_name, published_parameters, to_published


@pytest.mark.parametrize("name", ["vmrnn-d-mmnist", "vmrnn-b-kth", "vmrnn-b-taxibj"])
def test_published_configurations_are_recognised(name):
    config = NETWORKS[name]
    with torch.device("meta"):
        shapes = dict(VMRNN(config).state_dict())
    inferred = infer_config(shapes)
    # Frame size, context and horizon cannot be seen, and are taken from the published configuration they fit; nor can
    # the rate of dropped paths, which plays no part in a forecast.
    assert inferred == dataclasses.replace(config, drop_path=0.0)


@CONFIGS
def test_names_go_both_ways(config):
    for name in network(config).state_dict():
        assert our_name(published_name(name, config.variant)) == name


@pytest.mark.parametrize("name", ["vmrnn_b_patch2", "vmrnn_b_patch4", "vmrnn_d"])
def test_the_published_state_dict_is_that_of_the_published_code(golden, name):
    published = golden(name).params
    ours = {ours: tensor for theirs, tensor in published.items() if (ours := our_name(theirs)) is not None}
    model = VMRNN(infer_config(ours))
    model.load_state_dict(ours)
    written = min(
        (to_published(model, layout) for layout in ("mnist", "openstl")), key=lambda s: len(set(s) ^ set(published))
    )
    assert {theirs: t.shape for theirs, t in written.items()} == {theirs: t.shape for theirs, t in published.items()}
    for theirs, tensor in written.items():
        expected = published[theirs] if our_name(theirs) is not None else torch.zeros_like(tensor)
        assert torch.equal(tensor, expected), theirs


@CONFIGS
def test_what_the_published_code_never_uses_is_zeros(config):
    model = network(config)
    state = to_published(model)
    assert sum(tensor.numel() for tensor in state.values()) == published_parameters(model)
    assert not any(tensor.any() for name, tensor in state.items() if our_name(name) is None)


@pytest.mark.parametrize("layout", ["mnist", "openstl"])
def test_layouts_differ_where_the_published_codes_do(layout):
    names = to_published(network(B), layout)
    assert any(name.startswith("ST.layers.0.VSBs.") for name in names) == (layout == "mnist")
    assert any(name.startswith("ST.layer.VSBs.") for name in names) == (layout == "openstl")
