"""Data sets as people have them, each a `ClipDataset`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..frames import Frame, read_arrays
from . import arrays, moving_mnist, videos
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
DATASETS = tuple(dict.fromkeys((*FOLDERS, *ARRAYS)))
SPLITS = ("train", "val", "test", "all")


class DataSource:
    """What lies at a path, opened once: data sets of every split and length are cut from it.

    path : a KTH tree or its zip files, a folder with MNIST's idx files, `mnist_test_seq.npy`, TaxiBJ's `dataset.npz`,
        a gridded sequence or clips in `.npz`/`.npy`, or a folder of videos
    dataset : one of `DATASETS`, None to recognise it

    Raises:
        InputError: nothing usable is there; says what and where.
    """

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        if dataset is not None and dataset not in DATASETS:
            raise InputError(f"there is no data set '{dataset}'", f"use {', '.join(DATASETS)}")
        if not path.exists():
            raise InputError(f"there is no {path}", "check --data")
        if path.is_file() and (dataset not in (None, *ARRAYS) or path.suffix.lower() not in (".npy", ".npz")):
            raise InputError(f"{path} is no data set", "give a folder, an .npz or an .npy file")
        self.path, self._dataset = path, dataset
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
            channels: 1 gray or 3 RGB, for a folder of videos.
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
        if self._arrays is not None:
            return arrays.cut_arrays(self.path, self._arrays, self._dataset, split, context, horizon, divided_by)
        kind = self._dataset or _recognised(self.path)
        if kind not in FOLDERS:
            raise InputError(f"{self.path} is a folder, and {kind} is a file", "give the file")
        return FOLDERS[kind][1](
            self.path, split, context + horizon, size=size or 64, channels=channels, augment=augment, crop=crop,
            weigh_sets=weigh_sets,
        )  # fmt: skip

    def first_frame(self, split: str = "test") -> Frame | None:
        """The first frame of its clips, (C, H, W) in [0, 1]; None where that is footage, slow to decode.

        Raises:
            InputError: as `clips`.
        """
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


def _recognised(folder: Path) -> str:
    return next(name for name, (recognises, _) in FOLDERS.items() if recognises(folder))
