"""Weights on disk: our folders (config.json + model.safetensors) and the checkpoints that were published with VMRNN.

Published checkpoints come in two layouts, that of the Moving MNIST code and that of the OpenSTL-style code, bare or
inside a training dictionary, with or without the `module.` prefix of DistributedDataParallel. They hold no
configuration: it is inferred from the names and shapes. Tensors that the published networks hold but never use are
dropped by name.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import InputError
from .model import VMRNN, VMRNNConfig
from .outputs import atomic_path
from .weights import WEIGHTS_NAME as WEIGHTS_NAME

CONFIG_NAME = "config.json"
_HEADER_KEY = "vmrnn_config"
_WRITTEN_BY_US = "give a weights folder that `vmrnn` wrote"

# The published configurations, and one for trying things.
PRESETS = {
    "vmrnn-d-mmnist": VMRNNConfig("D", 1, (64, 64), 2, 128, (2, 6), (6, 2), drop_path=0.1, context=10, horizon=10),
    "vmrnn-b-kth": VMRNNConfig("B", 1, (128, 128), 2, 128, (6,), drop_path=0.1, context=10, horizon=20),
    "vmrnn-b-taxibj": VMRNNConfig("B", 2, (32, 32), 4, 128, (12,), drop_path=0.1, context=4, horizon=4),
    "vmrnn-b-mmnist": VMRNNConfig("B", 1, (64, 64), 4, 64, (4,), context=10, horizon=10),  # ours, for two CPU cores
    "vmrnn-d-mmnist-small": VMRNNConfig(  # ours; with 4 states instead of 16, scans take less than half the time
        "D", 1, (64, 64), 4, 64, (1,), (4,), d_state=4, context=10, horizon=10
    ),
    "vmrnn-b-natural": VMRNNConfig("B", 1, (128, 128), 4, 64, (4,), residual=True, context=10, horizon=20),  # ours
    "vmrnn-b-bikenyc": VMRNNConfig("B", 2, (16, 8), 2, 64, (4,), context=4, horizon=4),  # ours
    "tiny": VMRNNConfig("B", 1, (64, 64), 2, 32, (2,), context=10, horizon=10),
}

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


def _ours_from_published(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, tensor in tensors.items():
        try:
            ours = our_name(name.removeprefix("module."))
        except KeyError:
            unknown.append(name)
            continue
        if ours is not None:
            renamed[ours] = tensor
    if unknown:
        raise InputError(
            f"{source} holds tensors that no published VMRNN has: {_some(unknown)}", "give a VMRNN checkpoint"
        )
    return renamed


def published_name(ours: str, variant: str) -> str:
    """The inverse of `our_name`, in the layout of the Moving MNIST code."""
    parts = {part: published for published, part in _BLOCK_PARTS.items()}
    down = "ST.layers.0" if variant == "B" else r"Downsample.layers.\1"
    inflated = "ST.patch_inflated" if variant == "B" else "Upsample.Unembed"
    for pattern, published in (
        (r"patch_embedding\.(.+)", ("ST" if variant == "B" else "Downsample") + r".patch_embed.\1"),
        (r"down\.(\d+)\.blocks\.(\d+)\.(\w+)\.(.+)", down + r".VSBs.\2.{\3}.\4"),
        (r"up\.(\d+)\.blocks\.(\d+)\.(\w+)\.(.+)", r"Upsample.layers.\1.VSBs.\2.{\3}.\4"),
        (r"merging\.(\d+)\.(.+)", r"Downsample.downsample.\1.\2"),
        (r"expanding\.(\d+)\.(.+)", r"Upsample.upsample.\1.\2"),
        (r"reconstruction\.final\.(.+)", inflated + r".Conv.\1"),
        (r"reconstruction\.inflate\.(.+)", inflated + r".Conv_.\1"),
    ):
        match = re.fullmatch(pattern, ours)
        if match:
            return re.sub(r"\{(\w+)\}", lambda part: parts[part[1]], match.expand(published))
    raise KeyError(ours)


def to_published(model: VMRNN, layout: str = "mnist") -> dict[str, Tensor]:
    """The state dict that the published code loads with strict=True: its names, and zeros where nothing is ever used.

    Args:
        model: any but a residual network, which no published code has.
        layout: "mnist" or "openstl", for the code that the checkpoint is to be loaded by.

    Raises:
        InputError: the network is residual.
    """
    if model.config.residual:
        raise InputError(
            "a network that predicts the change of the frame has no published form", "convert one without `residual`"
        )
    variant, state = model.config.variant, {}
    ours = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    depths = {path: _depths(ours, path) for path in ("down", "up")}
    for name, tensor in ours.items():
        state[published_name(name, variant)] = tensor
        if match := re.fullmatch(r"(down|up)\.(\d+)\.blocks\.0\.mix\.(\w+)", name):
            path, cell, part = match.groups()
            for block in range(1, depths[path][int(cell)]):
                unused = published_name(f"{path}.{cell}.blocks.{block}.mix.{part}", variant)
                state[unused] = torch.zeros_like(tensor)
        elif variant == "D" and name.startswith("patch_embedding."):
            state[name.replace("patch_embedding", "Upsample.patch_embed")] = torch.zeros_like(tensor)
    if layout == "openstl":
        state = {name.replace("ST.layers.0.", "ST.layer."): t for name, t in state.items()}
    return state


def infer_config(tensors: Mapping[str, Tensor]) -> VMRNNConfig:
    """The configuration of a network from its tensors, under our names.

    What tensors cannot show (frame size, context, horizon) is that of the preset with the same tensors, else of the
    published configuration with the same variant and patch size, else the default.

    Raises:
        KeyError: a tensor that every VMRNN has is missing.
        ValueError: it is there in a shape that no VMRNN has.
    """
    embed_dim, channels, patch_size, _ = tensors["patch_embedding.proj.weight"].shape
    _, d_state = tensors["down.0.blocks.0.ss2d.A_logs"].shape
    depths, depths_up = (_depths(tensors, path) for path in ("down", "up"))
    variant = "D" if depths_up else "B"
    config = VMRNNConfig(
        variant=variant,
        image_channels=channels,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depths=depths,
        depths_up=depths_up[::-1],
        d_state=d_state,
    )
    plain = [p for p in PRESETS.values() if not p.residual]  # which no published network is

    def shown(c: VMRNNConfig) -> tuple:
        return c.variant, c.patch_size, c.image_channels, c.embed_dim, c.depths, c.depths_up, c.d_state

    same = [p for p in plain if shown(p) == shown(config)]
    like = next((p for p in (*same, *plain) if (p.variant, p.patch_size) == (variant, patch_size)), config)
    return dataclasses.replace(config, image_size=like.image_size, context=like.context, horizon=like.horizon)


def _depths(names: Iterable[str], path: str) -> tuple[int, ...]:
    """Blocks per cell of the down or up path."""
    blocks = {match.groups() for name in names if (match := re.match(rf"{path}\.(\d+)\.blocks\.(\d+)\.", name))}
    cells = Counter(int(cell) for cell, _ in blocks)
    return tuple(cells[cell] for cell in sorted(cells))


def published_parameters(model: VMRNN) -> int:
    """Parameters as the published code counts them, with the tensors that nothing uses."""
    unused = sum(2 * cell.dim**2 + cell.dim for cell in (*model.down, *model.up) for _ in range(len(cell.blocks) - 1))
    if model.config.variant == "D":
        unused += sum(p.numel() for p in model.patch_embedding.parameters())
    return sum(p.numel() for p in model.parameters()) + unused


# ----------------------------------------------------------------------------------------------------------------------
# Reading and writing


def load_model(path: Path) -> VMRNN:
    """Build a VMRNN and fill it from a weights folder, a `.safetensors` file or a published `.pth`/`.pt` file.

    The model is on the CPU, in float32 and in evaluation mode.

    Raises:
        InputError: not there, not readable without unpickling code, or not the tensors of a VMRNN.
    """
    if path.is_dir():
        return _fill(read_config(path / CONFIG_NAME), _read_safetensors(path / WEIGHTS_NAME), str(path))
    if not path.exists():
        raise InputError(f"there are no weights {path}", "check the name, or see `vmrnn weights list`")
    config: VMRNNConfig | None = None
    if path.suffix == ".safetensors":
        tensors, config = _read_safetensors(path), _embedded_config(path)
    elif path.suffix in (".pth", ".pt"):
        tensors = _read_pickled(path)
    else:
        raise InputError(f"{path} is no weights file", "give a folder, a .safetensors or a published .pth/.pt file")
    if "patch_embedding.proj.weight" not in tensors:
        tensors = _ours_from_published(tensors, str(path))
    config_path = path.with_name(CONFIG_NAME)
    if path.name == WEIGHTS_NAME and config_path.exists():
        config = read_config(config_path)
    return _fill(config or _inferred(tensors, str(path)), tensors, str(path))


def has_config(path: Path) -> bool:
    """Whether weights that `load_model` reads say what frames they were trained for; else that was assumed."""
    if path.is_dir() or (path.name == WEIGHTS_NAME and path.with_name(CONFIG_NAME).exists()):
        return True
    return path.suffix == ".safetensors" and _embedded_config(path) is not None


def save_model(model: VMRNN, folder: Path, *, half: bool = True) -> None:
    """Write `config.json` and `model.safetensors` (float16 with `half`) into an existing folder."""
    with atomic_path(folder / CONFIG_NAME, overwrite=True) as path:
        path.write_text(json.dumps(_as_json(model.config), indent=2) + "\n")
    save_tensors(model, folder / WEIGHTS_NAME, half=half)


def save_tensors(model: VMRNN, file: Path, *, half: bool = False) -> None:
    """Write a `.safetensors` file that `load_model` reads by itself: the configuration is in its header."""
    dtype = torch.float16 if half else torch.float32
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    with atomic_path(file, overwrite=True) as path:
        # not save_file, which lets nobody else read the file
        path.write_bytes(save(tensors, {_HEADER_KEY: json.dumps(_as_json(model.config))}))


def save_published(model: VMRNN, file: Path, *, layout: str = "mnist", overwrite: bool = False) -> None:
    """Write `to_published` as a `.safetensors` or a `.pth`/`.pt` file, in float32.

    Raises:
        InputError: as `to_published` and `atomic_path`; VMRNNError: as `atomic_path`.
    """
    state = {name: t.float().contiguous() for name, t in to_published(model, layout).items()}
    content = io.BytesIO()  # torch.save makes RuntimeErrors of a full disk
    if file.suffix == ".safetensors":
        content.write(save(state, {_HEADER_KEY: json.dumps(_as_json(model.config))}))
    else:
        torch.save(state, content)
    with atomic_path(file, overwrite) as path:
        path.write_bytes(content.getbuffer())


def _as_json(config: VMRNNConfig) -> dict[str, Any]:
    return {"architecture": "VMRNN", **dataclasses.asdict(config)}


def read_config(path: Path) -> VMRNNConfig:
    """The configuration in a config.json.

    Raises:
        InputError: missing, not JSON, or not a VMRNN configuration.
    """
    try:
        return _parse_config(path.read_text(), path)
    except FileNotFoundError:
        best = path.parent / "best"  # of a training run
        todo = f"name {best}" if (best / CONFIG_NAME).exists() else _WRITTEN_BY_US
        raise InputError(f"there is no {path}", todo) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}", _WRITTEN_BY_US) from None


def _embedded_config(path: Path) -> VMRNNConfig | None:
    """The configuration in the header of a `.safetensors` file that we wrote, else None."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_HEADER_KEY)
    return _parse_config(text, path) if text is not None else None


