"""Forecasts that cost no training, which every forecast is shown and scored beside.

Notation: B batch, T time, C channels, H x W pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from . import motion

Frames = NDArray[np.float32]


def last_frame(given: Frames, ahead: int) -> Iterator[Frames]:
    """The last given frame repeated: (B, T, C, H, W) -> `ahead` times (B, C, H, W)."""
    return itertools.repeat(given[:, -1], ahead)


def motion_continued(given: Frames, ahead: int) -> Iterator[Frames]:
    """What moves goes on moving, by hypotheses that need no training; see `motion.motion_continued`."""
    frames = motion.motion_continued(torch.from_numpy(given).transpose(0, 1), ahead)
    for _ in range(ahead):
        with torch.inference_mode():  # not around the yield: it would hold for whoever asks for the frames
            frame = next(frames)
        yield frame.numpy()


# By the key that JSON has for their scores.
RIVALS: dict[str, Callable[[Frames, int], Iterator[Frames]]] = {
    "baseline_last_frame": last_frame,
    "baseline_motion": motion_continued,
}
RIVAL_NAMES = {"baseline_last_frame": "last frame repeated", "baseline_motion": "motion continued"}
