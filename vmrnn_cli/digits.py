"""Handwritten-looking digits, drawn from strokes.

Notation: H height, W width. Pictures are uint8, ink is white (255) on black (0).

They need no file, so that examples and tests work anywhere. They keep MNIST's geometry (28x28 pixels, the digit scaled
into a box of 20x20, its centre of mass in the middle) and its stroke width.
"""

import numpy as np
from numpy.typing import NDArray

DIGIT_SIZE = 28
INK_BOX = 20.0  # pixels: the longer side of the ink, as in MNIST
STEP = 0.1  # of the free range a digit moves per frame, as in the published Moving MNIST

# The ways people write each digit, a line for each form: strokes divided by "/"; a stroke is the points "x y" that the
# pen passes through on a smooth curve, in percent (x to the right, y down). A point given twice is a corner.
_FORMS = (
    (0, "55 0, 22 14, 8 50, 20 88, 48 100, 80 84, 90 48, 78 12, 52 1"),
    (0, "70 8, 40 2, 15 30, 12 70, 38 98, 72 85, 90 50, 82 15, 50 3"),
    (1, "52 0, 50 50, 48 100"),
    (1, "56 0, 50 30, 48 70, 50 100"),
    (1, "32 20, 52 0, 52 0, 51 50, 50 100"),
    (2, "14 24, 30 5, 58 0, 80 20, 70 48, 40 78, 10 98, 10 98, 50 95, 92 97"),
    (2, "12 20, 36 2, 70 6, 80 32, 60 64, 32 94, 10 92, 14 74, 40 76, 66 94, 95 90"),
    (3, "16 10, 45 0, 76 12, 70 36, 42 48, 42 48, 76 58, 84 80, 52 100, 12 92"),
    (3, "14 14, 40 0, 72 8, 74 30, 44 46, 70 54, 82 76, 60 97, 30 99, 10 86"),
    (4, "20 4, 14 34, 16 54, 40 57, 84 50 / 80 0, 75 40, 72 100"),
    (4, "60 0, 34 34, 8 64, 8 64, 50 64, 95 62 / 66 30, 66 65, 64 100"),
    (4, "70 0, 40 32, 10 62, 10 62, 50 64, 92 60 / 70 2, 69 50, 66 100"),
    (5, "28 4, 25 24, 22 46, 22 46, 50 38, 80 52, 82 80, 54 100, 14 92 / 28 4, 60 3, 88 0"),
    (5, "86 0, 58 2, 30 6, 30 6, 24 26, 20 44, 20 44, 56 44, 78 66, 66 92, 36 100, 10 88"),
    (6, "68 0, 40 18, 18 50, 16 82, 42 100, 74 88, 80 66, 58 53, 30 64, 19 80"),
    (6, "50 0, 28 30, 18 68, 32 96, 62 98, 80 78, 66 60, 40 62, 22 78"),
    (7, "10 8, 45 4, 86 2, 86 2, 66 35, 50 66, 40 100"),
    (7, "10 20, 14 6, 14 6, 50 5, 86 5, 86 5, 70 40, 56 70, 48 100"),
    (7, "10 6, 50 4, 86 3, 86 3, 64 42, 44 100 / 34 52, 58 50, 84 47"),
    (8, "76 14, 50 0, 24 16, 34 38, 56 52, 76 76, 56 99, 26 92, 26 70, 50 50, 76 28, 74 13"),
    (8, "50 46, 26 28, 36 4, 64 2, 76 22, 54 46, 28 66, 24 88, 50 100, 76 86, 70 62, 48 45"),
    (9, "78 14, 52 2, 26 18, 26 42, 52 50, 74 34, 79 12, 79 12, 76 50, 70 100"),
    (9, "76 20, 50 0, 24 20, 30 46, 56 46, 76 18, 78 50, 68 86, 44 100, 20 92"),
)


def draw_digit(value: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one digit in a hand that changes with every call.

    value : 0 to 9
    rng : source of the form, proportions, slant, wobble and thickness
    returns : (28, 28) uint8, white on black
    raises : ValueError for a value that is no digit
    """
    forms = [form for digit, form in _FORMS if digit == value]
    if not forms:
        raise ValueError(f"not a digit: {value!r}")
    form = forms[rng.integers(len(forms))]
    radius = rng.uniform(0.8, 1.75)  # pixels: half the pen's width
    strokes = [_jitter(_points(stroke), rng) for stroke in form.split("/")]
    path = np.concatenate([_smooth(stroke) for stroke in strokes])
    points = _into_box(_slant_and_stretch(path, rng), radius)
    return _ink(points, radius * _pressure(len(points), rng))


def _points(stroke: str) -> NDArray[np.float64]:
    """Read the points (P, 2) of a stroke, from percent to the unit square."""
    return np.array([point.split() for point in stroke.split(",")], float) / 100


def _jitter(points: NDArray[np.float64], rng: np.random.Generator, amount: float = 0.027) -> NDArray[np.float64]:
    """Move every point (P, 2) of a stroke a little; the two points of a corner move together."""
    offsets = rng.normal(0, amount, points.shape)
    corner = np.flatnonzero(np.all(points[1:] == points[:-1], axis=1))
    offsets[corner + 1] = offsets[corner]
    return points + offsets


def _smooth(points: NDArray[np.float64], samples: int = 16) -> NDArray[np.float64]:
    """Catmull-Rom curve through the points (P, 2), with about `samples` points between two of them."""
    a, b, c, d = (np.concatenate([points[:1], points, points[-1:]])[i : len(points) - 1 + i, None] for i in range(4))
    s = np.linspace(0, 1, samples, endpoint=False)[:, None]
    curve = b + 0.5 * s * (c - a + s * (2 * a - 5 * b + 4 * c - d + s * (3 * (b - c) + d - a)))  # (P - 1, samples, 2)
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])


def _slant_and_stretch(points: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Lean, turn and widen the points (S, 2) as different hands do."""
    slant, turn, width = rng.normal(0.12, 0.16), rng.normal(0, 0.08), rng.uniform(0.65, 1.0)
    shear = np.array([[width, -slant], [0, 1]])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ (rotation @ shear).T


def _into_box(points: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Scale the points (S, 2) so that the ink fills the box, its centre of mass in the picture's middle."""
    extent = (points.max(axis=0) - points.min(axis=0)).max()
    points = (points - points.mean(axis=0)) * (INK_BOX - 2 * radius) / extent + DIGIT_SIZE / 2
    margin = 1.2 * radius + 1  # a top-heavy digit (7) must not leave the picture: it moves back inside
    below, above = margin - points.min(axis=0), points.max(axis=0) - (DIGIT_SIZE - margin)
    return points + below.clip(min=0) - above.clip(min=0)


def _pressure(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Relative thickness along the path, (S,): the pen presses harder here and softer there."""
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2)
    return 1 + 0.14 * np.sin(phase + 2 * np.pi * waves * np.linspace(0, 1, count))


def _ink(points: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Paint discs of the given radii (S,) at the points (S, 2), with soft edges a pixel wide."""
    centres = np.arange(DIGIT_SIZE) + 0.5
    dx, dy = centres - points[:, :1], centres - points[:, 1:]  # (S, 28) each
    distance = np.hypot(dx[:, None, :], dy[:, :, None])  # (S, H, W)
    depth = (radii[:, None, None] - distance).max(axis=0)  # pixels inside the outline
    return np.round(255 * np.clip(0.5 + depth, 0, 1)).astype(np.uint8)
