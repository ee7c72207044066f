"""Score weights on BikeNYC's last ten days beside forecasts that cost nothing, among them the same hour yesterday.

    vmrnn train --data bikenyc.npz --preset vmrnn-b-bikenyc --out runs/bikenyc
    python examples/training/bikenyc.py bikenyc.npz --weights runs/bikenyc/best --chart forecast.png

`bikenyc.npz` holds `frames` (T, 2, 16, 8), hourly flows. Errors are in bikes an hour: root mean squared, mean absolute.
The chart shows the busiest cell over the first week.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray

from vmrnn_cli.data.arrays import BikeNYC
from vmrnn_cli.errors import run_script
from vmrnn_cli.frames import only_array, read_arrays
from vmrnn_cli.outputs import atomic_path
from vmrnn_cli.predictor import Predictor, load_weights
from vmrnn_cli.rivals import RIVAL_NAMES, RIVALS

DAY = 24


def main() -> None:
    """Print the table and draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", default="vmrnn-b-bikenyc")
    parser.add_argument("--chart", type=Path, help="a PNG to draw")
    options = parser.parse_args()
    frames = only_array(options.data, read_arrays(options.data).arrays)  # (T, C, H, W)
    model, name = load_weights(options.weights)
    context, horizon = model.config.context, model.config.horizon
    windows = BikeNYC(options.data.stem, frames, "test", context, horizon, model.config.divided_by)
    rng = np.random.default_rng(0)
    clips = np.stack([windows.frames(index, rng) for index in range(len(windows))])  # (B, T, C, H, W)
    given, truth = clips[:, :context], clips[:, context:]
    starts = np.array(windows.starts)[:, None] + context - DAY + np.arange(horizon)
    yesterday = frames[starts] / windows.divided_by
    forecasts = {
        name: Predictor(model).batch(given, horizon),
        "same hour yesterday": yesterday,
        **{RIVAL_NAMES[key]: np.stack(list(rival(given, horizon)), 1) for key, rival in RIVALS.items()},
    }
    print(f"{len(clips)} windows, {context} hours in, {horizon} out")
    print(f"| {'forecast':<22} | RMSE | MAE  |" + "".join(f" RMSE +{h} |" for h in range(1, horizon + 1)))
    print(f"|{'-' * 24}|------|------|" + "---------|" * horizon)
    for label, forecast in forecasts.items():
        error = (forecast - truth) * windows.divided_by
        ahead = np.sqrt(np.square(error).mean((0, 2, 3, 4)))
        row = f"| {label:<22} | {np.sqrt(np.square(error).mean()):4.2f} | {np.abs(error).mean():4.2f} |"
        print(row + "".join(f" {value:7.2f} |" for value in ahead))
    if options.chart is not None:
        draw_chart(options.chart, truth * windows.divided_by, {k: v * windows.divided_by for k, v in forecasts.items()})


def draw_chart(path: Path, truth: NDArray[np.float32], forecasts: dict[str, NDArray[np.float32]]) -> None:
    """The flows of the busiest cell, hour by hour, and what was forecast for each as far ahead as it goes.

    Forecasts and truth are (B, T, C, H, W), one window an hour.
    """
    horizon = truth.shape[1]
    busiest = truth[:, -1].sum(1).mean(0).argmax()

    def flow(frames: NDArray[np.float32]) -> NDArray[np.float32]:
        return frames[: 7 * DAY, -1].sum(1).reshape(-1, truth.shape[-2] * truth.shape[-1])[:, busiest]

    network, yesterday, last = list(forecasts)[:3]
    figure, axes = pyplot.subplots(figsize=(9, 3.5), layout="constrained")
    axes.plot(flow(truth), "k", lw=1.5, label="truth")
    for label, style in ((network, "C1"), (yesterday, "C0:"), (last, "C7:")):
        axes.plot(flow(forecasts[label]), style, lw=1.2, label=f"{label}, +{horizon} h")
    axes.set(xlabel="hour", ylabel="bikes in and out an hour", xlim=(0, 7 * DAY), xticks=range(0, 7 * DAY + 1, DAY))
    figure.legend(loc="outside upper center", ncols=4, fontsize="small")
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=100)


if __name__ == "__main__":
    run_script(main)
