"""The scans of a gridded series in the order of their valid times, read one at a time.

Notation: T scans, C slices (levels, members) of each, H x W places. Scans are arrays (C, H, W) in the data's own units,
frames the same in [0, 1], NaN where a value is missing.
"""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..frames import IN_MEMORY, Frame
from ..readings import UNDECLARED, Declared
from .axes import find_axes
from .files import grid_files, open_dataset, unreadable
from .values import GridScale, find_scale, standard_units

if TYPE_CHECKING:
    import xarray

GAPS = ("refuse", "interpolate")
_SAMPLED = 10  # scans that are looked at where nothing else says what range they have
_SLACK = 0.5  # of a step: by how much scans may come early or late


class GridSeries:
    """A gridded series where it lies: one file or store, files of some scans each, or an array in memory.

    name : as given, for messages
    given_name, levels : of an array in memory: its name, None where it has none; and its indices of several levels
    axes : of its variable
    times : (T,) of datetime64[ns], of cftime's dates, or of numbers: of each scan, ascending, none twice
    step : the usual time between two scans, as differences of `times` are; None for a single scan
    shape : (C, H, W)
    notes : what was mended or taken for granted, a line each

    Raises:
        InputError: nothing usable is there, or not what is declared of it.
    """

    def __init__(self, source: Path | xarray.DataArray, declared: Declared = UNDECLARED) -> None:
        self.declared = declared
        self.notes: list[str] = []
        if declared.gaps not in ("", *GAPS):
            raise InputError(f"--gaps {declared.gaps} is unknown", f"choose from {', '.join(GAPS)}")
        self._group, _, self._variable = declared.variable.rpartition("/")
        self._opened: tuple[tuple[int, int], xarray.Dataset] | None = None
        self._in_memory: xarray.Dataset | None = None
        self._first_units, self.levels = "", dict[str, list[str]]()
        if isinstance(source, Path):
            self.name, self.files, self.given_name = str(source), grid_files(source), None
        else:
            self.name, self.files = IN_MEMORY, [Path()]
            self.given_name = source.name
            # Indices of several levels are none that a file could have: they are set again in the end.
            self.levels = {
                str(dim): list(index.names)
                for dim, index in source.indexes.items()
                if index.nlevels > 1 and dim in source.dims
            }
            source = source.reset_index(list(self.levels)) if self.levels else source
            name = str(source.name or "data")
            self._in_memory, self._variable = source.rename(name).to_dataset(promote_attrs=False), name
        self.axes = find_axes(self._dataset(0), self._label(0), self._variable)
        self._chosen, self.slices = self._choose(self._data(0))
        self._find_scans()
        H, W = (self._data(0).sizes[axis] for axis in (self.axes.y, self.axes.x))
        if not (H and W and all(self.slices.values())):
            dims = ", ".join(f"{dim} {size}" for dim, size in self._data(0).sizes.items())
            raise InputError(f"{self.name}: {self.axes.variable} ({dims}) has no places", "give a grid that has some")
        self.shape = (int(np.prod([len(values) for values in self.slices.values()], dtype=int)), H, W)

    def _label(self, file: int) -> str:
        return self.name if self._in_memory is not None else str(self.files[file])

    def _dataset(self, file: int) -> xarray.Dataset:
        """A file's dataset; the last one stays open, but not for processes that are forked off."""
        if self._in_memory is not None:
            return self._in_memory
        key = file, os.getpid()
        if self._opened is None or self._opened[0] != key:
            self.close()
            self._opened = key, open_dataset(self.files[file], self._group or None)
        return self._opened[1]

    def _data(self, file: int) -> xarray.DataArray:
        return self._dataset(file)[self.axes.variable]

    def close(self) -> None:
        """Close what is open; it is opened again where it is needed."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    @property
    def units(self) -> str:
        """Of its values, as its attributes have them."""
        return str(self._data(0).attrs.get("units", ""))

    # ---- Slices

    def _choose(self, data: xarray.DataArray) -> tuple[dict[str, int], dict[str, list[str]]]:
        """What `--select` takes of the other dimensions, by position; and the labels of those that are left."""
        chosen, others = {}, list(self.axes.others)
        for dim, wanted in self.declared.select:
            if dim not in others:
                known = ", ".join(others) or "none"
                raise InputError(f"{self.name} has no dimension '{dim}' to select from", f"choose from: {known}")
            labels = _labels(data, dim)
            position = _position(data, dim, wanted)
            if position is None:
                known = ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
                raise InputError(f"{self.name} has no {dim}={wanted}", f"choose from: {known}")
            chosen[dim] = position
            others.remove(dim)
        return chosen, {dim: _labels(data, dim) for dim in others}

    # ---- Time

    def _find_scans(self) -> None:
        """Look at the times of all files, and put their scans in order."""
        found: list[Any] = []
        times: NDArray[Any]
        places: list[tuple[int, int | None]] = []
        for file in range(len(self.files)):
            self._check_alike(file)
            of_file, scalar = self._times_of(file)
            found += of_file
            places += [(file, None if scalar else index) for index in range(len(of_file))]
        if not found:
            raise InputError(f"{self.name} holds no scans", "give a longer series")
        times = np.array(found)
        order = np.argsort(times, kind="stable")
        if (order != np.arange(len(order))).any():
            self.notes.append(f"{self.name}: its scans are not in the order of their times, and were put into it")
        times = times[order]
        repeated = np.r_[False, times[1:] == times[:-1]]
        if repeated.any():
            first = date_text(times[int(np.argmax(repeated))])
            count = int(repeated.sum())
            what = f"{count} scan(s) have the time of another, first at {first}: of each time the first one is taken"
            self.notes.append(f"{self.name}: {what}")
        self._places = [places[index] for index in order[~repeated]]
        self.times = times[~repeated]
        self.step = None
        if len(self.times) > 1:
            steps = np.sort(np.diff(self.times))
            self.step = steps[(len(steps) - 1) // 2]

    def _check_alike(self, file: int) -> None:
        """Refuse a file whose variable is none of the first one's."""
        if self.axes.variable not in self._dataset(file).variables:
            raise InputError(
                f"{self._label(file)} has no variable '{self.axes.variable}', which {self._label(0)} has",
                "give files of one series",
            )
        units = str(self._data(file).attrs.get("units", ""))
        self._first_units = units if file == 0 else self._first_units
        if standard_units(units) != standard_units(self._first_units):
            raise InputError(
                f"{self._label(file)} is in '{units}', and {self._label(0)} in '{self._first_units}'",
                "give files in the same units",
            )

    def _times_of(self, file: int) -> tuple[list[Any], bool]:
        """The times of a file's scans, and whether it is a single one that has no dimension of time."""
        dataset = self._dataset(file)
        if self.axes.time not in dataset.variables:
            if self.axes.time not in dataset.dims:
                raise InputError(f"{self._label(file)} has no {self.axes.time}", "give files of one series")
            self.notes.append(f"{self._label(file)}: its {self.axes.time} has no values, and its scans are numbered")
            return list(range(dataset.sizes[self.axes.time])), False
        try:
            values = np.asarray(dataset[self.axes.time].values)
        except Exception as error:  # damaged files make libraries raise anything
            raise unreadable(self._label(file), error) from error
        if values.ndim > 1:
            raise InputError(
                f"{self._label(file)}: {self.axes.time} is shaped {values.shape}", "give one time for each scan"
            )
        if values.dtype.kind in "SU" or all(isinstance(each, str) for each in values.ravel()):
            try:
                values = values.astype(np.str_).astype("datetime64[ns]")
            except ValueError as error:
                raise InputError(
                    f"{self._label(file)}: {self.axes.time} is text that says no date: {error}",
                    "write times as 2024-06-01T12:00, or as numbers since a date",
                ) from None
        lost = np.isnat(values) if values.dtype.kind == "M" else values != values  # as NaN does
        if np.any(lost):
            raise InputError(f"{self._label(file)} has scans without a time", "drop them, or write their times")
        if values.dtype.kind == "M":
            values = values.astype("datetime64[ns]")
        return list(np.atleast_1d(values)), values.ndim == 0

    def seconds(self, difference: Any) -> float | None:
        """A difference of times in seconds; None where times are numbers."""
        if self.times.dtype.kind == "M":
            return float(difference / np.timedelta64(1, "s"))
        return difference.total_seconds() if isinstance(difference, datetime.timedelta) else None

    def time_after(self, time: Any, steps: int) -> Any:
        """The time so many steps later."""
        return time if self.step is None else time + steps * self.step

    # ---- Values

    def scan(self, number: int) -> NDArray[Any]:
        """Scan `number` in the data's own units, (C, H, W), NaN where a value is missing.

        Raises:
            InputError: it cannot be read, or is none of the same grid.
        """
        file, index = self._places[number]
        data = self._data(file).isel(
            {dim: place for dim, place in self._chosen.items() if dim in self._data(file).dims}
        )
        if index is not None:
            data = data.isel({self.axes.time: index})
        dims = (*self.slices, self.axes.y, self.axes.x)
        if set(data.dims) != set(dims):
            raise InputError(
                f"{self._label(file)}: {self.axes.variable} is over {', '.join(map(str, data.dims))}, "
                f"not {', '.join(dims)}",
                "give files of one series",
            )
        try:
            values = np.asarray(data.transpose(*dims).values)
        except InputError:
            raise
        except Exception as error:  # damaged files make libraries raise anything
            raise unreadable(self._label(file), error) from error
        values = values.reshape(-1, *values.shape[-2:])
        if values.shape != self.shape:
            (_, H, W), (_, first_H, first_W) = values.shape, self.shape
            raise InputError(
                f"{self._label(file)} is {W}x{H}, and {self._label(0)} {first_W}x{first_H}", "give scans of one grid"
            )
        values = values.astype(np.float64 if values.dtype.kind != "f" else values.dtype)
        if self.declared.missing is not None:
            values = np.where(values == values.dtype.type(self.declared.missing), values.dtype.type(np.nan), values)
        if np.isinf(values).any() and self.declared.missing is None:
            raise InputError(
                f"{self._label(file)} holds infinite values",
                "replace them, or pass --missing inf if they stand for none",
            )
        return values

    def like(self, number: int) -> tuple[xarray.Dataset, xarray.DataArray, int | None]:
        """The dataset of scan `number`, its variable with what is selected, and the scan's place along time there."""
        file, index = self._places[number]
        data = self._data(file)
        return self._dataset(file), data.isel({d: p for d, p in self._chosen.items() if d in data.dims}), index

    def scale(
        self, divided_by: float = 1.0, last: bool = False, learned: Declared = UNDECLARED,
        sample: Callable[[], tuple[float, float]] | None = None,
    ) -> GridScale:  # fmt: skip
        """What of its values is 0 and what 1, for weights that were trained with `divided_by`, or know it themselves.

        sample : the lowest and the highest value, where nothing else tells; default that of some scans
        """

        def ends() -> tuple[float, float]:
            numbers = range(len(self.times))
            found = self.ends(numbers[-_SAMPLED:] if last else numbers[:_SAMPLED])
            if found is None:
                raise InputError(f"{self.name} holds missing values only", "give a series that has some others")
            return found

        return find_scale(self.name, self.units, sample or ends, self.declared, divided_by, learned)

    def ends(self, numbers: Sequence[int]) -> tuple[float, float] | None:
        """The lowest and the highest value of some scans; None where all are missing."""
        known = [pair for number in numbers if (pair := _ends(self.scan(number))) is not None]
        return (min(low for low, _ in known), max(high for _, high in known)) if known else None

    def first_after(self, seconds: float) -> int:
        """The first scan at least so many seconds after the first one.

        Raises:
            InputError: there is none.
        """
        after = [self.seconds(time - self.times[0]) if self.step is not None else 0.0 for time in self.times]
        later = [number for number, each in enumerate(after) if (number if each is None else each) >= seconds - 1e-6]
        if not later:
            raise InputError(f"{self.name} has nothing at {seconds:g} s", "pass a smaller --start")
        return later[0]

    def gap_after(self, number: int) -> int:
        """How many scans are missing between scan `number` and the next one.

        Raises:
            InputError: the next one comes too soon.
        """
        if self.step is None or number + 1 >= len(self.times):
            return 0
        steps = (self.times[number + 1] - self.times[number]) / self.step
        if steps < _SLACK:
            raise InputError(
                f"{self.name}: its scans are not evenly apart, {date_text(self.times[number])} and "
                f"{date_text(self.times[number + 1])}, and most by {span_text(self.seconds(self.step), self.step)}",
                "take out what is between, or give one kind of scan",
            )
        return max(0, round(steps) - 1)

    def before_end(self, frames: int) -> tuple[int, int]:
        """Where the last frames begin, one step apart: a scan, and how many frames after it."""
        number, found = len(self.times) - 1, 1
        while found < frames and number > 0:
            number -= 1
            found += 1 + self.gap_after(number)
        return number, max(0, found - frames)

    def runs(self) -> list[range]:
        """The scans between gaps: each run is whole."""
        edges = [0, *(n + 1 for n in range(len(self.times) - 1) if self.gap_after(n)), len(self.times)]
        return [range(first, last) for first, last in itertools.pairwise(edges)]


