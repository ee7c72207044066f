"""Which weights a name means: bundled with the package, a folder or file, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .networks import FILE_SUFFIXES

if TYPE_CHECKING:  # most of which import PyTorch or NumPy; names and files do without
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

    from .config import NetworkConfig
    from .networks import Network
    from .readings import Declared

REGISTRY_NAME = "registry.json"


def bundled_folder() -> Path:
    """The folder of the bundled weights: beside the package when installed, at the top of a source tree."""
    installed = Path(__file__).with_name("bundled")
    return installed if installed.exists() else Path(__file__).parent.parent / "weights"


def registry() -> dict[str, dict[str, Any]]:
    """What is known of our weights, by name.

    data, budget, metrics, licence : for people
    sha256 : of model.safetensors
    default : whether `predict` takes them when none are named; one entry has it
    fits : what clips they are for: kind (footage, digits or grid), channels, sizes [H, W], any where there are none;
        units of NetCDF and other grids with coordinates, as `grids.values.standard_units` has them
    repo, revision : where they are on the Hub, if they are there; what is not bundled comes from there
    """
    return json.loads((bundled_folder() / REGISTRY_NAME).read_text())


def default_name(frame: NDArray[np.float32] | None = None, units: str | None = None) -> str:
    """The weights to take when none are named: the first bundled ones that fit the clip's first frame (C, H, W).

    `units` are those of a grid, and None for all else. The registry's default comes last, and also where no weights
    fit, or no frame is given.
    """
    known = registry()
    default = next(name for name, entry in known.items() if entry.get("default"))
    if frame is None:
        return default
    others = (name for name in known if name != default and is_bundled(name))
    return next((name for name in others if _fit(known[name]["fits"], frame, units)), default)


def check_units(name: str, units: str | None, declared: bool) -> None:
    """Refuse weights that are for grids in other units, unless a range is declared for them.

    Raises:
        InputError: they are.
    """
    from .grids.values import standard_units

    fits = registry().get(name, {}).get("fits", {})
    if units is None or declared or fits.get("kind") != "grid" or "units" not in fits:
        return
    if standard_units(units) not in fits["units"]:
        raise InputError(
            f"{name} is for grids in {', '.join(fits['units'])}, got one {_in_words(units)}",
            "choose other weights with --weights, or say --range LO,HI if it is to be used all the same",
        )


def learned(config: NetworkConfig, name: str, units: str | None, declared: bool = False) -> Declared:
    """What weights know of grids in such units: the range and the transform that they were trained with, if any.

    Raises:
        InputError: they were trained on grids in other units, unless a range is declared, or the registry has these.
    """
    from .grids.values import standard_units
    from .readings import UNDECLARED, Declared

    if units is None or not config.range:
        return UNDECLARED
    if standard_units(units) == standard_units(config.units):
        low, high = config.range
        return Declared(range=(low, high), transform=config.transform)
    if not declared and standard_units(units) not in registry().get(name, {}).get("fits", {}).get("units", ()):
        raise InputError(
            f"{name or 'this network'} was trained on grids {_in_words(config.units)}, got one {_in_words(units)}",
            "choose other weights with --weights, or say --range LO,HI if they are to be used all the same",
        )
    return UNDECLARED


def _in_words(units: str) -> str:
    return f"in {units}" if units else "without units"


def _fit(fits: dict[str, Any], frame: NDArray[np.float32], units: str | None) -> bool:
    if units is not None:
        from .grids.values import standard_units

        # Of several slices, those with one channel forecast one after the other.
        return standard_units(units) in fits.get("units", ()) and fits["channels"] in (1, len(frame))
    size = list(frame.shape[1:])
    return (fits["kind"], fits["channels"]) == (_kind(frame), len(frame)) and size in fits.get("sizes", [size])


def _kind(frame: NDArray[np.float32]) -> str:
    """What a frame (C, H, W) in [0, 1] looks like: a grid unless gray or in colour, digits if white on black."""
    if len(frame) not in (1, 3):
        return "grid"
    return "digits" if float(frame.max()) > 0.5 and float((frame < 0.1).mean()) > 0.5 else "footage"


def is_bundled(name: str) -> bool:
    """Whether the weights of a registered name are part of the package."""
    return name in registry() and (bundled_folder() / name).is_dir()


def load(name: str | Path) -> Network:
    """Load weights by our name, folder, `.safetensors`, published `.pth`/`.pt`, or Hub id `owner/name[@revision]`.

    Raises:
        InputError: there are no such weights, or they are not those of a VMRNN.
        VMRNNError: the Hub or the network failed.
    """
    from . import pretrained

    return pretrained.load_model(locate(name))


def locate(name: str | Path, revision: str | None = None, **options: Any) -> Path:
    """The folder or file that a name means: bundled, else a path, else from the cache or the Hub.

    Args:
        name: as for `load`.
        revision: of a Hub repository; may also stand in the name, after an @.
        options: of `hub.download`.

    Raises:
        InputError: there are no such weights.
        VMRNNError: the Hub or the network failed, or what came is not what the registry says.
    """
    text, known = str(name), registry()
    if is_bundled(text):
        return _without_revision(bundled_folder() / text, revision)
    path = Path(name)
    try:
        there = bool(text) and path.exists()
    except OSError as error:  # too long for a name, or links in a circle
        raise InputError(f"'{name}' is no path: {error.strerror}", "check the name") from None
    if there or path.suffix in FILE_SUFFIXES:
        return _without_revision(path, revision)
    if "repo" in known.get(text, {}) or (text.count("/") == 1 and not text.startswith((".", "/", "~"))):
        repository, branch, sha256 = hub_address(text)
        if revision is not None and revision != branch:
            branch, sha256 = revision, None  # the hash is that of the registered revision
        return _hub().download(repository, branch, sha256=sha256, **options)
    raise InputError(
        f"there are no weights '{name}'", f"use {', '.join(known)}, a path, or owner/name on the Hugging Face Hub"
    )


def hub_address(name: str) -> tuple[str, str | None, str | None]:
    """Repository, revision and sha256 of a registered name or `owner/name[@revision]`; None for what is not said."""
    entry = registry().get(name)
    if entry is not None:
        return entry["repo"], entry.get("revision"), entry["sha256"]
    repository, _, revision = name.partition("@")
    return repository, revision or None, None


def find(name: str) -> tuple[str, Path | None]:
    """Where the weights of a registered name are: "bundled", "cached" or "on the Hub", and in which folder."""
    if is_bundled(name):
        return "bundled", bundled_folder() / name
    repository, revision, _ = hub_address(name)
    folder = _hub().cached(repository, revision)
    return ("cached" if folder else "on the Hub"), folder


def _hub() -> ModuleType:
    """The module `hub`; huggingface_hub reads HF_ENDPOINT and others when it is imported, and may not like them."""
    try:
        from . import hub
    except ValueError as error:
        raise InputError(f"huggingface_hub cannot start: {error}", "check the environment's HF_ variables") from None
    return hub


def _without_revision(path: Path, revision: str | None) -> Path:
    if revision is not None:
        raise InputError(f"{path} is on this machine and has no revision '{revision}'", "leave the revision out")
    return path
