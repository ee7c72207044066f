"""Clips in arrays: ready-made clips, and gridded sequences that are cut into windows.

Notation: N clips, T time, C channels, H x W pixels.

Which axis is what, and what is black and white, is for `readings` to say. Frames are float32 in [0, 1], NaN where a
value is missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import readings
from ..errors import InputError
from ..frames import Arrays, only_array
from ..readings import MOVING_MNIST, UNDECLARED, Declared, Units
from .base import ClipArray, ClipDataset
from .moving_mnist import KERAS_KEYS, MovingMNIST

TAXIBJ_KEYS = ("X_train", "Y_train", "X_test", "Y_test")
TEST_SHARE, VAL_SHARE = 0.1, 0.1  # of a gridded sequence, at its end
BIKENYC_GRID, BIKENYC_TEST = (2, 16, 8), 240  # of BikeNYC: its shape, and the hours of its test split, ten days
_AMONG = {"grid": "T", "clips": "N", "moving-mnist": "N", None: "NT"}  # which layouts each kind of data set has


class ArrayClips(ClipDataset):
    """Clips from arrays in some units, with lines on what was taken for granted and how many values are missing."""

    name: str
    split = ""  # where what is kept has any
    units: Units

    def _take(self, name: str, units: Units, arrays: list[NDArray[Any]], notes: tuple[str, ...] = ()) -> None:
        self.name, self.units = name, units
        missing = sum(readings.survey(name, array, units) for array in arrays)
        total = sum(array.size for array in arrays)
        if missing == total:
            raise InputError(f"{name} holds NaN or other missing values only", "give another file")
        counted = readings.missing_note(name, missing, total) if missing else ""
        self.notes = [note for note in (*notes, units.note, counted) if note]

    def own(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        return frames.astype(np.float64) * self.units.span + self.units.low

    def describe(self) -> list[str]:
        T, C, H, W = self.clip_shape
        name = f"{self.name}, {self.split}" if self.split else self.name
        return [f"{name}: {len(self)} clips of {T} frames, {C} x {H} x {W}", *self._warnings()]

    def _warnings(self) -> list[str]:
        return [f"warning: {note}" for note in self.notes]

    def frames(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return readings.in_unit(self.clip(index, rng), self.units, self.name)


class ReadyClips(ArrayClips):
    """Clips that are there as such, (N, T, C, H, W); their first frames are taken."""

    has_own_split = False

    def __init__(self, name: str, clips: NDArray[Any], length: int, units: Units, notes: tuple[str, ...] = ()) -> None:
        if clips.shape[1] < length:
            raise InputError(
                f"{name}: its clips have {clips.shape[1]} frames, context and horizon want {length}",
                "give a smaller --context or --frames",
            )
        self._take(name, units, [clips], notes)
        self._clips = clips
        _, _, C, H, W = clips.shape
        self.clip_shape = (length, C, H, W)

    def __len__(self) -> int:
        return len(self._clips)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        return self._clips[index, : self.clip_shape[0]]


class TaxiBJ(ArrayClips):
    """TaxiBJ's `dataset.npz`: X (N, 4, 2, 32, 32) goes in, Y (N, 4, 2, 32, 32) comes out, both in [-1, 1].

    Validation is the test split, as published. Of files that are scaled to [0, 1] already, that is said.
    """

    def __init__(
        self, path: Path, arrays: Mapping[str, NDArray[Any]], declared: Declared, split: str, length: int
    ) -> None:
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
        together = [array for pair in self._pairs for array in pair]
        self._take(f"TaxiBJ {path}", _taxibj_units(path, arrays, declared), together)
        self.split = split
        self.clip_shape = (length, C, H, W)

    def __len__(self) -> int:
        return sum(len(X) for X, _ in self._pairs)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        X, Y = self._pairs[0]
        if index >= len(X):  # of "all": the test part follows the training part
            index -= len(X)
            X, Y = self._pairs[1]
        return np.concatenate([X[index], Y[index]])[: self.clip_shape[0]]  # (T, C, H, W)

    def group(self, index: int) -> int:
        return index // self.clip_shape[0]  # clips begin half an hour apart


def _taxibj_units(path: Path, arrays: Mapping[str, NDArray[Any]], declared: Declared) -> Units:
    """By all splits, as some of the test split alone may be busy."""
    if declared.range is not None:
        return Units(*declared.range, declared.missing)
    if any((arrays[key] < 0).any() for key in TAXIBJ_KEYS):
        return Units(-1, 1, declared.missing)
    note = f"{path} holds no value below 0: taken for values in [0, 1], and not in [-1, 1] as published"
    return Units(0, 1, declared.missing, note=note)


class GridWindows(ArrayClips):
    """All windows of a gridded sequence (T, C, H, W), read as `predict` does; for training, counts are divided by the
    maximum of the training part.

    The last tenth is the test split, what comes before it, as long, the validation split. A window belongs to the split
    of the frames it predicts: the context of the first test windows lies in the part before, as it does in use. What
    exceeds the divisor is above 1.
    """

    def __init__(
        self, name: str, frames: NDArray[Any], split: str, context: int, horizon: int, divided_by: float | None = None,
        declared: Declared = UNDECLARED, notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
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
        units = readings.units_of(name, frames, declared, divided_by)
        if units.open and divided_by is None:
            units = dataclasses.replace(units, high=max(1.0, readings.highest(frames[: edges["train"][1]], units)))
        self._take(name, units, [frames], notes)
        # Of counts and of what starts at 0, weights that learn from it can be told; of other ranges their users.
        self.divided_by = units.span if units.own and units.low == 0 else 1.0
        self.split, self._frames = split, frames
        self.clip_shape = (context + horizon, C, H, W)

    @staticmethod
    def test_steps(T: int) -> int:
        """How many steps at the end of a sequence of T are the test split."""
        return int(T * TEST_SHARE)

    def __len__(self) -> int:
        return len(self.starts)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        start = self.starts[index]
        return self._frames[start : start + self.clip_shape[0]]

    def group(self, index: int) -> int:
        return index // self.clip_shape[0]

    def describe(self) -> list[str]:
        _, C, H, W = self.clip_shape
        divided = f", divided by {self.divided_by:g}" if self.divided_by != 1 else ""
        return [f"{self.name}, {self.split}: {len(self)} windows, {C} x {H} x {W}{divided}", *self._warnings()]


class BikeNYC(GridWindows):
    """Hourly flows of bikes, whose test split is the last ten days, as published."""

    @staticmethod
    def test_steps(T: int) -> int:
        return BIKENYC_TEST


def cut_arrays(
    path: Path, file: Arrays, dataset: str | None, split: str, context: int, horizon: int, divided_by: float | None,
    declared: Declared, channels: int | None,
) -> ClipDataset:  # fmt: skip
    """The data set in a file's arrays: the kind that `dataset` names, None for what they look like."""
    length, declared = context + horizon, declared.over(file.declared)
    if dataset == "taxibj" or (dataset is None and file.arrays.keys() >= set(TAXIBJ_KEYS)):
        return TaxiBJ(path, file.arrays, declared, split, length)
    if dataset in (None, "moving-mnist") and file.arrays.keys() >= set(KERAS_KEYS.values()):
        return MovingMNIST(path, split, length)
    array = only_array(path, file.arrays)
    if dataset in (None, "moving-mnist") and array.shape == MOVING_MNIST and not declared.layout:
        array, declared = array[:, None], dataclasses.replace(declared, layout="TNHW")  # one clip of such a file
    if dataset == "moving-mnist":
        if array.ndim != 4 or (array.shape[0], *array.shape[2:]) != MOVING_MNIST:
            raise InputError(f"{path} is shaped {array.shape}, and Moving MNIST (20, N, 64, 64)", "leave out --dataset")
        declared = dataclasses.replace(declared, layout="TNHW")
    found = readings.arrange(str(path), array, declared, channels=channels, among=_AMONG[dataset])
    notes = (found.note,) if found.note else ()
    if "N" in found.layout:
        if dataset == "grid":
            raise InputError(
                f"{path} is {found.layout}, and a grid has no N", "correct --layout, or leave out --dataset"
            )
        name = f"Moving MNIST {path.name}" if found.layout == "TNHW" else path.name
        return ReadyClips(name, found.clips, length, readings.units_of(path.name, found.clips, declared), notes)
    if dataset == "clips":
        raise InputError(f"{path} is {found.layout}, and clips have an N", "correct --layout, or leave out --dataset")
    frames = found.clips[0]  # (T, C, H, W)
    is_bikenyc = frames.shape[1:] == BIKENYC_GRID and len(frames) >= 10 * BIKENYC_TEST
    kind = BikeNYC if is_bikenyc else GridWindows
    return kind(path.name, frames, split, context, horizon, divided_by, declared, notes)
