"""Networks from files and back: our folders (config.json, model.safetensors), and published checkpoints."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .config import NetworkConfig
from .errors import InputError
from .model import VMRNN
from .networks import (
    CONFIG_NAME,
    FILE_SUFFIXES,
    WEIGHTS_NAME,
    config_from_json,
    config_to_dict,
    network_class,
    read_config,
)
from .outputs import atomic_path
from .published import infer_config, ours_from_published, some, to_published

if TYPE_CHECKING:
    from .networks import Network

_HEADER_KEY = "vmrnn_config"


def load_model(path: Path, network: type[Network] | None = None) -> Network:
    """Build a network and fill it from a weights folder, a `.safetensors` file or a published `.pth`/`.pt` file.

    It is on the CPU, in float32 and in evaluation mode.

    Args:
        path: the folder or file.
        network: a subclass to build instead of what the configuration says.

    Raises:
        InputError: not there, not readable without unpickling code, not the tensors of a network of ours, or one that
            `network` is no subclass of.
    """
    if path.is_dir():
        return _fill(read_config(path / CONFIG_NAME), _read_safetensors(path / WEIGHTS_NAME), str(path), network)
    if not path.exists():
        raise InputError(f"there are no weights {path}", "check the name, or see `vmrnn weights list`")
    if path.suffix not in FILE_SUFFIXES:
        raise InputError(f"{path} is no weights file", "give a folder, a .safetensors or a published .pth/.pt file")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    config = stated_config(path)
    if "patch_embedding.proj.weight" not in tensors:
        tensors = ours_from_published(tensors, str(path))
    return _fill(config or infer_config(tensors, str(path)), tensors, str(path), network)


def stated_config(path: Path) -> NetworkConfig | None:
    """The configuration that comes with weights, beside them or in their header; None where it is to be inferred."""
    if path.is_dir():
        return read_config(path / CONFIG_NAME)
    if path.name == WEIGHTS_NAME and path.with_name(CONFIG_NAME).exists():
        return read_config(path.with_name(CONFIG_NAME))
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_HEADER_KEY)
    return config_from_json(text, path) if text is not None else None


def save_model(model: Network, folder: Path, *, half: bool = True) -> None:
    """Write `config.json` and `model.safetensors` (float16 with `half`) into an existing folder."""
    with atomic_path(folder / CONFIG_NAME, overwrite=True) as path:
        path.write_text(json.dumps(config_to_dict(model.config), indent=2) + "\n")
    save_tensors(model, folder / WEIGHTS_NAME, half=half)


def save_tensors(model: Network, file: Path, *, half: bool = False) -> None:
    """Write a `.safetensors` file that `load_model` reads by itself: the configuration is in its header."""
    dtype = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    with atomic_path(file, overwrite=True) as path:
        # not save_file, which lets nobody else read the file
        path.write_bytes(save(tensors, {_HEADER_KEY: json.dumps(config_to_dict(model.config))}))


def save_published(model: Network, file: Path, *, layout: str = "mnist", overwrite: bool = False) -> None:
    """Write `to_published` as a `.safetensors` or a `.pth`/`.pt` file, in float32.

    Raises:
        InputError: as `to_published` and `atomic_path`; VMRNNError: as `atomic_path`.
    """
    if not isinstance(model, VMRNN):
        raise InputError("the published code has no network that carries the picture on", "give weights of a VMRNN")
    state = {name: t.float().contiguous() for name, t in to_published(model, layout).items()}
    content = io.BytesIO()  # torch.save makes RuntimeErrors of a full disk
    if file.suffix == ".safetensors":
        content.write(save(state, {_HEADER_KEY: json.dumps(config_to_dict(model.config))}))
    else:
        torch.save(state, content)
    with atomic_path(file, overwrite) as path:
        path.write_bytes(content.getbuffer())


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except FileNotFoundError:
        raise InputError(f"there is no {path}", "check the name, or see `vmrnn weights list`") from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file: {error}", "download or convert it again"
        ) from None


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint. Nothing but tensors and plain containers is ever unpickled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols: what matters is raised
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling what is no pickle raises anything
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            what = f"{path} needs code of its own to be unpickled and was refused unread"
        else:
            what = f"{path} is not a PyTorch checkpoint, or a damaged one"
        raise InputError(what, "give a file with nothing but tensors in it (a state dict)") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = isinstance(content, dict) and all(
        isinstance(n, str) and isinstance(t, Tensor) for n, t in content.items()
    )
    if not tensors or not content:
        raise InputError(f"{path} holds no state dict of tensors", "give a VMRNN checkpoint")
    return content


def _fill(config: NetworkConfig, tensors: Mapping[str, Tensor], source: str, network: type[Network] | None) -> Network:
    """A network of `config` with exactly these tensors."""
    known = network_class(config)
    network = network or known
    if not issubclass(network, known):
        raise InputError(
            f"{source} is of a {known.__name__}, not of a {network.__name__}", "load it with its own class"
        )
    with torch.device("meta"):  # shapes only: a wrong config must not cost memory
        model = network(config)  # type: ignore[arg-type]
    own = model.state_dict()
    common = [name for name in own if name in tensors]
    fitting = [name for name in common if own[name].shape == tensors[name].shape]
    plain = [name for name in fitting if _holds_floats(tensors[name])]
    problems = {
        "missing": [name for name in own if name not in tensors],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": [name for name in common if name not in fitting],
        "not floating-point numbers": [name for name in fitting if name not in plain],
        "not finite": [name for name in plain if not torch.isfinite(tensors[name].float()).all()],
    }
    wrong = "; ".join(f"{kind}: {some(names)}" for kind, names in problems.items() if names)
    if wrong:
        raise InputError(
            f"{source} does not fit a {known.__name__}-{config.variant} — {wrong}", "give the checkpoint of a VMRNN"
        )
    model.to_empty(device="cpu")  # a network has no tensors but those of its state dict
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def _holds_floats(tensor: Tensor) -> bool:
    """Whether it is a plain tensor with data: a file may hold integers, complex, sparse or meta tensors too."""
    return tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta
