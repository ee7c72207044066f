"""Windows of gridded series: NetCDF, HDF5, Zarr, and folders of arrays; each is read when it is asked for.

Notation: T scans, C slices (levels, members), H x W places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import readings
from ..errors import InputError
from ..frames import VIDEO_SUFFIXES, is_array, only_array, read_arrays
from ..grids.files import grid_files, kind_of
from ..grids.series import GridClip, GridSeries, date_text, span_text
from ..grids.values import GridScale, standard_units
from ..readings import UNDECLARED, Declared
from .base import ClipArray, ClipDataset

_HELD_OUT = 0.1  # of the events, or of the scans of a single one: not trained on
_SAMPLED = 64  # training scans that are looked at where nothing else says what range they have
_PLACES = 3  # a training clip is cut out where most varies, of so many places


class ArraySeries:
    """An array of scans (T, H, W) or (T, C, H, W), as a series like those of grids; it has no units, times and places.

    name, files, units, shape, times, step, notes : as of a `GridSeries`
    """

    units, step = "", 1

    def __init__(self, path: Path, declared: Declared = UNDECLARED) -> None:
        file = read_arrays(path)
        self.declared = declared.over(file.declared)
        found = readings.arrange(str(path), only_array(path, file.arrays), self.declared, among="T")
        self._scans, self.name, self.files = found.clips[0], str(path), [path]
        self._units = readings.units_of(self.name, self._scans, self.declared, None)
        self.notes = [found.note] if found.note else []
        self.shape, self.times = self._scans.shape[1:], np.arange(len(self._scans))

    @property
    def divided_by(self) -> float | None:
        """Whether its highest value is for weights to know, as that of counts is; then the one of its scale."""
        return self._units.span if self._units.own and self._units.low == 0 else None

    def close(self) -> None:
        """Do nothing, as nothing is open."""

    def runs(self) -> list[range]:
        """Return one run of all scans."""
        return [range(len(self._scans))]

    def seconds(self, difference: Any) -> float | None:
        """Return None: nothing says how long a step takes."""

    def scan(self, number: int) -> NDArray[Any]:
        """Return scan `number`, (C, H, W), NaN where a value is missing."""
        values = np.asarray(self._scans[number], np.float64)
        return np.where(readings.missing_in(self._scans[number], self.declared.missing), np.nan, values)

    def ends(self, numbers: Sequence[int]) -> tuple[float, float] | None:
        """Return the lowest and the highest value of some scans."""
        part = np.stack([self.scan(number) for number in numbers])
        return float(np.nanmin(part)), float(np.nanmax(part))

    def scale(
        self, divided_by: float = 1.0, last: bool = False, learned: Declared = UNDECLARED,
        sample: Callable[[], tuple[float, float]] | None = None,
    ) -> GridScale:  # fmt: skip
        """Return what of its values is 0 and what 1: by their type, or as far as counts reach."""
        low, high = self._units.low, self._units.high
        if self._units.open:
            found = sample or (lambda: (0.0, readings.highest(self._scans, self._units)))
            high = divided_by if divided_by != 1 else max(1.0, found()[1])
        return GridScale("", low, high)


Series = GridSeries | ArraySeries


def open_series(path: Path, declared: Declared = UNDECLARED) -> Sequence[Series]:
    """The series at a path: one, of all scans; or one for each event, which has a file of its own, or a folder.

    Raises:
        InputError: nothing usable is there.
    """
    files = grid_files(path)
    if not files and (folders := _event_folders(path)):
        return _opened(folders, declared)
    if not files:
        return [ArraySeries(file, declared) for file in _arrays_in(path)]
    if len(files) > 1:
        first = GridSeries(files[0], declared)
        first.close()
        if len(first.times) > 1:
            return _opened(files, declared)
    return [GridSeries(path, declared)]


def _opened(paths: Sequence[Path], declared: Declared) -> list[Series]:
    """A series for each path, closed: there may be more than can be open at once."""
    every: list[Series] = []
    for path in paths:
        every.append(GridSeries(path, declared))
        every[-1].close()
    return every


def _event_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(inside for inside in folder.iterdir() if inside.is_dir() and grid_files(inside))


def are_events(folder: Path) -> bool:
    """Whether a folder holds several arrays, or folders of grids, each an event, and no videos."""
    several = len(_arrays_in(folder)) > 1  # a single one is a data set of its own
    if not (several or _event_folders(folder)) or (folder / "split.csv").exists():
        return False
    videos = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    return all(kind_of(path) for path in videos)  # as radar services publish GIFs


def _arrays_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    named = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".npz", ".npy"))
    return [path for path in named if path.is_file() and is_array(path)]


class _Event(NamedTuple):
    """Scans without a gap between them: of which series, which, and what people call them."""

    series: int
    run: range
    names: tuple[str, ...]


def _events_of(series: Sequence[Series]) -> list[_Event]:
    found = []
    for number, each in enumerate(series):
        path, runs = Path(each.name), each.runs()
        for run in runs:
            names = [path.name.partition(".")[0], path.name]
            if len(runs) > 1:
                begin = date_text(each.times[run.start])
                names = [f"{names[0]} {begin}", begin, *names]
            found.append(_Event(number, run, tuple(names)))
    return found


def _held_out(name: str, events: Sequence[_Event], holdout: str) -> set[int]:
    """The numbers of the events that are not trained on; none of a single one, unless it is named."""
    if not holdout:
        share = max(1, round(_HELD_OUT * len(events)))
        return set(range(len(events) - share, len(events))) if len(events) > 1 else set()
    held = set()
    for wanted in map(str.strip, holdout.split(",")):
        found = {number for number, event in enumerate(events) if wanted in event.names}
        if not found:
            known = ", ".join(event.names[0] for event in events[:12]) + (", ..." if len(events) > 12 else "")
            raise InputError(f"{name} has no event '{wanted}' to hold out", f"choose from: {known}")
        held |= found
    return held


class _Window(NamedTuple):
    """Where a clip begins: in which series, at which scan, and of which slice (None for all together)."""

    series: int
    first: int
    piece: int | None
    event: int


class GridClips(ClipDataset):
    """Windows of series, half a horizon apart. None reaches over a gap in time: what lies between gaps is an event.

    All of it is scored. Of what is trained on, whole events are held out for validation: those that are named, else the
    last tenth of them, and of a single one the last tenth of its scans. Training windows start at any scan. Slices are
    clips of their own, unless the network takes all at once.
    """

    has_own_split = False

    def __init__(
        self, name: str, series: Sequence[Series], context: int, horizon: int, channels: int = 1,
        divided_by: float = 1.0, *, learned: Declared = UNDECLARED, split: str = "all", holdout: str = "",
        side: int | None = None, augment: bool = False,
    ) -> None:  # fmt: skip
        """Cut series into windows of context + horizon scans.

        Args:
            name: of all of them together.
            series: in the same units.
            context: scans in.
            horizon: scans out.
            channels: of the weights, as what follows.
            divided_by: see `readings`.
            learned: see `weights.learned`.
            split: train or val; everything for any other.
            holdout: what the validation split is of: events by name or by file, with commas.
            side: of the squares that windows to train on are cut to, and those to validate by; None for the whole grid.
            augment: mirror and turn training windows.

        Raises:
            InputError: there are no such windows, or not of one kind.
        """
        self.name, self.split, self._series = name, split, series
        units = {each.units for each in series}
        if len(set(map(standard_units, units))) > 1:
            raise InputError(f"{name} has series in {', '.join(sorted(units))}", "give series in the same units")
        for each in series:
            C = each.shape[0]
            if channels not in (1, C):
                raise InputError(
                    f"{each.name} has {C} value(s) at each place, and the weights take {channels}",
                    "give other weights with --weights, or slices with --select",
                )
        self._events, self._apart = _events_of(series), channels == 1
        self._context, self._length = context, context + horizon
        self.has_own_split = split in ("train", "val")
        held = _held_out(name, self._events, holdout) if self.has_own_split else set()
        if len(held) == len(self._events):
            raise InputError(f"{name}: every event is held out", "leave some to train on")
        self._windows = self._cut(split, held, context, horizon)
        if not self._windows or (holdout and not self._cut("val", held, context, horizon)):
            raise self._too_short(context, horizon, "" if not self.has_own_split else holdout or split)
        self._one_event = len({window.event for window in self._windows}) == 1
        self._held = [self._events[number].names[0] for number in sorted(held)]
        self._random, self._augment = split == "train", augment and split == "train"
        shapes = {each.shape for each in series}
        self._is_cut = self._random or (split == "val" and side is not None)  # batches are of one shape
        self.one_shape = len(shapes) == 1 or self._is_cut
        _, H, W = series[0].shape
        if self._is_cut:
            H, W = (min(side or size, *(shape[axis] for shape in shapes)) for axis, size in ((1, H), (2, W)))
        self.clip_shape = (self._length, channels, H, W)
        trained = self._cut("train", held, context, horizon) if self.has_own_split else []
        sample = (lambda: self._ends(trained)) if trained else None
        self._scale = series[0].scale(divided_by, learned=learned, sample=sample)
        if isinstance(series[0], ArraySeries):
            self.divided_by = None if series[0].divided_by is None else self._scale.high
        else:
            seen = self._scale
            self.seen = {"units": seen.units, "range": (seen.low, seen.high), "transform": seen.transform}
        notes = [note for each in series for note in each.notes]
        self.notes = [*dict.fromkeys(notes), *([self._scale.note] if self._scale.note else [])]
        self.units = self._scale.units
        self._open: int | None = None  # which of the series was read last

    def _cut(self, split: str, held: set[int], context: int, horizon: int) -> list[_Window]:
        """The windows of a split, where some events are held out for validation."""
        windows = []
        for number, event in enumerate(self._events):
            first, end = event.run.start, event.run.stop - self._length + 1
            if split in ("train", "val") and not held:
                tail = int(_HELD_OUT * len(event.run))
                first, end = (first, end - tail) if split == "train" else (event.run.stop - tail - context, end)
                first = max(first, event.run.start)
            elif split in ("train", "val") and (number in held) != (split == "val"):
                continue
            pieces: Sequence[int | None] = range(self._series[event.series].shape[0]) if self._apart else (None,)
            firsts = range(first, end, 1 if split == "train" else max(1, horizon // 2))
            windows += [_Window(event.series, begin, piece, number) for begin in firsts for piece in pieces]
        return windows

    def _too_short(self, context: int, horizon: int, wanted: str) -> InputError:
        longest = max(len(event.run) for event in self._events)
        what = f"at most {longest} scans follow each other without a gap, context and horizon want {self._length}"
        if wanted and longest >= self._length:
            what = f"there are no {context} + {horizon} scans without a gap in '{wanted}'"
        return InputError(f"{self.name}: {what}", "give a smaller --context or --frames")

    def _ends(self, windows: Sequence[_Window]) -> tuple[float, float]:
        """The lowest and the highest value of some of the scans that are trained on."""
        scans = sorted({(each.series, each.first + step) for each in windows for step in (0, self._length - 1)})
        chosen = [scans[place] for place in np.unique(np.linspace(0, len(scans) - 1, _SAMPLED).round().astype(int))]
        found = []
        for number in sorted({series for series, _ in chosen}):
            found.append(self._series[number].ends([scan for series, scan in chosen if series == number]))
            self._series[number].close()
        known = [pair for pair in found if pair is not None]
        if not known:
            raise InputError(f"{self.name} holds missing values only", "give a series that has some others")
        return min(low for low, _ in known), max(high for _, high in known)

    def __len__(self) -> int:
        return len(self._windows)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        window = self._windows[index]
        if self._open not in (None, window.series):
            self._series[self._open].close()
        self._open = window.series
        scans = [self._series[window.series].scan(window.first + step) for step in range(self._length)]
        clip = np.stack(scans)  # (T, C, H, W)
        return clip if window.piece is None else clip[:, [window.piece]]

    def frames(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        clip = self._scale.frame(self.clip(index, rng))
        if self._is_cut:
            clip = self._part(clip, rng)
        if self._random:
            np.minimum(clip, 1, out=clip)  # as the network sees it
        if self._augment:
            clip = clip[..., ::-1] if rng.random() < 0.5 else clip
            clip = clip[..., ::-1, :] if rng.random() < 0.5 else clip
            H, W = clip.shape[-2:]
            clip = clip.swapaxes(-2, -1) if H == W and rng.random() < 0.5 else clip
        return clip

    def _part(self, clip: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """What is trained on of a larger clip: that of some places where most varies. Else its middle."""
        H, W = self.clip_shape[-2:]
        most = [size - side for size, side in zip(clip.shape[-2:], (H, W), strict=True)]
        if most == [0, 0]:
            return clip
        places = [[size // 2 for size in most]]
        if self._random:
            places = rng.integers(np.add(most, 1), size=(_PLACES, 2)).tolist()
        parts = [clip[..., top : top + H, left : left + W] for top, left in places]
        known = [part[~np.isnan(part)] for part in parts]
        return parts[int(np.argmax([each.std() if each.size else -1.0 for each in known]))]

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

    def map_of(self, index: int) -> GridClip | None:
        window = self._windows[index]
        series = self._series[window.series]
        if not isinstance(series, GridSeries):
            return None
        clip = GridClip(series, self._scale, window.first)
        clip.given = self._context
        return clip

    def describe(self) -> list[str]:
        T, C, H, W = self.clip_shape
        sizes = f"{C} x {H} x {W}" if self.one_shape else "of several sizes"
        units = f", in {self.units}" if self.units else ""
        events = f"{len({window.event for window in self._windows})} event(s)"
        which = f", {self.split}" if self.has_own_split else ""
        if self.split == "val":
            events = ", ".join(self._held) if self._held else "its end"
            events += ", held out of training"
        what = f"{self.name}{which}: {len(self)} windows of {T} scans, {sizes}{units}, of {events}"
        return [what, *(f"warning: {note}" for note in self.notes if self.split != "val")]
