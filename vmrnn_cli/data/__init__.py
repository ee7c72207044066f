"""Data sets as people have them, each a `ClipDataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..frames import Frame, read_arrays
from ..grids.files import is_grid, is_pattern
from ..grids.series import GridSeries
from ..readings import UNDECLARED, Declared
from . import arrays, grids, moving_mnist, videos
from .base import ClipDataset, batches
from .scenes import ClipsAndScenes, ClipsAndWeather

__all__ = ["ClipDataset", "ClipsAndScenes", "ClipsAndWeather", "DataSource", "batches", "is_footage", "is_series"]

MOST_FRAMES = 2**16  # of the context, and of the horizon; hours of video
# What may lie in a folder, by name: what recognises it, and its clips, made of folder, split, length and further
# options of `DataSource.clips`. The first that recognises a folder opens it.
FOLDERS: dict[str, tuple[Callable[[Path], bool], Callable[..., ClipDataset]]] = {
    "kth": (videos.is_kth, videos.KTH),
    "moving-mnist": (moving_mnist.has_digits, moving_mnist.MovingMNIST),
    "events": (grids.are_events, grids.GridClips),  # opened as grids are
    "folder": (Path.is_dir, videos.FolderClips),
}
ARRAYS = ("moving-mnist", "taxibj", "grid", "clips")  # what a file may hold, for `arrays.cut_arrays` to tell
_MAGIC = {
    b"\x00\x00\x08\x03": "one of MNIST's idx files: give the folder it lies in",
    b"\x89HDF": "an HDF5 file: write its arrays with numpy.savez",
    b"MATLAB 5.0": "a file of MATLAB's: write its arrays with numpy.savez",
    b"CDF": "a netCDF file: write its arrays with numpy.savez",
    b"PAR1": "a Parquet file: write its arrays with numpy.savez",
    b"PK": "a zip file: unpack it",
    b"\x1f\x8b": "a gzip file: unpack it, or give the folder of MNIST's idx files",
    b"\x80": "a pickle, which could run code: write its arrays with numpy.savez",
    b"\x93NUMPY": "an array: end its name in .npy",
}  # of what data sets come in
DATASETS = tuple(dict.fromkeys((*FOLDERS, *ARRAYS)))
SPLITS = ("train", "val", "test", "all")


class DataSource:
    """What lies at a path, opened once: data sets of every split and length are cut from it.

    path : a KTH tree or its zip files, a folder with MNIST's idx files, `mnist_test_seq.npy`, TaxiBJ's `dataset.npz`,
        a gridded sequence or clips in `.npz`/`.npy`, a folder of videos, NetCDF, HDF5, Zarr, or a folder of events: of
        arrays, of such files, or of folders of them
    dataset : one of `DATASETS`, None to recognise it
    declared : what its user says of its arrays

    Raises:
        InputError: nothing usable is there; says what and where.
    """

    def __init__(self, path: Path, dataset: str | None = None, declared: Declared = UNDECLARED) -> None:
        if dataset is not None and dataset not in DATASETS:
            raise InputError(f"there is no data set '{dataset}'", f"use {', '.join(DATASETS)}")
        self._series: Sequence[grids.Series] | None = None
        if dataset is None and (path.exists() or is_pattern(str(path))) and is_grid(path):
            self.path, self._dataset, self._declared, self._arrays = path, None, declared, None
            self._series = grids.open_series(path, declared)
            return
        of_grids = {"--variable": declared.variable, "--select": declared.select, "--transform": declared.transform}
        for option in (option for option, said in of_grids.items() if said):
            raise InputError(f"{path} is no grid, which {option} is for", f"leave {option} out")
        if not path.exists():
            raise InputError(f"there is no {path}", "check --data")
        if path.is_file() and (dataset not in (None, *ARRAYS) or path.suffix.lower() not in (".npy", ".npz")):
            raise InputError(f"{path} is no data set{_known_as(path)}", "give a folder, an .npz or an .npy file")
        self.path, self._dataset, self._declared = path, dataset, declared
        self._arrays = read_arrays(path) if path.is_file() else None
        if self._arrays is None and (dataset or _recognised(path)) == "events":
            self._series = grids.open_series(path, declared)

    def clips(
        self, split: str = "train", *, context: int, horizon: int, size: int | None = None, channels: int = 1,
        augment: bool = False, crop: int | None = None, weigh_sets: bool = False, divided_by: float | None = None,
        learned: Declared = UNDECLARED, holdout: str = "",
    ) -> ClipDataset:  # fmt: skip
        """Its clips.

        Args:
            split: train, val, test or all.
            context: frames in.
            horizon: frames out.
            size: side of the squares that clips from a folder are cut to; default 64.
            channels: 1 gray or 3 RGB, for a folder of videos; of arrays, as many as the weights take.
            augment: mirror, reverse and speed up training clips from a folder; mirror and turn those of grids.
            crop: side of the squares, within those of `size`, that training clips from a folder are cut to, and those
                of grids, also for validation.
            weigh_sets: draw training clips from the sets that a folder's `split.csv` names, see `videos.FolderClips`.
            divided_by: what the weights were trained with, for gridded data in other units; default its own.
            learned: what else they know of grids in its units, see `weights.learned`.
            holdout: which events of grids are for validation, by name; default the last tenth of them.

        Raises:
            InputError: there are none; says why.
        """
        if split not in SPLITS:
            raise InputError(f"there is no split '{split}'", f"use {', '.join(SPLITS)}")
        if not (1 <= context <= MOST_FRAMES and 1 <= horizon <= MOST_FRAMES):
            raise InputError(
                f"{context} frames in and {horizon} out make no clip", f"give 1 to {MOST_FRAMES} frames of each"
            )
        if self._series is not None:
            return grids.GridClips(
                str(self.path), self._series, context, horizon, channels, divided_by or 1.0, learned=learned,
                split=split, holdout=holdout, side=crop, augment=augment,
            )  # fmt: skip
        if holdout:
            raise InputError(f"{self.path} is no grid, whose events --holdout names", "leave --holdout out")
        if self._arrays is not None:
            return arrays.cut_arrays(
                self.path, self._arrays, self._dataset, split, context, horizon, divided_by, self._declared, channels
            )
        kind = self._dataset or _recognised(self.path)
        if kind not in FOLDERS:
            raise InputError(f"{self.path} is a folder, and {kind} is a file", "give the file")
        return FOLDERS[kind][1](
            self.path, split, context + horizon, size=size or 64, channels=channels, augment=augment, crop=crop,
            weigh_sets=weigh_sets,
        )  # fmt: skip

    @property
    def units(self) -> str | None:
        """The units of grids with coordinates; None for all else."""
        return self._series[0].units if self.is_grid and self._series else None

    @property
    def is_series(self) -> bool:
        """Whether it is a grid, or a folder of arrays, one an event."""
        return self._series is not None

    @property
    def is_grid(self) -> bool:
        """Whether it is NetCDF, HDF5, Zarr, or a folder of them."""
        return self._series is not None and isinstance(self._series[0], GridSeries)

    @property
    def has_range(self) -> bool:
        """Whether its user says what is black and white."""
        return self._declared.range is not None

    def first_frame(self, split: str = "test") -> Frame | None:
        """The first frame of its clips, (C, H, W) in [0, 1]; None where that is footage, slow to decode, or events.

        Raises:
            InputError: as `clips`.
        """
        if self._series is not None:
            series = self._series[0]
            return series.scale().frame(series.scan(0)) if self.is_grid else None
        if self._arrays is None and (self._dataset or _recognised(self.path)) != "moving-mnist":
            return None
        try:
            clips = self.clips(split, context=1, horizon=1)
        except InputError:  # a split that is too short is to be found out with the frames that are asked for
            clips = self.clips("all", context=1, horizon=1)
        return clips.frames(0, np.random.default_rng(0))[0]


def is_series(path: Path, dataset: str | None = None) -> bool:
    """Whether a `DataSource` would take what lies at `path` for a grid, or for a folder of arrays, one an event.

    Raises OSError.
    """
    if dataset is None and is_grid(path):
        return True
    return path.is_dir() and (dataset or _recognised(path)) == "events"


def is_footage(path: Path, dataset: str | None = None) -> bool:
    """Whether a `DataSource` would take what lies at `path` for a folder of clips."""
    return path.is_dir() and (dataset or _recognised(path)) == "folder"


def _known_as(path: Path) -> str:
    """What a file is by its first bytes, in words for behind "is no data set"; "" for what is not known."""
    with path.open("rb") as file:
        begin = file.read(128)
    known = (kind for magic, kind in _MAGIC.items() if begin.startswith(magic))
    return next((f" that is read, but {kind}" for kind in known), "")


def _recognised(folder: Path) -> str:
    return next(name for name, (recognises, _) in FOLDERS.items() if recognises(folder))