def _parse_config(text: str, path: Path) -> VMRNNConfig:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", _WRITTEN_BY_US) from None
    if not isinstance(values, dict) or values.pop("architecture", None) != "VMRNN":
        raise InputError(f"{path} is not the configuration of a VMRNN", _WRITTEN_BY_US)
    try:
        _check_types(values)
        return VMRNNConfig(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not the configuration of a VMRNN: {error}", _WRITTEN_BY_US) from None


def _check_types(values: Mapping[str, Any]) -> None:
    """Raise TypeError unless every value has the type of its default: JSON is written by anybody."""
    for field in dataclasses.fields(VMRNNConfig):
        wanted, value = type(field.default), values.get(field.name, field.default)
        if wanted is tuple:
            good = isinstance(value, (list, tuple)) and all(type(item) is int for item in value)
        else:
            good = type(value) is wanted or (wanted is float and type(value) is int)
        if not good:
            raise TypeError(f"{field.name} is {value!r}")


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


def _inferred(tensors: Mapping[str, Tensor], source: str) -> VMRNNConfig:
    try:
        return infer_config(tensors)
    except KeyError as error:
        raise InputError(f"{source} is not a VMRNN: it has no tensor {error}", "give a VMRNN checkpoint") from None
    except ValueError as error:
        raise InputError(f"{source} is not a VMRNN that can be built: {error}", "give a VMRNN checkpoint") from None


def _fill(config: VMRNNConfig, tensors: Mapping[str, Tensor], source: str) -> VMRNN:
    """A model of `config` with exactly these tensors."""
    with torch.device("meta"):  # shapes only: a wrong config must not cost memory
        own = VMRNN(config).state_dict()
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
    wrong = "; ".join(f"{kind}: {_some(names)}" for kind, names in problems.items() if names)
    if wrong:
        raise InputError(f"{source} does not fit a VMRNN-{config.variant} — {wrong}", "give the checkpoint of a VMRNN")
    model = VMRNN(config)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def _holds_floats(tensor: Tensor) -> bool:
    """Whether it is a plain tensor with data: a file may hold integers, complex, sparse or meta tensors too."""
    return tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta


def _some(names: list[str], most: int = 5) -> str:
    """The first names of a list, on one line and not too long whatever a file calls its tensors."""
    shown = ", ".join(ascii(name[:100])[1:-1] for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
