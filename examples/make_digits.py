"""Draw a clip of two bouncing handwritten digits, the classic first test of video prediction.

    python examples/make_digits.py --out examples --seed 2

It writes digits.npz (key `frames`: (T, 64, 64) uint8) and digits.mp4. Of the standard 20 frames the first 10 are meant
as context and the last 10 as truth.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmrnn_cli.digits import DIGIT_SIZE, STEP, draw_digit
from vmrnn_cli.errors import run_script
from vmrnn_cli.outputs import atomic_path
from vmrnn_cli.video import write_video

FPS, SIZE = 10, 64


def moving_digits(rng: np.random.Generator, frames: int) -> NDArray[np.uint8]:
    """Draw two digits that fly straight, bounce off the walls and pass through each other: (frames, SIZE, SIZE)."""
    clip = np.zeros((frames, SIZE, SIZE), np.uint8)
    for _ in range(2):
        picture = draw_digit(int(rng.integers(10)), rng)
        angle = rng.uniform(0, 2 * np.pi)
        start, velocity = rng.uniform(size=2), STEP * np.array([np.sin(angle), np.cos(angle)])
        unfolded = start + velocity * np.arange(frames)[:, None]  # where it would be if there were no walls
        position = 1 - np.abs(unfolded % 2 - 1)  # a triangle wave folds the straight line at 0 and 1
        corners = (position * (SIZE - DIGIT_SIZE)).astype(int)  # (frames, 2) top, left
        for frame, (top, left) in zip(clip, corners, strict=True):
            window = frame[top : top + DIGIT_SIZE, left : left + DIGIT_SIZE]
            np.maximum(window, picture, out=window)
    return clip


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

    clip = moving_digits(np.random.default_rng(arguments.seed), arguments.frames)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(arguments.out / "digits.npz", overwrite=True) as path:
        np.savez_compressed(path, frames=clip)
    with write_video(arguments.out / "digits.mp4", fps=FPS, overwrite=True) as writer:
        for frame in clip:
            writer.write(np.repeat(frame[:, :, None], 3, axis=2))  # (H, W, 3)


if __name__ == "__main__":
    run_script(main)
