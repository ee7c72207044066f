"""What a data set is to the training loop: clips by number, the same clip for the same (seed, epoch, number).

Notation: B batch, T time, C channels, H x W pixels.
"""

from __future__ import annotations

import multiprocessing
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ..errors import VMRNNError
from ..frames import to_float
from ..readings import fill

if TYPE_CHECKING:
    from ..grids.series import GridClip

ClipArray = NDArray[Any]


class ClipDataset(ABC):
    """Clips of context + horizon frames.

    name : for model cards and messages
    clip_shape : (T, C, H, W)
    divided_by : what its values were divided by to lie in [0, 1]; None for pictures, which have no units
    has_own_split : whether the clips of a split are no other split's
    notes : what was taken for granted, a line each
    units : that its own values are in, where these are known
    one_shape : whether all clips have `clip_shape`; else some are higher, or wider
    seen : of grids with coordinates, what is 0 and what 1: units, range, transform, as configurations have them
    """

    name: str
    clip_shape: tuple[int, int, int, int]
    divided_by: float | None = None
    has_own_split = True
    notes: Sequence[str] = ()
    units: Any = ""
    one_shape = True
    seen: Mapping[str, Any] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        """Return clip `index` as it is kept, uint8 or float32, of `clip_shape`; randomness comes from `rng` alone."""

    def frames(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return clip `index` in [0, 1], NaN where a value is missing; what exceeds the divisor is above."""
        return to_float(self.clip(index, rng))

    def group(self, index: int) -> int:
        """Return the group of clip `index`: those of one group are alike, as they share frames or a scene."""
        return index

    def own(self, frames: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return frames of any shape in the data's own units."""
        return frames.astype(np.float64)

    def lead(self, ahead: int) -> str:
        """Return how far ahead the frame number `ahead` (1, 2, ...) is, for people."""
        return f"+{ahead}"

    def label(self, index: int) -> str:
        """Return what people call clip `index`."""
        return f"clip {index}"

    def map_of(self, index: int) -> GridClip | None:
        """Return when and where clip `index` is, of a grid with coordinates, and in which units; None of all else."""
        return None

    @abstractmethod
    def describe(self) -> list[str]:
        """Say in a line or two what is there."""


class _Numbered(Dataset):
    """A data set as PyTorch's loader wants it: the clips of one epoch."""

    def __init__(self, dataset: ClipDataset, seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch

    def __getitem__(self, index: int) -> NDArray[np.float32] | VMRNNError:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        try:
            return fill(self.dataset.frames(index, rng))
        except VMRNNError as error:
            return error  # raised in a worker, PyTorch would wrap it


def _batch(clips: list[NDArray[np.float32] | VMRNNError]) -> NDArray[np.float32] | VMRNNError:
    """(B, T, C, H, W), or the first error.

    As an array: tensors would come from workers through shared memory, of which containers have little, and whose end
    kills a process without a word.
    """
    errors = [clip for clip in clips if isinstance(clip, VMRNNError)]
    return errors[0] if errors else np.stack([clip for clip in clips if isinstance(clip, np.ndarray)])


def batches(
    dataset: ClipDataset,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[torch.Tensor]:
    """Yield the batches of an epoch, (B, T, C, H, W) float32 in [0, 1], without missing values, from batch `start` on.

    Order and content depend on (seed, epoch) only, not on workers, restarts or ranks: the ranks of `world` get equal
    shares of each batch of `batch_size`, which together are the batch of a single process. Clips that do not fill the
    last batch are left out.

    Raises:
        VMRNNError: a clip cannot be had, as its data set says.
    """
    order = np.arange(len(dataset))
    np.random.default_rng((seed, epoch)).shuffle(order)
    firsts = range(start * batch_size, len(order) - batch_size + 1, batch_size)
    shares = [order[first : first + batch_size][rank::world].tolist() for first in firsts]
    numbered = _Numbered(dataset, seed, epoch)
    loader = DataLoader(numbered, batch_sampler=shares, num_workers=workers, collate_fn=_batch)
    failure = None  # raised outside, so that nothing keeps a loader half made, which complains as it goes
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        loaded = iter(loader)
    except OSError as error:  # of semaphores, which live in shared memory, or of processes
        failure = VMRNNError(
            f"cannot start --workers: {error.strerror or error}",
            "see to /dev/shm (shared memory) and the limits on processes, or pass --workers 0",
        )
    finally:
        sys.unraisablehook = hook
    if failure is not None:
        raise failure
    while True:
        try:
            batch = next(loaded, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            for process in multiprocessing.active_children():  # which wait for one that is gone
                process.kill()
            raise VMRNNError(
                "a process that prepares data was ended from outside", "close other programs, or pass fewer --workers"
            ) from None
        if batch is None:
            return
        if isinstance(batch, VMRNNError):
            raise batch
        yield torch.from_numpy(batch)
