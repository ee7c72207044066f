"""Predict a clip from Python: `python examples/predict_clip.py CLIP OUT`, a video in and a .gif, .mp4 or .npz out."""

import sys

from vmrnn_cli import predict
from vmrnn_cli.errors import run_script


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    forecast = predict(sys.argv[1], frames=10)
    forecast.save(sys.argv[2], overwrite=True)
    print(f"{forecast.title}: {len(forecast.context)} frames given, {forecast.frames} predicted, {forecast.metrics}")


run_script(main)
