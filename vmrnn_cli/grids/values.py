"""From values in their own units to [0, 1], as the network sees them, and back.

A scale is a range in the data's own units and a transform for values that are skewed, as rain is. What lies at or below
the low end is seen as 0, and comes back as what stood for it in the given scans (no echo, no rain); what exceeds the
high end lies above 1, where the network sees it cut off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..readings import UNDECLARED, Declared

Values = NDArray[np.float64]
# By name, those of `config.TRANSFORMS`: there and back.
TRANSFORMS: dict[str, tuple[Callable[[Values], Values], Callable[[Values], Values]]] = {
    "none": (lambda v: v, lambda v: v),
    "log": (np.log1p, np.expm1),
    "sqrt": (np.sqrt, np.square),
    "dB": (lambda v: 10 * np.log10(v), lambda v: 10 ** (v / 10)),
}
# Of units that are known: the usual transform first, and the range with each. Rain below 0.1 mm/h counts as none, as is
# usual; sums (mm) are taken for those of some minutes.
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "dBZ": {"none": (0, 70), "log": (0, 70), "sqrt": (0, 70)},
    "mm/h": {"dB": (0.1, 300), "log": (0, 200), "sqrt": (0, 150), "none": (0, 100)},
    "mm": {"dB": (0.01, 30), "log": (0, 20), "sqrt": (0, 15), "none": (0, 10)},
    "mm/s": {"dB": (3e-5, 0.08), "log": (0, 0.05), "sqrt": (0, 0.04), "none": (0, 0.03)},
    "%": {"none": (0, 100)},
}
_NOTHING = 1 / 255  # of a frame: what a forecast leaves where there is no rain
_SPELLINGS = {
    "dbz": "dBZ", "mm/h": "mm/h", "mm h-1": "mm/h", "mm/hr": "mm/h", "mm hr-1": "mm/h", "mm/hour": "mm/h",
    "mm per hour": "mm/h", "kg m-2 h-1": "mm/h", "kg/m2/h": "mm/h", "mm": "mm", "kg m-2": "mm", "kg/m2": "mm",
    "bikes/h": "bikes/h", "bikes h-1": "bikes/h", "bikes/hour": "bikes/h", "bikes per hour": "bikes/h",
    "mm/s": "mm/s", "mm s-1": "mm/s", "kg m-2 s-1": "mm/s", "kg/m2/s": "mm/s", "%": "%", "percent": "%",
}  # fmt: skip


def standard_units(units: str) -> str:
    """Units as they are spelled here, where they are known: "mm h-1" is "mm/h"."""
    plain = re.sub(r"\^|\*\*", "", " ".join(units.split())).lower()
    return _SPELLINGS.get(plain, units)


_OF_RAIN = ("dBZ", "mm/h", "mm", "mm/s")  # whose extremes matter more than the squared error


def are_matched(units: str | None, wanted: bool | None = None) -> bool:
    """Whether a forecast gets the values of the last scan again, see `matching`: that of rain, unless it is said."""
    return (units is not None and standard_units(units) in _OF_RAIN) if wanted is None else wanted


@dataclass
class GridScale:
    """What of a grid's values is 0 and what 1.

    units : of the values
    low, high : in these units
    transform : one of TRANSFORMS, of the values between
    floor : what 0 is written as; None for `low`
    note : what was taken for granted, in a line; "" for nothing
    """

    units: str
    low: float
    high: float
    transform: str = "none"
    floor: float | None = None
    note: str = ""
    _ends: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            raise InputError(f"there is no transform '{self.transform}'", f"choose from {', '.join(TRANSFORMS)}")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InputError(f"{self.low:g},{self.high:g} is no range", "write the lowest and the highest value")
        if (self.transform == "dB" and self.low <= 0) or (self.transform != "none" and self.low < 0):
            positive = "above 0" if self.transform == "dB" else "0 or more"
            raise InputError(
                f"--transform {self.transform} wants a range {positive}, got {self.low:g},{self.high:g}",
                "say another with --range LO,HI",
            )
        there, _ = TRANSFORMS[self.transform]
        low, high = there(np.array([self.low, self.high], np.float64)).tolist()
        self._ends = low, high

    def frame(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values of any shape, NaN where they are missing, from 0 on; above 1 where they exceed the range."""
        there, _ = TRANSFORMS[self.transform]
        low, high = self._ends
        return ((there(np.maximum(values.astype(np.float64), self.low)) - low) / (high - low)).astype(np.float32)

    def values(self, frames: NDArray[np.float32], floor: float | None = None) -> NDArray[np.float64]:
        """And back, in the data's own units; what is 0 as `floor`, or the scale's own."""
        _, back = TRANSFORMS[self.transform]
        low, high = self._ends
        values = back(frames.astype(np.float64) * (high - low) + low)
        floor = self.floor if floor is None else floor
        floor = self.low if floor is None else floor
        return np.where(frames <= (_NOTHING if floor < self.low else 0), floor, values)

    @property
    def scored_floor(self) -> float:
        """What counts in scores for all at or below the low end, of forecasts and of the truth alike."""
        return 0.0 if self.transform == "dB" else self.low

    def words(self) -> str:
        """The range and its transform, for people."""
        seen = "" if self.transform == "none" else f"{self.transform} of "
        return f"{seen}{self.low:g} to {self.high:g}{f' {self.units}' if self.units else ''}"


def find_scale(
    name: str, units: str, sample: Callable[[], tuple[float, float]], declared: Declared = UNDECLARED,
    divided_by: float = 1.0, learned: Declared = UNDECLARED,
) -> GridScale:  # fmt: skip
    """What the network is to see of values: as declared, else as weights or units have it, else what there is.

    sample : the lowest and the highest value of some scans, asked for where nothing else tells
    divided_by : of the weights: 1 where they declare no range
    learned : what else they know of such units, see `weights.learned`

    Raises:
        InputError: what is declared makes no scale.
    """
    known = RANGES.get(standard_units(units), {})
    transform = declared.transform or next(iter(known), "none")
    if declared.range is not None:
        low, high = declared.range
        if transform == "dB" and low <= 0 and not declared.transform:  # which has no place for 0
            transform = "none"
        scale = GridScale(units, low, high, transform)
        if transform != "none" and not declared.transform:
            scale.note = (
                f"{name}: the network sees {scale.words()}, as is usual for {units}; --transform says otherwise"
            )
        return scale
    if divided_by != 1:
        return GridScale(units, 0, divided_by, declared.transform or "none")
    otherwise = "--range and --transform say otherwise"
    if learned.range is not None and not declared.transform:
        scale = GridScale(units, *learned.range, learned.transform or "none")
        scale.note = f"{name}: the network sees {scale.words()}, as in training; {otherwise}"
        return scale
    if transform in known:
        scale = GridScale(units, *known[transform], transform)
        scale.note = f"{name}: the network sees {scale.words()}, as is usual for {units}; {otherwise}"
        return scale
    low, high = sample()
    if 0 <= low <= high <= 1 and standard_units(units) in ("", "1"):
        low, high = 0.0, 1.0
    if low == high:  # constant
        high = low + 1
    if transform == "dB":
        low = low if low > 0 else high / 1e4
    scale = GridScale(units, low, high, transform)
    scale.note = f"{name}: the network sees {scale.words()}, as far as its scans reach; {otherwise}"
    return scale
