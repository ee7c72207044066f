"""Model cards: README.md of a weights folder, what it was trained on and for how long, and how good it is."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from . import __version__
from .config import NetworkConfig, VMRNNConfig
from .rivals import RIVAL_NAMES
from .text import for_markdown


def code_version() -> str:
    """The version of this package, and the commit where it runs from a git checkout of its own."""
    top = Path(__file__).parents[1]
    if not (top / ".git").exists():
        return f"vmrnn {__version__}"
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=top, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git here, or somebody else's checkout
        return f"vmrnn {__version__}"
    return f"vmrnn {__version__}, commit {described.stdout.strip()}"


def model_card(
    network: NetworkConfig,
    trained_on: str,
    judged_on: str,
    budget: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    licence: str | None = None,
) -> str:
    """Markdown from the budget and from what `Evaluation.summary` returns, with what the Hub wants to know on top."""
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    environment.filters |= {"markdown": for_markdown, "number": _number}
    template = environment.from_string(Path(__file__).with_name("card.md").read_text())
    rivals = {label: summary[key] for key, label in RIVAL_NAMES.items()}
    metrics = [name for name in ("mse", "mae", "ssim", "psnr", "sharpness", "ssim_published") if name in summary]
    channels = f"{network.image_channels} channel(s)"
    return template.render(
        network=network, kind=channels if isinstance(network, VMRNNConfig) else "carries the picture on",
        trained_on=trained_on, judged_on=judged_on, budget=budget, summary=summary, rivals=rivals, metrics=metrics,
        forecasts={"this network": summary, **rivals}, licence=licence,
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
