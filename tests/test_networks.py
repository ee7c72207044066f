"""Networks by name and by architecture."""

from __future__ import annotations

import dataclasses
import json
import sys
import types

import pytest
import torch

import vmrnn_cli
from vmrnn_cli import model, networks
from vmrnn_cli.config import VMRNNConfig
from vmrnn_cli.errors import InputError
from vmrnn_cli.model import VMRNN
from vmrnn_cli.networks import CONFIG_NAME, NETWORKS
from vmrnn_cli.pretrained import load_model, save_model

SMALL = VMRNNConfig(embed_dim=16, depths=(1,))


@dataclasses.dataclass(frozen=True)
class OtherConfig(VMRNNConfig):
    shift: int = 1


class Other(VMRNN):
    pass


@pytest.fixture
def other(monkeypatch):
    """A second architecture: a line of the table, and a module."""
    module = types.ModuleType("vmrnn_cli.other")
    module.Other = Other
    monkeypatch.setitem(sys.modules, "vmrnn_cli.other", module)
    monkeypatch.setitem(networks.ARCHITECTURES, "Other", (OtherConfig, "other"))


def test_configurations_survive_json():
    for config in NETWORKS.values():
        saved = json.loads(json.dumps(networks.config_to_dict(config)))
        assert saved["architecture"] in networks.ARCHITECTURES
        assert networks.config_from_dict(saved) == config
    assert model.VMRNNConfig is vmrnn_cli.VMRNNConfig is VMRNNConfig


def test_what_earlier_versions_wrote_is_read(tmp_path):
    """They named `residual` and `shrink`, which no network has any more."""
    saved = networks.config_to_dict(SMALL)
    old = {**saved, "residual": False, "shrink": 0.0}
    assert networks.config_from_dict(old) == SMALL
    assert networks.config_to_dict(networks.config_from_dict(old)) == saved
    (tmp_path / CONFIG_NAME).write_text(json.dumps({**old, "residual": True}))
    with pytest.raises(InputError, match=r"config\.json .* residual must be False, got True"):
        networks.read_config(tmp_path / CONFIG_NAME)
    with pytest.raises(ValueError, match=r"shrink must be 0\.0, got 0\.01"):
        networks.config_from_dict({**old, "shrink": 0.01})


def test_a_second_architecture_is_saved_and_loaded_as_what_it_is(other, tmp_path):
    config = OtherConfig(embed_dim=16, depths=(1,), shift=3)
    torch.manual_seed(0)
    saved = networks.build(config)
    save_model(saved, tmp_path, half=False)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded = load_model(path)
        assert (type(loaded), loaded.config) == (Other, config)
        assert all(torch.equal(p, q) for p, q in zip(saved.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(InputError, match="is of a Other, not of a VMRNN"):
        vmrnn_cli.VMRNN.from_pretrained(tmp_path)
    text = (tmp_path / CONFIG_NAME).read_text()
    (tmp_path / CONFIG_NAME).write_text(text.replace("Other", "VMRNN"))
    with pytest.raises(InputError, match="shift"):  # which a VMRNN has not
        load_model(tmp_path)


def test_one_network_is_built_of_what_is_loaded(tmp_path, monkeypatch):
    save_model(VMRNN(SMALL), tmp_path)
    built = []
    build = VMRNN.__init__
    monkeypatch.setattr(VMRNN, "__init__", lambda self, config: built.append(type(self)) or build(self, config))
    loaded = vmrnn_cli.VMRNN.from_pretrained(tmp_path)
    assert built == [type(loaded)] == [vmrnn_cli.VMRNN]
    assert not loaded.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.parameters())
