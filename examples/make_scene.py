"""Draw a street with a car, a walker and a ball: what footage is like, and ours to show.

    python examples/make_scene.py --out examples --seed 0

It writes scene.mp4, 128x128 gray at 25 frames per second. Of the 30 frames the first 10 are meant as context and the
last 20 as truth.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vmrnn_cli.errors import run_script
from vmrnn_cli.video import write_video

FPS, SIDE, SCALE = 25, 128, 4  # drawn SCALE times as large, for smooth edges


def street(rng: np.random.Generator) -> Image.Image:
    """What does not move: sky, houses with windows, a road with a rough surface."""
    image = Image.fromarray(np.linspace(200, 160, SIDE * SCALE).astype(np.uint8)[:, None].repeat(SIDE * SCALE, 1))
    draw = ImageDraw.Draw(image)
    left = 0
    while left < SIDE:
        width, top = int(rng.integers(18, 34)), int(rng.integers(18, 45))
        _box(draw, left, top, left + width, 84, int(rng.integers(80, 150)))
        for y in range(top + 5, 74, 11):
            for x in range(left + 4, left + width - 5, 8):
                _box(draw, x, y, x + 4, y + 6, int(rng.integers(30, 70)))
        left += width
    _box(draw, 0, 84, SIDE, SIDE, 105)
    _box(draw, 0, 92, SIDE, 93, 150)
    rough = rng.normal(0, 6, (SIDE * SCALE // 8, SIDE * SCALE // 8)).repeat(8, 0).repeat(8, 1)
    rough[: 84 * SCALE] = 0
    return Image.fromarray((np.asarray(image) + rough).clip(0, 255).astype(np.uint8))


def draw_frame(background: Image.Image, t: int) -> Image.Image:
    """Frame t of the clip."""
    image = background.copy()
    draw = ImageDraw.Draw(image)
    car = -14 + 2.6 * t
    _box(draw, car, 96, car + 34, 106, 225)
    _box(draw, car + 7, 89, car + 26, 96, 205)
    _box(draw, car + 10, 91, car + 16, 95, 60)
    _box(draw, car + 18, 91, car + 24, 95, 60)
    for wheel in (car + 8, car + 26):
        _disc(draw, wheel, 106, 4, 20)
    walker, swing = 106 - 0.9 * t, 5 * math.sin(t * 0.55)
    for side in (-1, 1):
        _line(draw, walker, 100, walker + side * swing, 112, 3, 35)  # legs
        _line(draw, walker, 90, walker - side * swing * 0.8, 98, 2, 55)  # arms
    _line(draw, walker, 88, walker, 101, 6, 45)
    _disc(draw, walker, 84, 3.5, 190)
    height = 22 * abs(math.sin(0.16 * t + 0.5))
    _disc(draw, 30 + 1.1 * t, 118 - height, 4, 250)
    return image


def _box(draw: ImageDraw.ImageDraw, left: float, top: float, right: float, bottom: float, gray: int) -> None:
    draw.rectangle([left * SCALE, top * SCALE, right * SCALE - 1, bottom * SCALE - 1], fill=gray)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, gray: int) -> None:
    draw.ellipse([(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE], fill=gray)


def _line(draw: ImageDraw.ImageDraw, x0: float, y0: float, x1: float, y1: float, width: float, gray: int) -> None:
    draw.line([x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE], fill=gray, width=round(width * SCALE))


def moving_scene(rng: np.random.Generator, frames: int = 30, noise: float = 1.5) -> NDArray[np.uint8]:
    """(frames, 128, 128), with the noise of a camera, in gray levels."""
    background = street(rng)
    clip = np.stack([np.asarray(draw_frame(background, t).reduce(SCALE)) for t in range(frames)])
    return (clip + rng.normal(0, noise, clip.shape)).round().clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: this one)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another street (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=30, help="length of the clip (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.frames < 1 or arguments.seed < 0:
        parser.error("--frames must be at least 1 and --seed at least 0")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with write_video(arguments.out / "scene.mp4", fps=FPS, overwrite=True) as writer:
        for frame in moving_scene(np.random.default_rng(arguments.seed), arguments.frames):
            writer.write(np.repeat(frame[:, :, None], 3, axis=2))  # (H, W, 3)


if __name__ == "__main__":
    run_script(main)
