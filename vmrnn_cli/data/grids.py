"""Windows of gridded series with coordinates: NetCDF, HDF5, Zarr, each read when it is asked for.

Notation: T scans, C slices (levels, members), H x W places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..grids.files import grid_files
from ..grids.series import GridSeries, date_text, span_text
from ..readings import Declared
from .base import ClipArray, ClipDataset


def open_series(path: Path, declared: Declared) -> list[GridSeries]:
    """The series at a path: one, of all scans; or one for each file, where each holds several, as those of events do.

    Raises:
        InputError: nothing usable is there.
    """
    files = grid_files(path)
    if len(files) > 1:
        first = GridSeries(files[0], declared)
        if len(first.times) > 1:
            first.close()
            return [GridSeries(file, declared) for file in files]
    return [GridSeries(path, declared)]


class _Window(NamedTuple):
    """Where a clip begins: in which series, at which scan, and of which slice (None for all together)."""

    series: int
    first: int
    piece: int | None
    event: int


class GridClips(ClipDataset):
    """Windows of series, half a horizon apart. None reaches over a gap in time: what lies between gaps is an event.

    All of it is scored, whatever the split. Slices are clips of their own, unless the network takes all at once.
    """

    has_own_split = False

    def __init__(
        self, name: str, series: Sequence[GridSeries], context: int, horizon: int, channels: int = 1,
        divided_by: float = 1.0,
    ) -> None:  # fmt: skip
        self.name, self._series, length = name, series, context + horizon
        self._scale = series[0].scale(divided_by)
        units = {each.units for each in series}
        if len(units) > 1:
            raise InputError(f"{name} has series in {', '.join(sorted(units))}", "give series in the same units")
        self._windows: list[_Window] = []
        event, longest = 0, 0
        for number, each in enumerate(series):
            C = each.shape[0]
            if channels not in (1, C):
                raise InputError(
                    f"{each.name} has {C} value(s) at each place, and the weights take {channels}",
                    "give other weights with --weights, or slices with --select",
                )
            pieces = range(C) if channels == 1 else (None,)
            for run in each.runs():
                longest = max(longest, len(run))
                firsts = range(run.start, run.stop - length + 1, max(1, horizon // 2))
                self._windows += [_Window(number, first, piece, event) for first in firsts for piece in pieces]
                event += 1
        if not self._windows:
            raise InputError(
                f"{name}: at most {longest} scans follow each other without a gap, context and horizon want {length}",
                "give a smaller --context or --frames",
            )
        self._events, self._one_event = event, len({window.event for window in self._windows}) == 1
        self.one_shape = len({each.shape for each in series}) == 1
        _, H, W = series[0].shape
        self.clip_shape = (length, channels, H, W)
        notes = [note for each in series for note in each.notes]
        self.notes = [*dict.fromkeys(notes), *([self._scale.note] if self._scale.note else [])]
        self.units = self._scale.units

    def __len__(self) -> int:
        return len(self._windows)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        window = self._windows[index]
        scans = [self._series[window.series].scan(window.first + step) for step in range(self.clip_shape[0])]
        clip = np.stack(scans)  # (T, C, H, W)
        return clip if window.piece is None else clip[:, [window.piece]]

    def frames(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return self._scale.frame(self.clip(index, rng))

    def own(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        return self._scale.values(frames, self._scale.scored_floor)

    def group(self, index: int) -> int:
        window = self._windows[index]
        return window.first // self.clip_shape[0] if self._one_event else window.event

    def lead(self, ahead: int) -> str:
        series = self._series[0]
        if series.step is None or any(each.step != series.step for each in self._series):
            return f"+{ahead}"  # scans
        return f"+{span_text(series.seconds(ahead * series.step), ahead * series.step)}"

    def label(self, index: int) -> str:
        window = self._windows[index]
        series = self._series[window.series]
        return f"{Path(series.name).name} {date_text(series.times[window.first])}"

    def describe(self) -> list[str]:
        T, C, H, W = self.clip_shape
        sizes = f"{C} x {H} x {W}" if self.one_shape else "of several sizes"
        units = f", in {self.units}" if self.units else ""
        what = f"{self.name}: {len(self)} windows of {T} scans, {sizes}{units}, of {self._events} event(s)"
        return [what, *(f"warning: {note}" for note in self.notes)]
