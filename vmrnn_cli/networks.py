"""The networks there are: their architectures, the configurations with names, and configurations as JSON.

Nothing here imports PyTorch but `network_class` and `build`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import MotionConfig, NetworkConfig, VMRNNConfig
from .errors import InputError

if TYPE_CHECKING:
    from .model import VMRNN
    from .motion_network import MotionVMRNN

    Network = VMRNN | MotionVMRNN

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"  # of a weights folder, here and on the Hub
FILE_SUFFIXES = (".safetensors", ".pth", ".pt")  # of weights in a file
_DROPPED = {"residual": False, "shrink": 0.0}  # settings of earlier versions, as networks without them had them
_WRITTEN_BY_US = "give a weights folder that `vmrnn` wrote"

# Of each architecture: the class of its configurations, and the module here that has its network, by the same name.
ARCHITECTURES: dict[str, tuple[type[NetworkConfig], str]] = {
    "VMRNN": (VMRNNConfig, "model"),
    "MotionVMRNN": (MotionConfig, "motion_network"),
}

# The published configurations, ours for small budgets, and one for trying things.
NETWORKS: dict[str, NetworkConfig] = {
    "vmrnn-d-mmnist": VMRNNConfig("D", 1, (64, 64), 2, 128, (2, 6), (6, 2), drop_path=0.1, context=10, horizon=10),
    "vmrnn-b-kth": VMRNNConfig("B", 1, (128, 128), 2, 128, (6,), drop_path=0.1, context=10, horizon=20),
    "vmrnn-b-taxibj": VMRNNConfig("B", 2, (32, 32), 4, 128, (12,), drop_path=0.1, context=4, horizon=4),
    "vmrnn-b-mmnist": VMRNNConfig("B", 1, (64, 64), 4, 64, (4,), context=10, horizon=10),  # ours, for two CPU cores
    "vmrnn-d-mmnist-small": VMRNNConfig(  # ours; with 4 states instead of 16, scans take less than half the time
        "D", 1, (64, 64), 4, 64, (1,), (4,), d_state=4, context=10, horizon=10
    ),
    "vmrnn-d-motion": MotionConfig(),  # ours
    "vmrnn-d-radar": MotionConfig((160, 160), horizon=12),  # ours, the same for rain
    "vmrnn-b-bikenyc": VMRNNConfig("B", 2, (16, 8), 2, 64, (4,), context=4, horizon=4),  # ours
    "tiny": VMRNNConfig("B", 1, (64, 64), 2, 32, (2,), context=10, horizon=10),
}


def network_class(config: NetworkConfig) -> type[Network]:
    """The class of the networks with such a configuration."""
    name = _architecture(config)
    return getattr(importlib.import_module(f".{ARCHITECTURES[name][1]}", __package__), name)


def build(config: NetworkConfig) -> Network:
    """An untrained network."""
    return network_class(config)(config)  # type: ignore[arg-type]


def adapted(config: NetworkConfig, **settings: Any) -> NetworkConfig:
    """The configuration with other settings, as far as it has them: some networks take any number of channels."""
    known = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{name: value for name, value in settings.items() if name in known})


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """A configuration and its architecture, as they are saved with weights and runs."""
    return {"architecture": _architecture(config), **dataclasses.asdict(config)}


def config_from_dict(values: Any) -> NetworkConfig:
    """The inverse of `config_to_dict`, of what anybody may have written.

    Raises:
        TypeError, ValueError: it is not the configuration of a network of ours.
    """
    if not isinstance(values, dict) or values.get("architecture") not in tuple(ARCHITECTURES):
        raise ValueError(f"its architecture is not {' or '.join(ARCHITECTURES)}")
    config, _ = ARCHITECTURES[values["architecture"]]
    settings = {name: value for name, value in values.items() if name != "architecture"}
    for name, usual in _DROPPED.items():
        if settings.pop(name, usual) != usual:
            raise ValueError(f"{name} must be {usual!r}, got {values[name]!r}: only an earlier version knows others")
    for field in dataclasses.fields(config):
        wanted, value = type(field.default), settings.get(field.name, field.default)
        if wanted is tuple:
            numbers = (int, float) if "float" in str(field.type) else (int,)
            good = isinstance(value, (list, tuple)) and all(type(item) in numbers for item in value)
        else:
            good = type(value) is wanted or (wanted is float and type(value) is int)
        if not good:
            raise TypeError(f"{field.name} is {value!r}")
    return config(**settings)


def config_from_json(text: str, path: Path) -> NetworkConfig:
    """The configuration in a text that was read from `path`.

    Raises:
        InputError: it is none of a network of ours.
    """
    try:
        return config_from_dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not the configuration of a VMRNN: {error}", _WRITTEN_BY_US) from None


def read_config(path: Path) -> NetworkConfig:
    """The configuration in a config.json.

    Raises:
        InputError: missing, not to be read, or not the configuration of a network of ours.
    """
    try:
        return config_from_json(path.read_text(), path)
    except FileNotFoundError:
        best = path.parent / "best"  # of a training run
        todo = f"name {best}" if (best / CONFIG_NAME).exists() else _WRITTEN_BY_US
        raise InputError(f"there is no {path}", todo) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}", _WRITTEN_BY_US) from None


def _architecture(config: NetworkConfig) -> str:
    return next(name for name, (known, _) in ARCHITECTURES.items() if known is type(config))
