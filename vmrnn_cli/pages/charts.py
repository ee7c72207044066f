"""Charts of a page, as SVG that takes its colours from the page's style sheet, so that they follow dark and light.

A series has a class: "ours" and "s1", "s2" and so on for the others. Lines carry their points, and a chart the place of
its axes, for the page's script to move a cursor over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from . import number

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 42
_MOST_POINTS = 400

Pair = Sequence[float] | None


class Series(NamedTuple):
    """A line: y over x; None where there is no value.

    intervals : an interval of each value, drawn as a band
    css : its class
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    css: str
    intervals: Sequence[Pair] | None = None


class Point(NamedTuple):
    """A point of a scatter, as it is given in values, and as it is drawn in pixels of the chart.

    clip : the number of what it opens, None for nothing
    css : its class
    """

    x: float
    y: float
    label: str
    clip: int | None
    css: str = "ours"


class Line(NamedTuple):
    """A series as it is drawn: SVG paths, and the points that a cursor finds, in pixels of the chart."""

    label: str
    css: str
    path: str
    band: str
    dots: list[tuple[float, float]]


class Tick(NamedTuple):
    """A mark of an axis, in pixels of the chart."""

    place: float
    label: str


class Chart(NamedTuple):
    """What the template draws.

    domain : of x, at the left and right edge of the axes
    """

    x_label: str
    y_label: str
    described: str
    lines: list[Line]
    dots: list[Point]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    domain: tuple[float, float]
    diagonal: str
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


class _Axis:
    """Values to pixels."""

    def __init__(self, low: float, high: float, first: float, last: float, *, log: bool = False) -> None:
        self.log = log
        if high <= low:
            low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
        self.low, self.high, self._first, self._last = low, high, first, last

    def place(self, value: float) -> float:
        scaled = math.log if self.log else float
        a, b, v = scaled(self.low), scaled(self.high), scaled(value)
        return round(self._first + (v - a) / (b - a) * (self._last - self._first), 1)

    def ticks(self, wanted: int = 5, whole: bool = False) -> list[Tick]:
        values = _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high, wanted, whole)
        return [Tick(self.place(value), _short(value)) for value in values]


def lines(
    series: Sequence[Series], x_label: str, y_label: str, *, log: bool = False, zero: bool = False
) -> Chart:  # fmt: skip
    """A line chart.

    Args:
        series: at least one, with the same unit.
        x_label: what x is.
        y_label: what y is, with its unit.
        log: a logarithmic y axis; values must be above 0, others are left out.
        zero: y begins at 0.
    """
    xs = [x for each in series for x in each.x]
    values = [y for each in series for y in each.y]
    edges = [edge for each in series for pair in each.intervals or () for edge in pair or ()]
    kept = [value for value in (*values, *edges) if value is not None and _drawable(value, log)] or [0.1, 1.0]
    low, high = min(kept), max(kept)
    low = 0.0 if zero else low
    margin = 0.0 if log else 0.06 * (high - low)
    x_axis = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis(low if zero else low - margin, high + margin, _HEIGHT - _BOTTOM, _TOP, log=log)
    drawn = [_line(each, x_axis, y_axis, log) for each in series]
    described = "; ".join(_in_words(each, log) for each in series)
    whole = all(float(x).is_integer() for x in xs)
    domain = x_axis.low, x_axis.high
    return Chart(
        x_label, y_label, f"{y_label} by {x_label}. {described}", drawn, [], x_axis.ticks(6, whole), y_axis.ticks(),
        domain, "",
    )  # fmt: skip


def scatter(points: Sequence[Point], x_label: str, y_label: str) -> Chart:
    """Points on two logarithmic axes of one range, with the diagonal where both are equal; 0 lies at the edge."""
    values = [value for point in points for value in (point.x, point.y) if value > 0] or [1.0]
    low, high = min(values) / 1.15, max(values) * 1.15
    x_axis = _Axis(low, high, _LEFT, _WIDTH - _RIGHT, log=True)
    y_axis = _Axis(low, high, _HEIGHT - _BOTTOM, _TOP, log=True)
    dots = [p._replace(x=x_axis.place(max(p.x, low)), y=y_axis.place(max(p.y, low))) for p in points]
    below = sum(point.y < point.x for point in points)
    described = f"{y_label} against {x_label}: lower on {below} of {len(points)} clips"
    diagonal = f"M{_LEFT} {_HEIGHT - _BOTTOM}L{_WIDTH - _RIGHT} {_TOP}"
    return Chart(
        x_label, y_label, described, [], dots, x_axis.ticks(), y_axis.ticks(), (low, high), diagonal
    )  # fmt: skip


def thinned(x: Sequence[float], y: Sequence[float], most: int = _MOST_POINTS) -> tuple[list[float], list[float]]:
    """Means of neighbours, so that at most so many points are left."""
    step = math.ceil(len(x) / most) if x else 1
    parts = [slice(first, first + step) for first in range(0, len(x), step)]
    return [x[part][-1] for part in parts], [sum(y[part]) / len(y[part]) for part in parts]


def _drawable(value: float | None, log: bool) -> bool:
    return value is not None and math.isfinite(value) and (value > 0 or not log)


def _line(series: Series, x_axis: _Axis, y_axis: _Axis, log: bool) -> Line:
    known = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None and _drawable(y, log)]
    dots = [(x_axis.place(x), y_axis.place(y)) for x, y in known]
    band = ""
    pairs = [(x, pair) for x, pair in zip(series.x, series.intervals or (), strict=False) if pair]
    if pairs and all(_drawable(edge, log) for _, pair in pairs for edge in pair):
        upper = [(x_axis.place(x), y_axis.place(pair[1])) for x, pair in pairs]
        lower = [(x_axis.place(x), y_axis.place(pair[0])) for x, pair in reversed(pairs)]
        band = f"M{'L'.join(f'{x} {y}' for x, y in upper + lower)}Z"
    path = f"M{'L'.join(f'{x} {y}' for x, y in dots)}" if dots else ""
    return Line(series.label, series.css, path, band, dots)


def _in_words(series: Series, log: bool) -> str:
    known = [y for y in series.y if _drawable(y, log)]
    return f"{series.label}: from {number(known[0])} to {number(known[-1])}" if known else f"{series.label}: none"


def _ticks(low: float, high: float, wanted: int, whole: bool) -> list[float]:
    """Round numbers in a range, about so many."""
    rough = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * unit or (unit == 1e6 and abs(value) >= unit):
            return f"{value / unit:.4g} {name}"
    return number(value)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in a range, with halves and doubles between them where there are few, and no two at one place."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [f * 10.0**p for p, f in itertools.product(powers, factors) if low <= f * 10.0**p <= high]
        if len(found) >= 3:
            return found
    return [low * (high / low) ** (n / 3) for n in range(4)]
