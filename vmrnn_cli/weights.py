"""Which weights a name means: bundled with the package, a folder or file, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import checkpoints
from .errors import InputError
from .model import VMRNN

REGISTRY_NAME = "registry.json"


def bundled_folder() -> Path:
    """The folder of the bundled weights: beside the package when installed, at the top of a source tree."""
    installed = Path(__file__).with_name("bundled")
    return installed if installed.exists() else Path(__file__).parent.parent / "weights"


def registry() -> dict[str, dict[str, Any]]:
    """What is known of the bundled weights, by name: sha256, licence, data, budget, metrics."""
    return json.loads((bundled_folder() / REGISTRY_NAME).read_text())


def default_name(channels: int | None = None) -> str:
    """The bundled weights that `predict` takes when none are named: for gridded data, those with as many channels."""
    known = registry()
    if channels not in (None, 1, 3):
        for name in known:
            config = checkpoints.read_config(bundled_folder() / name / checkpoints.CONFIG_NAME)
            if config.image_channels == channels:
                return name
    return next(name for name, entry in known.items() if entry.get("default"))


def load(name: str | Path) -> VMRNN:
    """Load weights by bundled name, folder, `.safetensors`, published `.pth`/`.pt`, or Hub id `owner/name[@revision]`.

    Raises:
        InputError: there are no such weights, or they are not those of a VMRNN.
    """
    if str(name) in registry():
        return checkpoints.load_model(bundled_folder() / str(name))
    path = Path(name)
    if path.exists() or path.suffix in (".safetensors", ".pth", ".pt"):
        return checkpoints.load_model(path)
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return checkpoints.load_model(_from_hub(str(name)))
    raise InputError(
        f"there are no weights '{name}'", f"use {', '.join(registry())}, a path, or owner/name on the Hugging Face Hub"
    )


def _from_hub(name: str) -> Path:
    """The local copy of a Hub repository's weights folder, downloaded unless it is in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    wanted = [checkpoints.CONFIG_NAME, checkpoints.WEIGHTS_NAME]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except HFValidationError as error:
        raise InputError(f"'{name}' is no Hub repository: {error}", "write it as owner/name") from None
    except LocalEntryNotFoundError:
        raise InputError(
            f"weights '{name}' are neither here nor in the cache, and the Hub cannot be reached",
            "check the name and the network",
        ) from None
    except HfHubHTTPError as error:
        raise InputError(
            f"the Hub refuses '{name}': {str(error).splitlines()[0]}", "check the name, or log in"
        ) from None
