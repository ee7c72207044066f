"""What the numbers of an array or a picture mean: which axis is what, what is black and what white, what is missing.

`TABLE` has the rules. README shows it, and everything that reads numbers asks here; nothing else guesses.

Notation: N clips, T time, C channels, H x W pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

FEW, SOME = 4, 16  # channels: up to so many are usual, up to so many are possible
SQUARISH, NARROW = 2.5, 8.0  # the longer side of a frame over the shorter one: usual, possible
ROUNDING = 1e-5  # by which values may miss a range, as computing leaves them
MOVING_MNIST = (20, 64, 64)  # T, H and W of its published test file, (T, N, H, W)

# The layouts that arrays are found in; the usual ones first.
LAYOUTS = {
    "THW": "a gray clip",
    "TCHW": "a clip, or a gridded sequence",
    "NTHW": "gray clips",
    "NTCHW": "clips",
    "THWC": "a clip, channels last",
    "NTHWC": "clips, channels last",
    "TNHW": "gray clips, as in Moving MNIST's test file",
    "CTHW": "a clip, channels first",
    "NCTHW": "clips, channels first",
    "HWT": "a gray clip, time last",
    "NHWT": "gray clips, time last",
    "HWC": "one picture",
}
USUAL = ("THW", "TCHW", "NTHW", "NTCHW")
_WRITE_RANGE = "write the lowest and the highest value: --range 0,255"

# What is found, and what it is taken for: the rules of `arrange`, `units_of` and `fill`, for people.
TABLE = (
    ("axes", "(T, H, W), (T, C, H, W), (N, T, H, W), (N, T, C, H, W)", "as they are"),
    ("axes", "other orders of T, C, H, W and N, where the shape allows one reading only", "so, and it is said"),
    ("axes", "a shape that allows several readings", "refused: `--layout THWC` decides"),
    (
        "axes",
        "what a shape allows",
        f"up to {FEW} channels are usual (or as many as the weights take), up to {SOME} possible; frames up to "
        f"{SQUARISH:g} times as wide as high, or as high as wide, are usual, up to {NARROW:g} times possible; no side "
        "is smaller than the number of channels",
    ),
    ("axes", "(20, N, 64, 64)", "Moving MNIST's test file, unless frames change less along N than along the 20"),
    ("axes", "(20, 64, 64) in a data set", "one clip of such a file"),
    (
        "axes",
        "NetCDF, HDF5, Zarr, and arrays of xarray",
        "time, y and x by CF's attributes, then by their names; other dimensions one by one, or what `--select` says",
    ),
    ("range", "uint8, and images of 8 bits", "0 to 255"),
    ("range", "images of unsigned 16 bits", "0 to 65535"),
    ("range", "images of 32-bit integers that are from 0 to 255", "0 to 255, and it is said"),
    ("range", "bool", "0 to 1"),
    ("range", "floats, and images of floats", "0 to 1; others are refused: `--range LO,HI` decides"),
    ("range", "signed or other integers", "refused: `--range LO,HI` decides"),
    (
        "range",
        "weights that were trained on counts (`divided_by`)",
        "other integers, and floats that exceed 1 or are all whole, are counts; floats with fractions below 1 are 0 "
        "to 1, and it is said",
    ),
    ("range", "floats above 1 that are to be trained on", "0 to the maximum of the training part, kept in the weights"),
    ("range", "grids in dBZ, and in %", "0 to 70, and 0 to 100, and it is said"),
    (
        "range",
        "grids in mm/h, and in mm or kg m-2 (sums of some minutes)",
        "decibels of 0.1 to 300, and of 0.01 to 30, what is less as none, and it is said: `--transform`, `--range`",
    ),
    ("range", "grids in other units", "as far as ten scans reach, or those that are trained on, and it is said"),
    ("range", "grids in the units that weights were trained on", "the range and transform of that, and it is said"),
    ("range", "TaxiBJ", "-1 to 1 as published; 0 to 1, where nothing is below 0, and it is said"),
    (
        "missing",
        "NaN, masked values, `--missing V`, an .npz's `missing`, `fill_value` or `mask`, a TIFF's GDAL no-data value, "
        "the transparent value of a gray PNG, `_FillValue` and `missing_value` of grids",
        "missing: filled with the last value known at its place, before that with the low end of the range; left out "
        "of all scores; counted, and said",
    ),
    ("missing", "transparent pixels of other images and videos", "drawn over black"),
    ("missing", "infinite values", "refused: `--missing inf` decides"),
    ("rate", "`fps` in an .npz", "frames per second"),
)  # fmt: skip


def table() -> str:
    """The rules as a table in Markdown."""
    return "| of | what is found | is taken as |\n|---|---|---|\n" + "".join(
        f"| {of} | {found} | {taken} |\n" for of, found, taken in TABLE
    )


# ----------------------------------------------------------------------------------------------------------------------
# What is said of them


@dataclass(frozen=True)
class Declared:
    """What is said of an array or of pictures, by their file or by its user; what is not said is empty.

    layout : one of `LAYOUTS`
    range : the values that are black and white
    missing : the value that stands for none
    variable, select, gaps, transform : of grids (see `grids`): which variable, which slice of other dimensions (name,
        label), what is done where scans are missing, and what makes values less skewed
    """

    layout: str = ""
    range: tuple[float, float] | None = None
    missing: float | None = None
    variable: str = ""
    select: tuple[tuple[str, str], ...] = ()
    gaps: str = ""
    transform: str = ""

    def __post_init__(self) -> None:
        layout = self.layout.upper()
        if layout and (set(layout) - set("NTCHW") or len(set(layout)) < len(layout) or not set("THW") <= set(layout)):
            raise InputError(f"'{self.layout}' is no layout", f"write {', '.join(USUAL)} or another order of them")
        object.__setattr__(self, "layout", layout)
        if self.range is not None:
            low, high = map(float, self.range)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InputError(f"{low:g},{high:g} is no range", _WRITE_RANGE)
            object.__setattr__(self, "range", (low, high))

    @classmethod
    def parse(
        cls, layout: str | None = None, value_range: str | None = None, missing: str | None = None,
        variable: str | None = None, select: Sequence[str] | None = None, gaps: str | None = None,
        transform: str | None = None,
    ) -> Declared:  # fmt: skip
        """What the options `--layout`, `--range`, `--missing`, and those of grids say.

        Raises:
            InputError: they say nothing that there is.
        """
        try:
            limits = [float(limit) for limit in value_range.split(",")] if value_range else None
            if limits is not None and len(limits) != 2:
                raise ValueError
        except ValueError:
            raise InputError(f"'{value_range}' is no range", _WRITE_RANGE) from None
        try:
            number = float(missing) if missing else None
        except ValueError:
            raise InputError(f"'{missing}' is no value", "write a number: --missing -9999") from None
        pairs = tuple((name, label) for name, equals, label in (each.partition("=") for each in select or ()) if equals)
        if len(pairs) < len(select or ()):
            raise InputError("--select takes a dimension and its value", "write --select level=850")
        declared_range = None if limits is None else (limits[0], limits[1])
        return cls(layout or "", declared_range, number, variable or "", pairs, gaps or "", transform or "")

    def over(self, other: Declared) -> Declared:
        """The same, and what `other` says of what this one leaves open."""
        return dataclasses.replace(
            self,
            layout=self.layout or other.layout,
            range=other.range if self.range is None else self.range,
            missing=other.missing if self.missing is None else self.missing,
        )


UNDECLARED = Declared()


# ----------------------------------------------------------------------------------------------------------------------
# Axes


@dataclass(frozen=True)
class Arranged:
    """An array whose axes are known.

    clips : (N, T, C, H, W), a view of the array
    layout : as it was found
    note : what was taken for granted, in a line; "" for nothing
    """

    clips: NDArray[Any]
    layout: str
    note: str = ""


def arrange(
    name: str, array: NDArray[Any], declared: Declared = UNDECLARED, *, channels: int | None = None, among: str = "NT"
) -> Arranged:
    """Find out which axis of an array is what.

    channels : as many as the weights take, if that is known
    among : where layouts may begin: "N" for clips only, "T" for one clip only

    Raises:
        InputError: the shape allows no reading, or several.
    """
    shape = array.shape
    what = f"{name} is shaped {shape}"
    if 0 in shape:
        raise InputError(f"{name} is empty, shaped {shape}", "store at least one frame")
    if declared.layout:
        if len(declared.layout) != array.ndim:
            raise InputError(f"{what}, which is not {_axes(declared.layout)}", "correct --layout")
        return Arranged(_ordered(array, declared.layout), declared.layout)
    known = [layout for layout in LAYOUTS if len(layout) == array.ndim and ("N" if "N" in layout else "T") in among]
    if not known:
        raise InputError(what, f"store frames as {', '.join(map(_axes, USUAL))}")
    levels = {layout: _level(layout, shape, channels) for layout in known}
    odd = not any(levels.values())  # in their proportions
    if odd:
        levels = {layout: _level(layout, shape, channels, proportions=False) for layout in known}
    best = [layout for layout in known if levels[layout] and levels[layout] == max(levels.values())]
    note = ""
    if set(best) == {"NTHW", "TNHW"} and (second := _time_is_second(array)) is not None:
        best = ["NTHW" if second else "TNHW"]
    if len(best) != 1:
        readings = " or ".join(_described(layout, shape) for layout in best or known)
        raise InputError(f"{what}: {readings}?", f"say which with --layout {' or '.join(best or known[:2])}")
    (layout,) = best
    if layout == "HWC":
        raise InputError(f"{what}: one picture", "give several, as (T, H, W, C); or say what it is with --layout")
    if odd or layout not in USUAL:
        note = f"{what}: taken for {_described(layout, shape)}; --layout says otherwise"
    return Arranged(_ordered(array, layout), layout, note)


def one_clip(name: str, array: NDArray[Any], declared: Declared = UNDECLARED, channels: int | None = None) -> Arranged:
    """The same for an array that must be one clip: `clips` is (T, C, H, W).

    Raises:
        InputError: as `arrange`, or it holds several.
    """
    found = arrange(name, array, declared, channels=channels)
    if len(found.clips) > 1:
        raise InputError(
            f"{name} is shaped {array.shape}: {_described(found.layout, array.shape)}, and one is wanted",
            "give one of them, or say what it is with --layout",
        )
    return Arranged(found.clips[0], found.layout, found.note)


def _level(layout: str, shape: tuple[int, ...], channels: int | None, proportions: bool = True) -> int:
    """How likely a shape is to be that of a layout: 2 usual, 1 possible, 0 not."""
    size = dict(zip(layout, shape, strict=True))
    C, T, H, W = (size.get(axis, 1) for axis in "CTHW")
    shorter, longer = min(H, W), max(H, W)
    level = 2 if C <= FEW or channels == C else 1 if C <= SOME else 0
    if shorter < C and C != 1:
        return 0
    if proportions:
        level = min(level, 2 if longer <= SQUARISH * shorter else 1 if longer <= NARROW * shorter else 0)
    if layout == "NTHW":  # so few frames would rather be channels
        level = min(level, 2 if T > SOME else 1 if T > 1 else 0)
    elif layout == "NTCHW":
        level = min(level, 2 if T > 1 else 0)
    elif layout == "TNHW":
        published = (T, H, W) == MOVING_MNIST
        level = min(level, (2 if size["N"] > FEW else 1) if published else 0)
    elif layout in ("CTHW", "NCTHW"):
        level = min(level, (2 if T > SOME else 1 if T > FEW else 0) if C <= FEW else 0)
        if layout == "CTHW" and C == 1:  # the same as one gray clip
            level = 0
    elif layout in ("HWT", "NHWT"):  # square frames with time behind them
        level = min(level, 0 if T in (H, W) else 2 if T > SOME and H == W else 1 if T > FEW else 0)
    elif layout == "HWC":
        level = level if C in (1, 3, 4) and shorter >= 4 * C else 0
    return level


def _time_is_second(array: NDArray[Any]) -> bool | None:
    """Which of two leading axes is time, as frames change less along it; None where that is not clear."""
    first, second = (np.unique(np.linspace(0, size - 2, 8).astype(int)) for size in array.shape[:2])
    pairs = [(i, j) for i in first for j in second]
    along_first = np.mean([_distance(array[i, j], array[i + 1, j]) for i, j in pairs])
    along_second = np.mean([_distance(array[i, j], array[i, j + 1]) for i, j in pairs])
    if not min(along_first, along_second) < 0.85 * max(along_first, along_second):  # nor is NaN
        return None
    return bool(along_second < along_first)


def _distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


def _ordered(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """(N, T, C, H, W), with axes of size 1 for those that the layout lacks."""
    array = array.transpose([layout.index(axis) for axis in "NTCHW" if axis in layout])
    return array[tuple(slice(None) if axis in layout else None for axis in "NTCHW")]


def _axes(layout: str) -> str:
    return f"({', '.join(layout)})"


def _described(layout: str, shape: tuple[int, ...]) -> str:
    """As (T, H, W): 20 frames of 64x48 pixels."""
    size = dict(zip(layout, shape, strict=True))
    parts = [f"{size[axis]} {word}" for axis, word in (("N", "clips"), ("T", "frames")) if axis in size]
    channels = f" and {size['C']} channels" if "C" in size else ""
    return f"{_axes(layout)}, {' of '.join(parts) or 'a picture'} of {size['W']}x{size['H']} pixels{channels}"


# ----------------------------------------------------------------------------------------------------------------------
# Range and missing values


@dataclass(frozen=True)
class Units:
    """What values mean: (value - low) / (high - low) is in [0, 1].

    missing : the value that stands for none; NaN and masked values do so always
    open : whether values may exceed `high`, as counts do
    own : whether forecasts are written in them, and not in [0, 1]
    note : what was taken for granted, in a line; "" for nothing
    """

    low: float = 0.0
    high: float = 1.0
    missing: float | None = None
    open: bool = False
    own: bool = False
    note: str = ""

    @property
    def span(self) -> float:
        """What values are divided by."""
        return self.high - self.low


def units_of(name: str, array: NDArray[Any], declared: Declared = UNDECLARED, divided_by: float | None = 1.0) -> Units:
    """Find out what is black and what white in an array.

    divided_by : of the weights: 1 where they were trained on [0, 1]; None to leave counts as they are

    Raises:
        InputError: its type does not tell.
    """
    kind, missing = array.dtype, declared.missing
    if kind.kind not in "biuf" or kind.itemsize > 8:
        raise InputError(f"{name} holds {kind} values", "store frames as uint8, or as float in [0, 1]")
    if declared.range is not None:
        return Units(*declared.range, missing, own=True)
    if kind.kind == "b":
        return Units(0, 1, missing)
    if kind == np.uint8:
        note = f"{name} holds uint8, taken for 0 to 255 and not for counts; --range says otherwise"
        return Units(0, 255, missing, note=note if divided_by not in (None, 1.0) else "")
    if kind.kind == "f" and divided_by == 1.0:
        return Units(0, 1, missing)
    if kind.kind != "f" and divided_by in (None, 1.0):
        raise InputError(
            f"{name} holds {kind} values, which do not say what is black and what is white",
            f"say it with --range LO,HI: {'--range 0,65535, or less,' if kind == np.uint16 else '--range 0,255,'} say",
        )
    counts = kind.kind != "f" or _are_counts(array, missing)
    if counts:
        return Units(0, 1.0 if divided_by is None else divided_by, missing, open=True, own=True)
    note = f"{name} is taken for values in [0, 1], and not for counts; --range says otherwise"
    return Units(0, 1, missing, note="" if divided_by is None else note)


def _are_counts(array: NDArray[Any], missing: float | None) -> bool:
    """Whether floats exceed 1, or are all whole. Infinite ones are found out when their frame is asked for."""
    whole = True
    for part in array:
        values = _known(part, missing)
        if (values > 1).any():
            return True
        whole = whole and bool((values == np.floor(values)).all())
    return whole


def _known(values: NDArray[Any], missing: float | None) -> NDArray[Any]:
    return np.asarray(values)[~missing_in(values, missing)]


def missing_in(values: NDArray[Any], missing: float | None) -> NDArray[np.bool_]:
    """Where values are missing: masked, NaN, or the value that stands for none."""
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else np.zeros(values.shape, bool)
    plain = np.asarray(values)
    if plain.dtype.kind == "f":
        mask = mask | np.isnan(plain)
        missing = None if missing is None else float(plain.dtype.type(missing))
    return mask if missing is None else mask | (plain == missing)


def survey(name: str, array: NDArray[Any], units: Units) -> int:
    """How many values of an array are missing; a file is read piece by piece.

    Raises:
        InputError: others are infinite or out of range.
    """
    if array.dtype == np.uint8 and units == Units(0, 255) and not isinstance(array, np.ma.MaskedArray):
        return 0
    return sum(int(_missing_if_valid(part, units, name).sum()) for part in array)


def highest(array: NDArray[Any], units: Units) -> float:
    """The highest known value of an array, 0 where none is above."""
    return max([0.0, *(float(known.max()) for part in array if (known := _known(part, units.missing)).size)])


def in_unit(values: NDArray[Any], units: Units, where: str) -> NDArray[np.float32]:
    """Values of any shape in [0, 1], NaN where they are missing; above 1 where the units are open.

    Raises:
        InputError: they are infinite or out of range; `where` says of what.
    """
    plain = np.asarray(values)
    if plain.dtype == np.uint8 and units == Units(0, 255) and not isinstance(values, np.ma.MaskedArray):
        return plain.astype(np.float32) / np.float32(255)
    missing = _missing_if_valid(values, units, where)
    if plain.dtype in (np.float16, np.float32, np.uint8):
        scaled = plain.astype(np.float32)  # a copy
        scaled = scaled if units.low == 0 else scaled - np.float32(units.low)
        scaled = scaled if units.span == 1 else scaled / np.float32(units.span)
    else:
        scaled = ((plain.astype(np.float64) - units.low) / units.span).astype(np.float32)
    scaled[missing] = np.nan
    return np.clip(scaled, 0, None if units.open else 1, out=scaled)


def _missing_if_valid(values: NDArray[Any], units: Units, where: str) -> NDArray[np.bool_]:
    """Where values are missing. Raises InputError if others are infinite or out of range."""
    missing = missing_in(values, units.missing)
    known = np.asarray(values)[~missing]
    if not known.size:
        return missing
    low, high = float(known.min()), float(known.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{where} holds infinite values", "replace them, or pass --missing inf if they stand for none")
    slack = ROUNDING * units.span
    if low < units.low - slack or (high > units.high + slack and not units.open):
        wanted = "[0, 1]" if units.span == 1 else f"{units.low:g} to {units.high:g}"
        raise InputError(
            f"{where} holds values from {low:.9g} to {high:.9g}, not in {wanted}",
            "say what is black and white with --range LO,HI, and what stands for no value with --missing V",
        )
    return missing


def fill(frames: NDArray[np.float32], before: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Frames (T, ...) without missing values: each is the last one known at its place, `before` included, else 0."""
    if not np.isnan(frames).any():
        return frames
    filled = np.empty_like(frames)
    last = np.zeros_like(frames[0]) if before is None else before
    for t, frame in enumerate(frames):
        last = filled[t] = np.where(np.isnan(frame), last, frame)
    return filled


def missing_note(name: str, missing: int, total: int) -> str:
    """What to say of missing values."""
    share = f"{missing / total:.1%}" if missing / total >= 0.001 else "less than 0.1%"
    return f"{name}: {missing} values ({share}) are missing: filled with the last known ones, left out of scores"
