"""Networks from files and back: our folders (config.json, model.safetensors), and published checkpoints."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .config import NetworkConfig
from .errors import InputError, os_failure
from .model import VMRNN
from .networks import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    config_from_json,
    config_to_dict,
    network_class,
    read_config,
)
from .outputs import atomic_path
from .published import infer_config, networks_in, ours_from_published, some, to_published

if TYPE_CHECKING:
    from .networks import Network

_HEADER_KEY = "vmrnn_config"
_AGAIN = "download or convert it again"
# Beside the tensors, training code saves numbers as NumPy has them. To rebuild these runs nobody's code.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def load_model(path: Path, network: type[Network] | None = None) -> Network:
    """Build a network and fill it from a weights folder, a `.safetensors` file or a checkpoint that PyTorch saved.

    A file is known by its content, whatever its name. It is on the CPU, in float32 and in evaluation mode.

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
    if not path.is_file():
        raise InputError(f"{path} is not a regular file", "save the weights as a file first")
    place, tensors = _one_network(_read_safetensors(path) if _is_safetensors(path) else _read_pickled(path), path)
    config = stated_config(path)
    if "patch_embedding.proj.weight" not in tensors:
        tensors = ours_from_published(tensors, str(path))
    model = _fill(config or infer_config(tensors, str(path)), tensors, str(path), network)
    model.place = place
    return model


def stated_config(path: Path) -> NetworkConfig | None:
    """The configuration that comes with weights, beside them or in their header; None where it is to be inferred."""
    if path.is_dir():
        return read_config(path / CONFIG_NAME)
    if path.name == WEIGHTS_NAME and path.with_name(CONFIG_NAME).exists():
        return read_config(path.with_name(CONFIG_NAME))
    if not _is_safetensors(path):
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


def _is_safetensors(path: Path) -> bool:
    """By its content: eight bytes that say how long the header is, which is a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{" or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except FileNotFoundError:
        raise InputError(f"there is no {path}", "check the name, or see `vmrnn weights list`") from None
    except OSError as error:
        raise os_failure(f"cannot read {path}", error) from None
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}", _AGAIN) from None


def _read_pickled(path: Path) -> Any:
    """What a checkpoint holds. Nothing but tensors, numbers and plain containers is ever unpickled."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMBERS):
            warnings.simplefilter("ignore")  # of unusual pickle protocols: what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling what is no pickle raises anything
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            what = f"{path} needs code of its own{_foreign(path)} to be unpickled and was refused unread"
        else:
            what = f"{path} is not a PyTorch checkpoint, or a damaged one"
        raise InputError(what, "give a file with nothing but tensors in it (a state dict)") from None


def _one_network(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """The network in what a checkpoint holds, however it is nested and wrapped: the place of its tensors, and these.

    Where there are averaged weights beside those of the last step, as training code keeps them, the averaged ones. The
    place is named only if there was such a choice.
    """
    found: dict[str, dict[str, Tensor]] = {}
    places, seen = [("", content)], set()
    for place, part in places:  # which grows
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        tensors = {name: value for name, value in part.items() if isinstance(value, Tensor)}
        if all(isinstance(name, str) for name in tensors):
            found |= {f"{place}.{prefix}".strip("."): own for prefix, own in networks_in(tensors).items()}
        places += [(f"{place}.{name}".strip("."), value) for name, value in part.items()]
    averaged = [place for place in found if re.search(r"(?<![a-z])ema(?![a-z])", place.lower())]
    if len(averaged) == 1:
        return averaged[0] if len(found) > 1 else "", found[averaged[0]]
    if len(found) > 1:
        raise InputError(f"{path} holds several networks: {some(list(found))}", "save the one that is meant by itself")
    if found:
        return "", next(iter(found.values()))
    plain = isinstance(content, Mapping) and all(
        isinstance(pair, (str, Tensor)) for item in content.items() for pair in item
    )
    if not plain or not content:
        raise InputError(f"{path} holds no state dict of tensors", "give a VMRNN checkpoint")
    return "", dict(content)  # whose names tell what they are not


def _foreign(path: Path) -> str:
    """What a pickle would have imported, in brackets; nothing where PyTorch does not tell."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of what is no zip file, or a damaged one
        return ""
    return f" ({some(names)})" if names else ""


@torch.inference_mode(False)  # what was loaded may be trained, wherever it was loaded
def _fill(config: NetworkConfig, tensors: Mapping[str, Tensor], source: str, network: type[Network] | None) -> Network:
    """A network of `config` with exactly these tensors."""
    known = network_class(config)
    network = network or known
    if sum((*config.depths, *config.depths_up)) > len(tensors):  # building what no file can fill takes minutes
        raise InputError(f"{source} does not fit its configuration: it has {len(tensors)} tensors", _AGAIN)
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
    own_copies = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in tensors.items()}
    model.load_state_dict(own_copies, assign=True)  # a network has no tensors but those of its state dict
    model.source = source
    return model.eval()


def _holds_floats(tensor: Tensor) -> bool:
    """Whether it is a plain tensor with data of its own: a file may hold integers, sparse or expanded ones too."""
    plain = tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta
    return plain and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize
