"""How a forecast of moving digits depends on their speed: MSE at none, once and twice that of Moving MNIST.

    python examples/training/speeds.py MNIST_FOLDER vmrnn-d-mmnist-small

The clips are those that `vmrnn eval --split test` takes, twice as long, of which every frame, every other or only the
first is shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from vmrnn_cli import data, weights
from vmrnn_cli.data.arrays import ReadyClips
from vmrnn_cli.errors import run_script
from vmrnn_cli.evaluate import FAST, evaluate
from vmrnn_cli.predictor import Predictor

CLIPS = 64


def main() -> None:
    """Print a line for each speed."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model = weights.load(sys.argv[2])
    context, horizon = model.config.context, model.config.horizon
    length = context + horizon
    longer = data.DataSource(Path(sys.argv[1])).clips("test", context=length, horizon=length)
    clips = np.stack([longer.clip(number, np.random.default_rng((0, 0, number))) for number in range(CLIPS)])
    for speed in (0, 1, 2):
        shown = clips[:, np.arange(length) * speed]  # (CLIPS, length, C, H, W)
        scores = evaluate(
            Predictor(model), ReadyClips("digits", shown, length), context=context, horizon=horizon, names=FAST
        ).summary()
        print(f"speed {speed}: MSE {scores['mse']:.1f}, last frame {scores['baseline_last_frame']['mse']:.1f}")


if __name__ == "__main__":
    run_script(main)
