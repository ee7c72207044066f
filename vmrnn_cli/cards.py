"""Model cards: README.md of a weights folder, what it was trained on and for how long, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import VMRNNConfig


def model_card(
    network: VMRNNConfig, trained_on: str, judged_on: str, budget: Mapping[str, Any], summary: Mapping[str, Any]
) -> str:
    """Markdown from the budget and from what `Evaluation.summary` returns."""
    forecasts = {
        "this network": summary,
        "last frame repeated": summary["baseline_last_frame"],
        "linear extrapolation": summary["baseline_linear"],
    }
    spent = "".join(f"| {key} | {value} |\n" for key, value in budget.items())
    metrics = [name for name in ("mse", "mae", "ssim", "psnr", "ssim_published") if name in summary]
    scores = "".join(
        f"| {label} |" + "".join(f" {_number(scores[name])} |" for name in metrics) + "\n"
        for label, scores in forecasts.items()
    )
    ahead = "".join(
        f"| +{step + 1} |" + "".join(f" {_number(s['per_frame']['mse'][step])} |" for s in forecasts.values()) + "\n"
        for step in range(len(summary["per_frame"]["mse"]))
    )
    shape = f"patch {network.patch_size}, width {network.embed_dim}, {network.image_channels} channel(s)"
    return f"""# VMRNN-{network.variant}, {shape}

Trained on {trained_on}: {network.context} frames in, {network.horizon} out.

| budget | |
|---|---|
{spent}
On {summary["clips"]} clips of {judged_on}. MSE and MAE are sums over the pixels of a frame;
SSIM has a data range of 1, as published one of 2.

| forecast |{"".join(f" {name.replace('_', ' ')} |" for name in metrics)}
|---|{"---|" * len(metrics)}
{scores}
MSE by frames ahead:

| ahead |{"".join(f" {label} |" for label in forecasts)}
|---|---|---|---|
{ahead}"""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
