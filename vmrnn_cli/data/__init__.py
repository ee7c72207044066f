"""Data sets as people have them, each a `ClipDataset`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import arrays, moving_mnist, videos
from .base import ClipDataset, batches

__all__ = ["ClipDataset", "batches", "first_frame", "open_dataset"]

MOST_FRAMES = 2**16  # of the context, and of the horizon; hours of video
DATASETS = ("kth", "moving-mnist", "taxibj", "grid", "clips", "folder")
SPLITS = ("train", "val", "test", "all")


def open_dataset(
    path: Path,
    *,
    dataset: str | None = None,
    split: str = "train",
    context: int,
    horizon: int,
    size: int | None = None,
    channels: int = 1,
    augment: bool = False,
    crop: int | None = None,
    weigh_sets: bool = False,
) -> ClipDataset:
    """Open what `path` holds: by its content, or as `dataset` says.

    Args:
        path: a KTH tree or its zip files, a folder with MNIST's idx files, `mnist_test_seq.npy`, TaxiBJ's
            `dataset.npz`, a gridded sequence or clips in `.npz`/`.npy`, or a folder of videos.
        dataset: one of `DATASETS`, None to recognise it.
        split: train, val, test or all.
        context: frames in.
        horizon: frames out.
        size: side of the squares that clips from a folder are cut to; default 64.
        channels: 1 gray or 3 RGB, for a folder of videos.
        augment: mirror, reverse and speed up training clips from a folder.
        crop: side of the squares, within those of `size`, that training clips from a folder are cut to.
        weigh_sets: draw training clips equally often from each set that a folder's `split.csv` names.

    Raises:
        InputError: nothing usable is there; says what and where.
    """
    if split not in SPLITS:
        raise InputError(f"there is no split '{split}'", f"use {', '.join(SPLITS)}")
    if dataset is not None and dataset not in DATASETS:
        raise InputError(f"there is no data set '{dataset}'", f"use {', '.join(DATASETS)}")
    if not (1 <= context <= MOST_FRAMES and 1 <= horizon <= MOST_FRAMES):
        raise InputError(
            f"a context of {context} and a horizon of {horizon} make no clip", f"give 1 to {MOST_FRAMES} frames of each"
        )
    if not path.exists():
        raise InputError(f"there is no {path}", "check --data")
    length = context + horizon
    if path.is_file():
        if dataset in ("kth", "folder") or path.suffix.lower() not in (".npy", ".npz"):
            raise InputError(f"{path} is no data set", "give a folder, an .npz or an .npy file")
        return arrays.open_arrays(path, dataset, split, context, horizon)
    if dataset == "kth" or (dataset is None and videos.is_kth(path)):
        return videos.KTH(path, split, length)
    if dataset == "moving-mnist" or (dataset is None and _has_digits(path)):
        return moving_mnist.MovingMNIST(path, split, length)
    if dataset in (None, "folder"):
        return videos.FolderClips(
            path, split, length, size=size or 64, channels=channels, augment=augment, crop=crop, weigh_sets=weigh_sets
        )
    raise InputError(f"{path} is a folder, and {dataset} is a file", "give the file")


def first_frame(path: Path, *, dataset: str | None = None, split: str = "test") -> NDArray[np.float32] | None:
    """The first frame of what `open_dataset` opens, (C, H, W) in [0, 1]; None where that is footage, slow to decode.

    Raises:
        InputError: as `open_dataset`.
    """
    if path.is_dir() and not (dataset in (None, "moving-mnist") and _has_digits(path)):
        return None
    try:
        clips = open_dataset(path, dataset=dataset, split=split, context=1, horizon=1)
    except InputError:  # a split that is too short is to be found out with the frames that are asked for
        clips = open_dataset(path, dataset=dataset, split="all", context=1, horizon=1)
    frame = clips.clip(0, np.random.default_rng(0))[0]
    return frame / np.float32(255) if frame.dtype == np.uint8 else frame


def _has_digits(folder: Path) -> bool:
    return any(moving_mnist.find_digits(folder, which) for which in ("train", "test"))
