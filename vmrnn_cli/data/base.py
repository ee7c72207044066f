"""What a data set is to the training loop: clips by number, the same clip for the same (seed, epoch, number).

Notation: B batch, T time, C channels, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ..errors import VMRNNError
from ..frames import to_float

ClipArray = NDArray[Any]


class ClipDataset(ABC):
    """Clips of context + horizon frames.

    name : for model cards and messages
    clip_shape : (T, C, H, W)
    divided_by : what its values were divided by to lie in [0, 1]; None for pictures, which have no units
    has_own_split : whether the clips of a split are no other split's
    """

    name: str
    clip_shape: tuple[int, int, int, int]
    divided_by: float | None = None
    has_own_split = True

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        """Return clip `index` as it is kept, uint8 or float32, of `clip_shape`; randomness comes from `rng` alone."""

    def frames(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return clip `index` in [0, 1]; what exceeds what its data set is divided by is above."""
        return to_float(self.clip(index, rng))

    def group(self, index: int) -> int:
        """Return the group of clip `index`: those of one group are alike, as they share frames or a scene."""
        return index

    @abstractmethod
    def describe(self) -> list[str]:
        """Say in a line or two what is there."""


class _Numbered(Dataset):
    """A data set as PyTorch's loader wants it: the clips of one epoch."""

    def __init__(self, dataset: ClipDataset, seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch

    def __getitem__(self, index: int) -> torch.Tensor | VMRNNError:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        try:
            return torch.from_numpy(np.array(self.dataset.frames(index, rng)))  # a copy: it may be a view of a file
        except VMRNNError as error:
            return error  # raised in a worker, PyTorch would wrap it


def _batch(clips: list[torch.Tensor | VMRNNError]) -> torch.Tensor | VMRNNError:
    """(B, T, C, H, W), or the first error."""
    errors = [clip for clip in clips if isinstance(clip, VMRNNError)]
    return errors[0] if errors else torch.stack([clip for clip in clips if isinstance(clip, torch.Tensor)])


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
    """Yield the batches of an epoch, (B, T, C, H, W) float32 in [0, 1], from batch `start` on.

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
    for batch in DataLoader(numbered, batch_sampler=shares, num_workers=workers, collate_fn=_batch):
        if isinstance(batch, VMRNNError):
            raise batch
        yield batch
