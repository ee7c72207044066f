"""The checkpoints that were published with VMRNN: their names of tensors, and the configuration that they lack.

They come in two layouts, that of the Moving MNIST code and that of the OpenSTL-style code, wrapped as training code
leaves them. What networks they hold is inferred from names and shapes. Tensors that the published networks hold but
never use are dropped by name, and so are the counters that tools leave among them.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .config import VMRNNConfig
from .errors import InputError
from .model import VMRNN, ScanNetwork
from .networks import NETWORKS

_BLOCK_PARTS = {"norm": "ln_1", "ss2d": "self_attention", "mix": "linear"}
_NAMES = (  # variants that are saved so, our name, the published one; # stands for a number, * for anything
    ("B", "patch_embedding.*", "ST.patch_embed.*"),
    ("D", "patch_embedding.*", "Downsample.patch_embed.*"),
    ("D", "merging.#.*", "Downsample.downsample.#.*"),
    ("D", "expanding.#.*", "Upsample.upsample.#.*"),
    ("B", "reconstruction.final.*", "ST.patch_inflated.Conv.*"),
    ("D", "reconstruction.final.*", "Upsample.Unembed.Conv.*"),
    ("B", "reconstruction.inflate.*", "ST.patch_inflated.Conv_.*"),
    ("D", "reconstruction.inflate.*", "Upsample.Unembed.Conv_.*"),
    *(
        (variants, f"{cell}.blocks.#.{ours}.*", f"{published}.VSBs.#.{theirs}.*")
        for ours, theirs in _BLOCK_PARTS.items()
        for variants, cell, published in (
            ("B", "down.0", "ST.layers.0"),
            ("", "down.0", "ST.layer"),  # OpenSTL's
            ("D", "down.#", "Downsample.layers.#"),
            ("D", "up.#", "Upsample.layers.#"),
        )
    ),
)
_UNUSED = (
    r"Upsample\.patch_embed\..+",  # a second patch embedding that nothing calls
    r".+\.VSBs\.[1-9]\d*\.linear\..+",  # the mixing layer, built in every block and used in the first
)
_FIRST = re.compile(r"(?:(.*)\.)?((?:(?:ST|Downsample)\.patch_embed|patch_embedding)\.proj\.weight)")
_WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_COUNTERS = ("total_ops", "total_params", "n_averaged", "num_batches_tracked")  # thop's, PyTorch's


def networks_in(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The networks in a state dict by the prefix of their names (Lightning's "model", or ""), under names without it.

    DistributedDataParallel, torch.compile and their like put a name of their own before those of what they wrap,
    wherever that is; and tools add counters. Both are left out. What belongs to no network is left in each.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if parts[-1] not in _COUNTERS:
            plain[".".join(part for part in parts if part not in _WRAPPERS)] = tensor
    firsts = [match for name in plain if (match := _FIRST.fullmatch(name))]
    prefixes = [f"{match[1]}." if match[1] else "" for match in firsts]
    others = {name: tensor for name, tensor in plain.items() if not name.startswith(tuple(prefixes))}
    networks = {}
    for prefix in prefixes:
        own = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
        networks[prefix.removesuffix(".")] = own | others
    return networks


def our_name(published: str) -> str | None:
    """Our name of a published tensor, or None for one that nothing uses.

    Raises:
        KeyError: the name belongs to no published layout.
    """
    if any(re.fullmatch(pattern, published) for pattern in _UNUSED):
        return None
    return _renamed(published, ((theirs, ours) for _, ours, theirs in _NAMES))


def published_name(ours: str, variant: str) -> str:
    """The inverse of `our_name`, in the layout of the Moving MNIST code."""
    return _renamed(ours, ((known, theirs) for variants, known, theirs in _NAMES if variant in variants))


def _renamed(name: str, rows: Iterable[tuple[str, str]]) -> str:
    for pattern, result in rows:
        match = re.fullmatch(re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)"), name)
        if match:
            return re.sub("[#*]", "{}", result).format(*match.groups())
    raise KeyError(name)


def ours_from_published(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of the file `source` under our names.

    Raises:
        InputError: some belong to no published layout.
    """
    renamed, unknown = {}, []
    for name, tensor in tensors.items():
        try:
            ours = our_name(name)
        except KeyError:
            unknown.append(name)
            continue
        if ours is not None:
            renamed[ours] = tensor
    if unknown:
        raise InputError(
            f"{source} holds tensors that no published VMRNN has: {some(unknown)}", "give a VMRNN checkpoint"
        )
    return renamed


def to_published(model: VMRNN, layout: str = "mnist") -> dict[str, Tensor]:
    """The state dict that the published code loads with strict=True: its names, and zeros where nothing is ever used.

    Args:
        model: any VMRNN of the paper's.
        layout: "mnist" or "openstl", for the code that the checkpoint is to be loaded by.
    """
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


def infer_config(tensors: Mapping[str, Tensor], source: str = "the checkpoint") -> VMRNNConfig:
    """The configuration of a network from its tensors, under our names.

    What tensors cannot show (frame size, context, horizon) is that of the network in `NETWORKS` with the same tensors,
    else of the first with the same variant and patch size, else the default.

    Raises:
        InputError: a tensor that every VMRNN has is missing, or in a shape that no VMRNN has.
    """
    depths, depths_up = (_depths(tensors, path) for path in ("down", "up"))
    try:
        embed_dim, channels, patch_size, _ = tensors["patch_embedding.proj.weight"].shape
        _, d_state = tensors["down.0.blocks.0.ss2d.A_logs"].shape
        config = VMRNNConfig(
            "D" if depths_up else "B", channels, patch_size=patch_size, embed_dim=embed_dim, depths=depths,
            depths_up=depths_up[::-1], d_state=d_state,
        )  # fmt: skip
    except KeyError as error:
        raise InputError(f"{source} is not a VMRNN: it has no tensor {error}", "give a VMRNN checkpoint") from None
    except ValueError as error:
        raise InputError(f"{source} is not a VMRNN that can be built: {error}", "give a VMRNN checkpoint") from None
    plain = [p for p in NETWORKS.values() if type(p) is VMRNNConfig]  # as published networks are

    def shown(c: VMRNNConfig) -> tuple:
        return c.variant, c.patch_size, c.image_channels, c.embed_dim, c.depths, c.depths_up, c.d_state

    same = [p for p in plain if shown(p) == shown(config)]
    like = next((p for p in (*same, *plain) if (p.variant, p.patch_size) == (config.variant, patch_size)), config)
    return dataclasses.replace(config, image_size=like.image_size, context=like.context, horizon=like.horizon)


def _depths(names: Iterable[str], path: str) -> tuple[int, ...]:
    """Blocks per cell of the down or up path."""
    blocks = {match.groups() for name in names if (match := re.match(rf"{path}\.(\d+)\.blocks\.(\d+)\.", name))}
    cells = Counter(int(cell) for cell, _ in blocks)
    return tuple(cells[cell] for cell in sorted(cells))


def published_parameters(model: ScanNetwork) -> int:
    """Parameters as the published code counts them, with the tensors that nothing uses; all, of other networks."""
    if not isinstance(model, VMRNN):
        return sum(p.numel() for p in model.parameters())
    return sum(tensor.numel() for tensor in to_published(model).values())


def some(names: list[str], most: int = 5) -> str:
    """The first names of a list, on one line and not too long whatever a file calls its tensors."""
    shown = ", ".join(ascii(name[:100])[1:-1] for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
