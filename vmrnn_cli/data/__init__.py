"""Data sets as people have them, each a `ClipDataset`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..frames import Frame, read_arrays
from ..grids.files import is_grid, is_pattern
from ..readings import UNDECLARED, Declared
from . import arrays, grids, moving_mnist, videos
from .base import ClipDataset, batches
from .scenes import ClipsAndScenes

__all__ = ["ClipDataset", "ClipsAndScenes", "DataSource", "batches", "is_footage"]

MOST_FRAMES = 2**16  # of the context, and of the horizon; hours of video
# What may lie in a folder, by name: what recognises it, and its clips, made of folder, split, length and further
# options of `DataSource.clips`. The first that recognises a folder opens it.
FOLDERS: dict[str, tuple[Callable[[Path], bool], Callable[..., ClipDataset]]] = {
    "kth": (videos.is_kth, videos.KTH),
    "moving-mnist": (moving_mnist.has_digits, moving_mnist.MovingMNIST),
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
        a gridded sequence or clips in `.npz`/`.npy`, a folder of videos, or NetCDF, HDF5, Zarr or folders of them
    dataset : one of `DATASETS`, None to recognise it
    declared : what its user says of its arrays

    Raises:
        InputError: nothing usable is there; says what and where.
    """

    def __init__(self, path: Path, dataset: str | None = None, declared: Declared = UNDECLARED) -> None:
        if dataset is not None and dataset not in DATASETS:
            raise InputError(f"there is no data set '{dataset}'", f"use {', '.join(DATASETS)}")
        self._series: list[grids.GridSeries] | None = None
        if dataset is None and (path.exists() or is_pattern(str(path))) and is_grid(path):
            self.path, self._dataset, self._declared, self._arrays = path, None, declared, None
            self._series = grids.open_series(path, declared)
            return
        if not path.exists():
            raise InputError(f"there is no {path}", "check --data")
        if path.is_file() and (dataset not in (None, *ARRAYS) or path.suffix.lower() not in (".npy", ".npz")):
            raise InputError(f"{path} is no data set{_known_as(path)}", "give a folder, an .npz or an .npy file")
        self.path, self._dataset, self._declared = path, dataset, declared
        self._arrays = read_arrays(path) if path.is_file() else None

    def clips(
        self, split: str = "train", *, context: int, horizon: int, size: int | None = None, channels: int = 1,
        augment: bool = False, crop: int | None = None, weigh_sets: bool = False, divided_by: float | None = None,
    ) -> ClipDataset:  # fmt: skip
        """Its clips.

        Args:
            split: train, val, test or all.
            context: frames in.
            horizon: frames out.
            size: side of the squares that clips from a folder are cut to; default 64.
            channels: 1 gray or 3 RGB, for a folder of videos; of arrays, as many as the weights take.
            augment: mirror, reverse and speed up training clips from a folder.
            crop: side of the squares, within those of `size`, that training clips from a folder are cut to.
            weigh_sets: draw training clips from the sets that a folder's `split.csv` names, see `videos.FolderClips`.
            divided_by: what the weights were trained with, for gridded data in other units; default its own.

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
            if split in ("train", "val"):
                raise InputError(
                    f"{self.path} is a grid, which is scored and not trained on", "to train, save it with numpy.savez"
                )
            return grids.GridClips(str(self.path), self._series, context, horizon, channels, divided_by or 1.0)
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
        return None if self._series is None else self._series[0].units

    @property
    def has_range(self) -> bool:
        """Whether its user says what is black and white."""
        return self._declared.range is not None

    def first_frame(self, split: str = "test") -> Frame | None:
        """The first frame of its clips, (C, H, W) in [0, 1]; None where that is footage, slow to decode.

        Raises:
            InputError: as `clips`.
        """
        if self._series is not None:
            series = self._series[0]
            return series.scale().frame(series.scan(0))
        if self._arrays is None and (self._dataset or _recognised(self.path)) != "moving-mnist":
            return None
        try:
            clips = self.clips(split, context=1, horizon=1)
        except InputError:  # a split that is too short is to be found out with the frames that are asked for
            clips = self.clips("all", context=1, horizon=1)
        return clips.frames(0, np.random.default_rng(0))[0]


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
