"""Model cards: README.md of a weights folder, what it was trained on and for how long, and how good it is."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    forecasts = {"this network": summary, **{label: summary[key] for key, label in RIVAL_NAMES.items()}}
    spent = "".join(f"| {key} | {value} |\n" for key, value in budget.items())
    metrics = [name for name in ("mse", "mae", "ssim", "psnr", "sharpness", "ssim_published") if name in summary]
    scores = "".join(
        f"| {label} |" + "".join(f" {_number(scores[name])} |" for name in metrics) + "\n"
        for label, scores in forecasts.items()
    )
    beaten = "".join(
        f"MSE below that of {label} on {summary[key]['beaten_on']:.0%} of the clips.\n"
        for key, label in RIVAL_NAMES.items()
    )
    by_step = "".join(_by_step(name, forecasts) for name in ("mse", "ssim") if name in summary)
    shape = f"patch {network.patch_size}, width {network.embed_dim}"
    shape += (
        f", {network.image_channels} channel(s)" if isinstance(network, VMRNNConfig) else ", carries the picture on"
    )
    for_the_hub = "library_name: vmrnn\ntags:\n- video-prediction\n" + (f"license: {licence}\n" if licence else "")
    return f"""---
{for_the_hub}---

# VMRNN-{network.variant}, {shape}

Trained on {for_markdown(trained_on)}: {network.context} frames in, {network.horizon} out.

| budget | |
|---|---|
{spent}
On {summary["clips"]} clips of {for_markdown(judged_on)}. MSE and MAE are sums over the pixels of a frame;
SSIM has a data range of 1, as published one of 2.

| forecast |{"".join(f" {name.replace('_', ' ')} |" for name in metrics)}
|---|{"---|" * len(metrics)}
{scores}
{beaten}{by_step}"""


def _by_step(name: str, forecasts: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of one metric, a row for each frame ahead."""
    columns = [scores["per_frame"][name] for scores in forecasts.values()]
    rows = "".join(
        f"| +{step} |" + "".join(f" {_number(value)} |" for value in values) + "\n"
        for step, values in enumerate(zip(*columns, strict=True), 1)
    )
    head = "".join(f" {label} |" for label in forecasts)
    return f"\n{name.upper()} by frames ahead:\n\n| ahead |{head}\n|---|{'---|' * len(columns)}\n{rows}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
