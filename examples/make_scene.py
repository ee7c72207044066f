"""Draw a street with a car, a walker and a ball: what footage is like, and ours to show.

    python examples/make_scene.py --out examples --seed 0

It writes scene.mp4, 384x256 in colour at 25 frames per second. Of the 30 frames the first 10 are meant as context and
the last 20 as truth.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vmrnn_cli.errors import run_script
from vmrnn_cli.video import write_video

FPS = 25
WIDTH, HEIGHT, PIXELS = 192, 128, 2  # everything is placed in units of so many pixels
FINER = 4  # drawn so many times as large, for smooth edges
SCALE = PIXELS * FINER

Colour = tuple[int, int, int]


def street(rng: np.random.Generator) -> Image.Image:
    """What does not move: sky, houses with windows, a road with a rough surface."""
    down = np.linspace(0, 1, HEIGHT * SCALE)[:, None, None]
    sky = (1 - down) * np.array([120, 170, 225]) + down * np.array([225, 225, 215])
    image = Image.fromarray(sky.repeat(WIDTH * SCALE, 1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    left = 0
    while left < WIDTH:
        width, top = int(rng.integers(18, 34)), int(rng.integers(18, 45))
        wall = [(168, 92, 74), (196, 168, 128), (132, 138, 150), (182, 146, 100)][rng.integers(4)]
        shade = rng.uniform(0.75, 1.1)
        _box(draw, left, top, left + width, 84, _shaded(wall, shade))
        for y in range(top + 5, 74, 11):
            for x in range(left + 4, left + width - 5, 8):
                _box(draw, x, y, x + 4, y + 6, _shaded((60, 74, 92), rng.uniform(0.6, 1.6)))
        left += width
    _box(draw, 0, 84, WIDTH, HEIGHT, (104, 104, 108))
    _box(draw, 0, 92, WIDTH, 93, (190, 186, 160))
    rough = rng.normal(0, 6, (HEIGHT * SCALE // 8, WIDTH * SCALE // 8, 1)).repeat(8, 0).repeat(8, 1)
    rough[: 84 * SCALE] = 0
    return Image.fromarray((np.asarray(image) + rough).clip(0, 255).astype(np.uint8))


def _shaded(colour: Colour, shade: float) -> Colour:
    red, green, blue = (min(255, round(channel * shade)) for channel in colour)
    return red, green, blue


def draw_frame(background: Image.Image, t: int) -> Image.Image:
    """Frame t of the clip."""
    image = background.copy()
    draw = ImageDraw.Draw(image)
    car = -14 + 2.6 * t
    _box(draw, car, 96, car + 34, 106, (196, 44, 40))
    _box(draw, car + 7, 89, car + 26, 96, (180, 40, 38))
    _box(draw, car + 10, 91, car + 16, 95, (150, 190, 210))
    _box(draw, car + 18, 91, car + 24, 95, (150, 190, 210))
    for wheel in (car + 8, car + 26):
        _disc(draw, wheel, 106, 4, (24, 24, 26))
    walker, swing = 150 - 0.9 * t, 5 * math.sin(t * 0.55)
    for side in (-1, 1):
        _line(draw, walker, 100, walker + side * swing, 112, 3, (40, 44, 60))  # legs
        _line(draw, walker, 90, walker - side * swing * 0.8, 98, 2, (52, 80, 130))  # arms
    _line(draw, walker, 88, walker, 101, 6, (44, 70, 120))
    _disc(draw, walker, 84, 3.5, (226, 180, 150))
    height = 22 * abs(math.sin(0.16 * t + 0.5))
    _disc(draw, 30 + 1.1 * t, 118 - height, 4, (250, 214, 60))
    return image


def _box(draw: ImageDraw.ImageDraw, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    draw.rectangle([left * SCALE, top * SCALE, right * SCALE - 1, bottom * SCALE - 1], fill=colour)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    draw.ellipse([(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE], fill=colour)


def _line(draw: ImageDraw.ImageDraw, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> None:
    draw.line([x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE], fill=colour, width=round(width * SCALE))


def moving_scene(rng: np.random.Generator, frames: int = 30, noise: float = 1.5) -> NDArray[np.uint8]:
    """(frames, H, W, 3), with the noise of a camera."""
    background = street(rng)
    clip = np.stack([np.asarray(draw_frame(background, t).reduce(FINER)) for t in range(frames)])
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
            writer.write(frame)


if __name__ == "__main__":
    run_script(main)
