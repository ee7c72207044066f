"""Model cards: README.md of a weights folder, what it was trained on and for how long, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import VMRNNConfig


def model_card(
    network: VMRNNConfig, trained_on: str, judged_on: str, budget: Mapping[str, Any], summary: Mapping[str, Any]
) -> str:
    """Markdown from the budget and from what `Evaluation.summary` returns."""
    last, linear = summary["baseline_last_frame"], summary["baseline_linear"]
    spent = "".join(f"| {key} | {value} |\n" for key, value in budget.items())
    ahead = zip(summary["per_frame"]["mse"], last["per_frame"]["mse"], linear["per_frame"]["mse"], strict=True)
    rows = "".join(
        f"| +{i} | {ours:.2f} | {repeated:.2f} | {line:.2f} |\n" for i, (ours, repeated, line) in enumerate(ahead, 1)
    )
    shape = f"patch {network.patch_size}, width {network.embed_dim}, {network.image_channels} channel(s)"
    return f"""# VMRNN-{network.variant}, {shape}

Trained by `vmrnn train` on {trained_on}: {network.context} frames in, {network.horizon} out.

| budget | |
|---|---|
{spent}
On {summary["clips"]} clips of {judged_on}, squared error summed over a frame (MSE): {summary["mse"]:.2f}, against
{last["mse"]:.2f} for the last frame repeated and {linear["mse"]:.2f} for linear extrapolation.

| frames ahead | this network | last frame repeated | linear extrapolation |
|---|---|---|---|
{rows}"""
