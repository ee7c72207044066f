"""Temper a residual network: drop weak changes until SSIM too beats the last frame repeated, on most clips.

    python examples/temper.py runs/natural/best --data clips --out runs/natural/tempered

A network trained for the least squared error changes more than SSIM forgives where nothing happens, and a mean over
clips hardly notices. `shrink` of its configuration drops what is weaker than a threshold. Of those with which, on the
validation split, both MSE and SSIM beat the last frame at every step ahead, this takes the least with which they do so
on the most clips.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from vmrnn_cli import data
from vmrnn_cli.errors import run_script
from vmrnn_cli.evaluate import evaluate
from vmrnn_cli.outputs import atomic_folder
from vmrnn_cli.predictor import Predictor
from vmrnn_cli.pretrained import load_model, save_model

THRESHOLDS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03)
TOLERANCE = 0.02  # of the two shares of clips together: one clip more is not worth a stronger filter


def main() -> None:
    """Print a line for each threshold, and write the weights with the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = load_model(options.weights)
    if not model.config.residual:
        parser.error(f"{options.weights} is not residual: its output is no change")
    context, horizon = model.config.context, model.config.horizon
    clips = data.open_dataset(
        options.data, split="val", context=context, horizon=horizon, size=min(model.config.image_size)
    )
    shares = {}
    for threshold in THRESHOLDS:
        model.config = dataclasses.replace(model.config, shrink=threshold)
        scores = evaluate(Predictor(model), clips, context=context, horizon=horizon, names=("mse", "ssim"))
        ours, last = scores.model.values, scores.baselines["baseline_last_frame"].values
        mse, ssim = (np.array([ours[name], last[name]]) for name in ("mse", "ssim"))  # (2, clips, frames ahead)
        ratio = mse[0].mean(0) / mse[1].mean(0)
        gain = (ssim[0] - ssim[1]).mean(0)
        better_mse = (mse[0].mean(1) < mse[1].mean(1)).mean()
        better_ssim = (ssim[0].mean(1) > ssim[1].mean(1)).mean()
        print(
            f"threshold {threshold}: MSE {ratio.min():.3f} to {ratio.max():.3f} of the last frame's, better on "
            f"{better_mse:.0%} of clips; SSIM {gain.min():+.4f} to {gain.max():+.4f}, better on {better_ssim:.0%}",
            flush=True,
        )
        if ratio.max() < 1 and gain.min() > 0:
            shares[threshold] = better_mse + better_ssim
    if not shares:
        parser.error(f"no threshold makes {options.weights} better than the last frame")
    chosen = min(threshold for threshold, share in shares.items() if share > max(shares.values()) - TOLERANCE)
    model.config = dataclasses.replace(model.config, shrink=chosen)
    with atomic_folder(options.out, overwrite=False) as folder:
        save_model(model, folder)
    print(f"shrink {model.config.shrink}, in {options.out}")


if __name__ == "__main__":
    run_script(main)
