"""Clips in arrays: ready-made clips, and gridded sequences that are cut into windows.

Notation: N clips, T time, C channels, H x W pixels.

Ready-made clips: (20, N, 64, 64) as the Moving MNIST test file has them, (N, T, H, W), (N, T, C, H, W); TaxiBJ's
`dataset.npz` with X_train, Y_train, X_test, Y_test in [-1, 1]. Gridded sequences: (T, C, H, W) floats of any scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..frames import checked, divisor, only_array, to_float
from .base import ClipArray, ClipDataset

TAXIBJ_KEYS = ("X_train", "Y_train", "X_test", "Y_test")
TEST_SHARE, VAL_SHARE = 0.1, 0.1  # of a gridded sequence, at its end
BIKENYC_GRID, BIKENYC_TEST = (2, 16, 8), 240  # of BikeNYC: its shape, and the hours of its test split, ten days


class ReadyClips(ClipDataset):
    """Clips that are there as such, (N, T, C, H, W) uint8 or float32 in [0, 1]; their first frames are taken."""

    has_own_split = False

    def __init__(self, name: str, clips: NDArray[Any], length: int) -> None:
        if clips.shape[1] < length:
            raise InputError(
                f"{name}: its clips have {clips.shape[1]} frames, context and horizon want {length}",
                "give a smaller --context or --frames",
            )
        if not len(clips):
            raise InputError(f"{name} holds no clips", "give another file")
        self.name, self._clips = name, clips
        _, _, C, H, W = clips.shape
        self.clip_shape = (length, C, H, W)

    def __len__(self) -> int:
        return len(self._clips)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        clip = np.asarray(self._clips[index, : self.clip_shape[0]])
        if clip.dtype == np.uint8:
            return clip
        return checked(clip, self.name)

    def describe(self) -> list[str]:
        T, C, H, W = self.clip_shape
        return [f"{self.name}: {len(self)} clips of {T} frames, {C} x {H} x {W}"]


class TaxiBJ(ClipDataset):
    """TaxiBJ's `dataset.npz`: X (N, 4, 2, 32, 32) goes in, Y (N, 4, 2, 32, 32) comes out, both in [-1, 1].

    Validation is the test split, as published. Clips are scaled to [0, 1].
    """

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]], split: str, length: int) -> None:
        missing = [key for key in TAXIBJ_KEYS if key not in arrays]
        if missing:
            raise InputError(f"{path} has no array {', '.join(missing)}", "give TaxiBJ's dataset.npz")
        parts = {"train": ("train",), "all": ("train", "test")}.get(split, ("test",))
        self._pairs = [(arrays[f"X_{part}"], arrays[f"Y_{part}"]) for part in parts]
        shapes = {array.shape[1:] for pair in self._pairs for array in pair}
        if len(shapes) > 1 or any(X.ndim != 5 or len(X) != len(Y) or 0 in X.shape[1:] for X, Y in self._pairs):
            every = ", ".join(f"{key} {arrays[key].shape}" for key in TAXIBJ_KEYS)
            raise InputError(f"{path}: the shapes do not fit: {every}", "give TaxiBJ's dataset.npz")
        kinds = {array.dtype for pair in self._pairs for array in pair}
        if any(kind.kind != "f" for kind in kinds):
            raise InputError(f"{path} holds {', '.join(map(str, kinds))} values", "give TaxiBJ's dataset.npz")
        T, C, H, W = shapes.pop()
        if length > 2 * T:
            raise InputError(
                f"{path}: its clips have {2 * T} frames, context and horizon want {length}",
                "give a smaller --context or --frames",
            )
        if not len(self):
            raise InputError(f"{path} holds no clips", "give another file")
        self.name, self.split = f"TaxiBJ {path}", split
        self.clip_shape = (length, C, H, W)

    def __len__(self) -> int:
        return sum(len(X) for X, _ in self._pairs)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        X, Y = self._pairs[0]
        if index >= len(X):  # of "all": the test part follows the training part
            index -= len(X)
            X, Y = self._pairs[1]
        clip = np.concatenate([X[index], Y[index]])[: self.clip_shape[0]]  # (T, C, H, W)
        return checked((clip.astype(np.float32) + np.float32(1)) / np.float32(2), self.name)

    def group(self, index: int) -> int:
        return index // self.clip_shape[0]  # clips begin half an hour apart

    def describe(self) -> list[str]:
        T, C, H, W = self.clip_shape
        return [f"{self.name}, {self.split}: {len(self)} clips of {T} frames, {C} x {H} x {W}"]


class GridWindows(ClipDataset):
    """All windows of a gridded sequence (T, C, H, W), scaled to [0, 1] as `predict` does: uint8 by 255, floats, if they
    exceed 1, by what weights were trained with, else (for training) by the maximum of the training part.

    The last tenth is the test split, what comes before it, as long, the validation split. A window belongs to the split
    of the frames it predicts: the context of the first test windows lies in the part before, as it does in use. What
    exceeds the divisor is above 1.
    """

    def __init__(
        self, name: str, frames: NDArray[Any], split: str, context: int, horizon: int, divided_by: float | None = None
    ) -> None:
        T, C, H, W = frames.shape
        test = self.test_steps(T)
        edges = {"train": (0, T - 2 * test), "val": (T - 2 * test, T - test), "test": (T - test, T), "all": (0, T)}
        first, last = edges[split]
        self.starts = range(max(0, first - context), last - context - horizon + 1)
        if not len(self.starts):
            raise InputError(
                f"{name}: the {split} split has {last - first} frames, too few for {context} + {horizon}",
                "give a smaller --context or --frames, or another --split",
            )
        self.name, self.split = name, split
        self.divided_by = divisor(frames if divided_by else frames[: edges["train"][1]], divided_by)
        if divided_by == 1.0 and (highest := float(frames.max())) > 1 and frames.dtype != np.uint8:
            raise InputError(f"{name} holds values up to {highest:.9g}", "scale the data to [0, 1]")
        self._frames = frames
        self.clip_shape = (context + horizon, C, H, W)

    @staticmethod
    def test_steps(T: int) -> int:
        """How many steps at the end of a sequence of T are the test split."""
        return int(T * TEST_SHARE)

    def __len__(self) -> int:
        return len(self.starts)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        start = self.starts[index]
        return to_float(self._frames[start : start + self.clip_shape[0]]) / np.float32(self.divided_by)

    def group(self, index: int) -> int:
        return index // self.clip_shape[0]

    def describe(self) -> list[str]:
        _, C, H, W = self.clip_shape
        divided = f", divided by {self.divided_by:g}" if self.divided_by != 1 else ""
        return [f"{self.name}, {self.split}: {len(self)} windows, {C} x {H} x {W}{divided}"]


class BikeNYC(GridWindows):
    """Hourly flows of bikes, whose test split is the last ten days, as published."""

    @staticmethod
    def test_steps(T: int) -> int:
        return BIKENYC_TEST


def cut_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], dataset: str | None, split: str, context: int, horizon: int,
    divided_by: float | None,
) -> ClipDataset:  # fmt: skip
    """The data set in a file's arrays: the kind that `dataset` names, None for what they look like."""
    length = context + horizon
    if dataset == "taxibj" or (dataset is None and arrays.keys() >= set(TAXIBJ_KEYS)):
        return TaxiBJ(path, arrays, split, length)
    frames = only_array(path, arrays)
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise InputError(f"{path} holds {frames.dtype} values", "give uint8 or floats")
    if frames.ndim == 3:
        frames = frames[:, None]  # (T, 1, H, W)
    if frames.ndim not in (4, 5) or 0 in frames.shape:
        raise InputError(
            f"{path} has shape {frames.shape}", "give (T,H,W), (T,C,H,W), (N,T,H,W), (N,T,C,H,W) or (20,N,64,64)"
        )
    if dataset is None and frames.shape[-1] in (1, 3, 4) and frames.shape[-3] > 4:
        raise InputError(
            f"{path} has shape {frames.shape}, channels last",
            "store it as (T, C, H, W) or (N, T, C, H, W), or say what it is with --dataset",
        )
    dataset = dataset or _kind(frames)
    if dataset == "moving-mnist" and _kind(frames) == "moving-mnist":
        clips = np.moveaxis(frames, 0, 1)[:, :, None]  # (N, 20, 1, 64, 64)
        return ReadyClips(f"Moving MNIST {path.name}", clips, length)
    if dataset == "clips":
        return ReadyClips(path.name, frames if frames.ndim == 5 else frames[:, :, None], length)
    if dataset == "grid" and frames.ndim == 4:
        if not np.isfinite(frames).all() or frames.min() < 0:
            raise InputError(f"{path} holds negative or non-finite values", "shift and clean the grids first")
        is_bikenyc = frames.shape[1:] == BIKENYC_GRID and len(frames) >= 10 * BIKENYC_TEST
        return (BikeNYC if is_bikenyc else GridWindows)(path.stem, frames, split, context, horizon, divided_by)
    raise InputError(f"{path} has shape {frames.shape}, and is no {dataset} data set", "leave out --dataset")


def _kind(frames: NDArray[Any]) -> str:
    """What an array looks like: up to four "frames" a clip are rather the channels of a gridded sequence."""
    if frames.ndim == 5:
        return "clips"
    if frames.shape[0] == 20 and frames.shape[2:] == (64, 64):
        return "moving-mnist"
    return "clips" if frames.shape[1] > 4 else "grid"
