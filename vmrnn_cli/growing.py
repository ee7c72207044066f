"""Grids that grow where they lie: a NetCDF file or Zarr store that is appended to, or scans that fall into a folder.

Each time is taken once, in order, with the values that `predict` reads. What is being written is read again until it
reads the same twice.

Notation: C slices, H x W places; frames are float32 (C, H, W) in [0, 1], NaN where a value is missing.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, VMRNNError
from .frames import Frame
from .grids.files import grid_files
from .grids.series import GridClip, GridSeries, date_text
from .grids.values import RANGES, are_matched, standard_units
from .readings import Declared
from .text import one_line

if TYPE_CHECKING:
    from .maps import Colours

_POLL = 0.5  # seconds; more where looking takes long
_REST = 5  # times as long as it takes to look is waited at least
_UNSURE = 4  # the newest scans, which may be half written: they have to read the same twice
_SAMPLED = 10  # scans that are waited for where nothing but they tell which values there are
_PATIENCE = 2.0  # seconds after which what cannot be read at first is not half written, but broken
_EMPTY = 10.0  # seconds that a scan without any value may yet get some
_SAY_AGAIN = 60.0  # seconds after which what cannot be read is told of again


class GridScan(NamedTuple):
    """A new scan.

    frame : (C, H, W) in [0, 1], NaN where a value is missing, above 1 where it exceeds the range
    at : seconds since the first one; None where its times are numbers
    valid : its time, for people
    gap : seconds of missing scans before it
    """

    frame: Frame
    at: float | None
    valid: str
    gap: float


class GrowingGrid:
    """A series that grows, to be iterated over once, after `scale_for`.

    name : as given
    shape : (C, H, W)
    rate : scans per second; None where its times are numbers
    matched : whether its forecasts get the values of the last scan again, see `grids.values.are_matched`

    Args:
        path: a file, a store, or a folder or pattern of files.
        declared: what is said of it.
        say: told in a line what happens on the way.
        ended: set when it is to end.

    Raises:
        InputError: there is no such series; one that has too few scans yet is waited for.
    """

    def __init__(self, path: Path, declared: Declared, say: Callable[[str], None], ended: threading.Event) -> None:
        # Whoever appends has locked the file, or wants to: HDF5 is not to lock it for reading.
        os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
        self.name = str(path)
        self._path, self._declared, self._say, self._ended = path, declared, say, ended
        self._told = False
        self._seen: int | None = None  # what the files looked like when they were read
        self._failing: float | None = None  # since when it cannot be read
        self._last: Any = None  # the time that was taken last
        self._unsure: dict[Any, Frame] = {}  # scans that may be half written, as they read the last time
        self._empty_since: float | None = None
        series = self._wait_for_first()
        self.shape, self.matched = series.shape, are_matched(series.units)
        self._first = series.times[0]
        step = None if series.step is None else series.seconds(series.step)
        self.rate = None if step is None else 1 / step
        self._colours: Colours | None = None
        self._series = series

    def scale_for(self, divided_by: float) -> None:
        """Find out what of its values weights that were trained with `divided_by` see as 0 and 1."""
        series = self._series
        self._scale = series.scale(divided_by)
        self._clip = GridClip(series, self._scale, 0)
        for note in [*series.notes, *([self._scale.note] if self._scale.note else [])]:
            self._say(note)
        series.close()

    def _wait_for_first(self) -> GridSeries:
        """The series, once there are scans enough to know what it is."""
        begin = time.monotonic()
        while True:
            try:
                series = self._open()
            except InputError as error:
                empty = "holds no scans" in error.what
                if not empty and time.monotonic() - begin > _PATIENCE:
                    raise
                series = None
            if series is not None:
                ranged = self._declared.range is not None or standard_units(series.units) in RANGES
                if len(series.times) >= (2 if ranged else _SAMPLED):
                    return series
                series.close()
            if not self._told and time.monotonic() - begin > _PATIENCE:
                self._told = True
                self._say(f"{self.name} has too few scans yet: it is waited for")
            if self._ended.wait(_POLL):
                raise InputError(f"{self.name} has too few scans", "give a longer series")

    def __iter__(self) -> Iterator[GridScan]:
        while not self._ended.is_set():
            begin = time.monotonic()
            yield from self._new()
            self._ended.wait(max(_POLL, _REST * (time.monotonic() - begin)))

    def _new(self) -> Iterator[GridScan]:
        """What has come since the last time."""
        looks = self._look()
        if looks == self._seen and not self._unsure:
            return
        try:
            series = self._open()
        except VMRNNError as error:
            self._fails(error)
            return
        read: dict[Any, Frame] = {}
        waits = False
        try:
            for number in self._after(series):
                at, frame = series.times[number], self._scale.frame(series.scan(number))
                if number >= len(series.times) - _UNSURE:
                    read[at] = frame
                    waits = waits or not self._is_whole(at, frame)
                if not waits:
                    yield self._take(series, at, frame)
            self._unsure = read if waits else {}
            self._seen, self._failing = looks, None
        except VMRNNError as error:
            self._fails(error)
        finally:
            series.close()

    def _open(self) -> GridSeries:
        if not grid_files(self._path):
            raise InputError(f"{self.name} is no longer there", "check the path")
        return GridSeries(self._path, self._declared)

    def _after(self, series: GridSeries) -> list[int]:
        """The scans after the last one."""
        if self._last is None:
            return list(range(len(series.times)))
        try:
            return list(np.flatnonzero(series.times > self._last))
        except TypeError as error:
            raise InputError(f"{self.name} has times of another kind than before", "watch it anew") from error

    def _is_whole(self, at: Any, frame: Frame) -> bool:
        """Whether a scan reads the same as half a second ago, and holds something, unless it stays so."""
        if (before := self._unsure.get(at)) is None or not np.array_equal(before, frame, equal_nan=True):
            self._empty_since = None
            return False
        if not np.isnan(frame).all():
            return True
        now = time.monotonic()
        self._empty_since = now if self._empty_since is None else self._empty_since
        return now - self._empty_since > _EMPTY

    def _take(self, series: GridSeries, at: Any, frame: Frame) -> GridScan:
        gap = 0.0
        if self._last is not None and series.step is not None:
            lacking = round((at - self._last) / series.step) - 1
            gap = max(0, lacking) * (series.seconds(series.step) or 1.0)
        self._last = at
        return GridScan(frame, series.seconds(at - self._first), date_text(at), gap)

    def _fails(self, error: Exception) -> None:
        """Say that it cannot be read: the first time, and where that lasts."""
        now = time.monotonic()
        self._failing = now if self._failing is None else self._failing
        if not self._told or now - self._failing > _SAY_AGAIN:
            self._told, self._failing = True, math.inf
            self._say(f"{one_line(error)}; it is tried again")

    def _look(self) -> int | None:
        """A number that changes with what lies there; None where it changes right now."""
        found = 0
        try:
            for path in grid_files(self._path):
                found = hash((found, str(path), _stamp(path)))
                for folder, _, files in os.walk(path) if path.is_dir() else ():
                    for name in files:
                        found = hash((found, name, _stamp(Path(folder, name))))
        except OSError:
            return None
        return found

    def paint(self, frame: Frame) -> NDArray[np.uint8]:
        """The first slice of a frame in colours for its units, as maps have them: (C, H, W) -> (H, W, 3)."""
        from .maps import colours_for, draw_values, place_of  # which load what draws

        if self._colours is None:
            self._colours = colours_for(self._clip.scale, np.array([self._scale.low, self._scale.high]))
        return draw_values(self._clip.values(frame, hide=False)[0], self._colours, place_of(self._clip))


def _stamp(path: Path) -> tuple[int, int]:
    known = path.stat()
    return known.st_mtime_ns, known.st_size
