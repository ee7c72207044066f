"""Temper a residual network: drop weak changes until SSIM too beats the last frame repeated.

    python examples/temper.py runs/natural/best --data clips --out runs/natural/tempered

A network trained for the least squared error changes more than SSIM forgives where nothing happens. `shrink` of its
configuration drops what is weaker than a threshold. This takes the smallest one with which, on the validation split,
both MSE and SSIM beat the last frame at every step ahead.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from vmrnn_cli import checkpoints, data
from vmrnn_cli.evaluate import evaluate
from vmrnn_cli.predictor import Predictor

THRESHOLDS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
MARGIN = 0.001  # of SSIM, for what the validation split does not show


def main() -> None:
    """Print a line for each threshold tried, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = checkpoints.load_model(options.weights)
    if not model.config.residual:
        parser.error(f"{options.weights} is not residual: its output is no change")
    context, horizon = model.config.context, model.config.horizon
    clips = data.open_dataset(
        options.data, split="val", context=context, horizon=horizon, size=min(model.config.image_size)
    )
    for threshold in THRESHOLDS:
        model.config = dataclasses.replace(model.config, shrink=threshold)
        scores = evaluate(Predictor(model), clips, context=context, horizon=horizon, names=("mse", "ssim")).summary()
        ours, last = scores["per_frame"], scores["baseline_last_frame"]["per_frame"]
        gain = np.array(ours["ssim"]) - last["ssim"]
        ratio = np.array(ours["mse"]) / last["mse"]
        print(
            f"threshold {threshold}: MSE {ratio.min():.3f} to {ratio.max():.3f} of the last frame's, "
            f"SSIM {gain.min():+.4f} to {gain.max():+.4f}",
            flush=True,
        )
        if gain.min() > MARGIN and ratio.max() < 1:
            break
    else:
        parser.error(f"no threshold makes {options.weights} better than the last frame")
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoints.save_model(model, options.out)


if __name__ == "__main__":
    main()