@dataclass
class _Beyond:
    """Of some frames: how many values are known, above the range, and how high they go; and what lies below it."""

    known: int = 0
    above: int = 0
    highest: float = -np.inf
    below: int = 0


class GridClip:
    """What is known of a series that is being read, from one scan on, besides its frames.

    series : it
    scale : what 0 and 1 mean
    first : number of the scan that is read first
    skip : how many frames after it are left out, of a gap that is filled
    absent : (C, H, W), the places where all given scans are missing, once they are known
    """

    def __init__(self, series: GridSeries, scale: GridScale, first: int, skip: int = 0) -> None:
        self.series, self.scale, self.first, self._skip = series, scale, first, skip
        self.absent: NDArray[np.bool_] = np.zeros(series.shape, bool)
        self.given = 0
        self._beyond = _Beyond()
        self._floors: list[float] = []
        self._gaps: list[tuple[int, int]] = []  # frame before the gap, and how many are missing

    def frames(self) -> Iterator[Frame]:
        """Frames one step apart, (C, H, W); those of missing scans hold NaN, or are interpolated if that is wanted."""
        series, position = self.series, -self._skip
        before: Frame | None = None
        lacking = 0
        for number in range(self.first, len(series.times)):
            frame = self._frame(number)
            if before is not None:
                for between in range(max(0, -position), lacking):
                    if series.declared.gaps == "interpolate":
                        share = np.float32((between + 1) / (lacking + 1))
                        yield (1 - share) * before + share * frame
                    else:
                        yield np.full_like(frame, np.nan)
                position += lacking
            if position >= 0:
                yield frame
            before, lacking = frame, series.gap_after(number)
            if lacking:
                self._gaps.append((position, lacking))
            position += 1

    def _frame(self, number: int) -> Frame:
        values, scale = self.series.scan(number), self.scale
        known = values[~np.isnan(values)]
        if not self.given and known.size:  # which is said once the given frames are known
            lowest = known[known <= scale.low]
            self._beyond.known += known.size
            self._beyond.above += int((known > scale.high).sum())
            # No rain is no amount that a logarithm could miss: it comes back as such.
            below = (known < scale.low) & (known != 0) if scale.transform == "dB" else known < scale.low
            self._beyond.below += int(below.sum())
            self._beyond.highest = max(self._beyond.highest, float(known.max()))
            if lowest.size:
                self._floors.append(float(np.median(lowest)))
        return scale.frame(values)

    def take_given(self, frames: Sequence[Frame]) -> None:
        """Take note of the given frames, as they were read.

        Raises:
            InputError: there are gaps among them.
        """
        self.given = len(frames)
        gaps = [(after, lacking) for after, lacking in self._gaps if after + 1 < self.given]
        if gaps:
            after, lacking = gaps[0]
            more = f", and in {len(gaps) - 1} more places" if len(gaps) > 1 else ""
            what = f"{self.series.name}: {lacking} scan(s) are missing after {date_text(self.time(after))}{more}"
            if self.series.declared.gaps != "interpolate":
                raise InputError(what, "pass --gaps interpolate, or begin after it with --start SECONDS")
            self.series.notes.append(f"{what}: interpolated")
        self.absent = np.asarray(np.isnan(np.stack(frames)).all(0))
        if self.scale.floor is None and self._floors:
            self.scale.floor = float(np.median(self._floors))

    def notes(self) -> list[str]:
        """What was mended, taken for granted, or lies beyond the range, a line each."""
        beyond, scale = self._beyond, self.scale
        found = [*self.series.notes, *([scale.note] if scale.note else [])]
        if beyond.above:
            share = f"{beyond.above / beyond.known:.2%}"
            unit = f" {scale.units}" if scale.units else ""
            found.append(
                f"{self.series.name}: {beyond.above} values ({share}) lie above {scale.high:g}{unit}, up to "
                f"{beyond.highest:g}: the network sees them cut off there"
            )
        if beyond.below:
            share = f"{beyond.below / beyond.known:.2%}"
            found.append(f"{self.series.name}: {beyond.below} values ({share}) lie below {scale.low:g}: seen as that")
        return found

    def time(self, position: int) -> Any:
        """The valid time of the frame at a position, from 0 on; also beyond the end of the series."""
        series, position = self.series, position + self._skip
        number, passed = self.first, 0
        while passed < position and number + 1 < len(series.times):
            step = series.gap_after(number) + 1
            if passed + step > position:
                break
            passed, number = passed + step, number + 1
        return series.time_after(series.times[number], position - passed)

    @property
    def last_given(self) -> int:
        """The number of the scan that was given last."""
        reference = self.time(self.given - 1)
        return int(np.searchsorted(self.series.times, reference, side="right")) - 1

    def lead(self, ahead: int) -> Any:
        """How long after the last given frame the frame `ahead` of it (1, 2, ...) is valid."""
        return self.time(self.given - 1 + ahead) - self.time(self.given - 1)

    def leads(self, frames: int) -> list[str]:
        """How far ahead each of so many frames is, for people."""
        return [f"+{span_text(self.series.seconds(lead), lead)}" for lead in map(self.lead, range(1, frames + 1))]

    def dates(self, frames: int) -> list[str]:
        """When each given frame and so many ahead are valid, for people."""
        return [date_text(self.time(position)) for position in range(self.given + frames)]

    def told(self, frames: int) -> dict[str, Any]:
        """What `vmrnn predict --json` tells of it, with so many frames ahead."""
        reference, series = self.time(self.given - 1), self.series
        return {
            "variable": series.axes.variable, "units": self.scale.units, "transform": self.scale.transform,
            "range": [self.scale.low, self.scale.high], "slices": series.slices,
            "forecast_reference_time": date_text(reference),
            "valid_times": [date_text(self.time(self.given + number)) for number in range(frames)],
        }  # fmt: skip

    def in_words(self, frames: int) -> str:
        """When a forecast of so many frames is valid, in a line."""
        reference, last = self.time(self.given - 1), self.series.times[-1]
        first, end = date_text(self.time(self.given)), date_text(self.time(self.given + frames - 1))
        goes_on = f"; the series goes on to {date_text(last)}, --from-end predicts past it" if last > reference else ""
        return f"valid from {first} to {end}, forecast from scans up to {date_text(reference)}{goes_on}"

    def values(self, frames: NDArray[np.float32], hide: bool = True) -> NDArray[np.float64]:
        """Frames (..., C, H, W) in the data's own units; NaN where no given scan has any, if that is to be hidden."""
        values = self.scale.values(frames)
        return np.where(self.absent, np.nan, values) if hide else values


