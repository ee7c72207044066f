"""Draw a clip of two bouncing handwritten digits, the classic first test of video prediction.

    python examples/make_digits.py --out examples --seed 2

It writes digits.npz (key `frames`: (T, 64, 64) uint8) and digits.mp4. Of the standard 20 frames the first 10 are meant
as context and the last 10 as truth.
"""

import argparse
from pathlib import Path

import numpy as np

from vmrnn_cli.digits import moving_digits
from vmrnn_cli.errors import run_script
from vmrnn_cli.outputs import atomic_path
from vmrnn_cli.video import write_video

FPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: this one)"
    )
    parser.add_argument("--seed", type=int, default=2, help="another seed, other digits (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=20, help="length of the clip (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.frames < 1 or arguments.seed < 0:
        parser.error("--frames must be at least 1 and --seed at least 0")

    clip = moving_digits(np.random.default_rng(arguments.seed), frames=arguments.frames)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(arguments.out / "digits.npz", overwrite=True) as path:
        np.savez_compressed(path, frames=clip)
    with write_video(arguments.out / "digits.mp4", fps=FPS, overwrite=True) as writer:
        for frame in clip:
            writer.write(np.repeat(frame[:, :, None], 3, axis=2))  # (H, W, 3)


if __name__ == "__main__":
    run_script(main)
