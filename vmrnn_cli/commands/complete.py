"""What the shell offers for options with known values. Nothing here imports PyTorch."""

from __future__ import annotations

from ..recipes import RECIPES
from ..weights import registry


def presets() -> list[str]:
    """Names of `--preset`."""
    return list(RECIPES)


def weights() -> list[str]:
    """Names of `--weights` that need no path."""
    return list(registry())


def formats() -> list[str]:
    """Values of `--format`."""
    from ..writers import WRITERS

    return [suffix[1:] for suffix in WRITERS]