def _labels(data: xarray.DataArray, dim: str) -> list[str]:
    if dim in data.coords:
        return [str(value) for value in np.atleast_1d(data[dim].values)]
    return [str(number) for number in range(data.sizes[dim])]


def _position(data: xarray.DataArray, dim: str, wanted: str) -> int | None:
    """Where along a dimension a label is, by its text or its number."""
    labels = _labels(data, dim)
    if wanted in labels:
        return labels.index(wanted)
    try:
        number = float(wanted)
        values = np.atleast_1d(data[dim].values).astype(float) if dim in data.coords else np.arange(data.sizes[dim])
    except (TypeError, ValueError):
        return None
    near = np.flatnonzero(np.isclose(values, number))
    return int(near[0]) if near.size else None


def _ends(values: NDArray[Any]) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if known.size else None


def date_text(time: Any) -> str:
    """A time for people: the date and the minute, or the number that it is."""
    if isinstance(time, np.datetime64):
        text = str(time.astype("datetime64[s]")).replace("T", " ")
        return text.removesuffix(":00") if text.endswith(":00") else text
    if hasattr(time, "strftime"):
        return time.strftime("%Y-%m-%d %H:%M")
    return f"{float(time):g}"


def span_text(seconds: float | None, difference: Any = None) -> str:
    """A span of time for people: "5 min", "2 h", "1 d"."""
    if seconds is None:
        return f"{float(difference):g}"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:.4g} min"
