"""Score weights on BikeNYC's last ten days beside forecasts that cost nothing, among them the same hour yesterday.

    vmrnn train --data bikenyc.npz --preset vmrnn-b-bikenyc --out runs/bikenyc
    python examples/bikenyc.py bikenyc.npz --weights runs/bikenyc/best

`bikenyc.npz` holds `frames` (T, 2, 16, 8), hourly flows. Errors are in bikes an hour: root mean squared, mean absolute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vmrnn_cli.data.arrays import GridWindows
from vmrnn_cli.evaluate import last_frame, linear_extrapolation
from vmrnn_cli.frames import only_array, read_arrays
from vmrnn_cli.predictor import Predictor, load_weights

DAY = 24


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="vmrnn-b-bikenyc")
    options = parser.parse_args()
    frames = only_array(options.data, read_arrays(options.data))  # (T, C, H, W)
    model, name = load_weights(options.weights)
    context, horizon = model.config.context, model.config.horizon
    windows = GridWindows(options.data.stem, frames, "test", context, horizon)
    rng = np.random.default_rng(0)
    clips = np.stack([windows.clip(index, rng) for index in range(len(windows))])  # (B, T, C, H, W)
    given, truth = clips[:, :context], clips[:, context:]
    starts = np.array(windows.starts)[:, None] + context - DAY + np.arange(horizon)
    yesterday = np.minimum(frames[starts] / windows.scale, 1)
    forecasts = {
        name: Predictor(model).batch(given, horizon),
        "same hour yesterday": yesterday,
        "last frame repeated": last_frame(given, horizon),
        "linear extrapolation": linear_extrapolation(given, horizon),
    }
    print(f"{len(clips)} windows, {context} hours in, {horizon} out")
    print(f"| {'forecast':<22} | RMSE | MAE  |" + "".join(f" RMSE +{h} |" for h in range(1, horizon + 1)))
    print(f"|{'-' * 24}|------|------|" + "---------|" * horizon)
    for label, forecast in forecasts.items():
        error = (forecast - truth) * windows.scale
        ahead = np.sqrt(np.square(error).mean((0, 2, 3, 4)))
        row = f"| {label:<22} | {np.sqrt(np.square(error).mean()):4.2f} | {np.abs(error).mean():4.2f} |"
        print(row + "".join(f" {value:7.2f} |" for value in ahead))


if __name__ == "__main__":
    main()
