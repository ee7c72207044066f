"""Forecasts that cost no training, which every forecast is shown and scored beside.

Notation: B batch, T time, C channels, H x W pixels.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from . import motion

Frames = NDArray[np.float32]
_DECIBELS = 70.0  # that frames are taken for where radar's ways to find motion are used


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


def pysteps_extrapolation(given: Frames, ahead: int) -> Iterator[Frames]:
    """Rain carried along the motion field that pysteps finds (Lucas and Kanade in the last three frames).

    What comes from outside is taken for dry. For a package that may not be there, see `rivals_of_grids`.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # which it greets on
        from pysteps import motion as pysteps_motion
        from pysteps import nowcasts

    forecasts = []
    for clip in given[:, -3:, 0].astype(np.float64) * _DECIBELS:  # (T, H, W)
        velocity = pysteps_motion.get_method("LK")(clip, verbose=False)
        made = nowcasts.get_method("extrapolation")(clip[-1], velocity, ahead)
        forecasts.append(np.nan_to_num(made, nan=0.0) / _DECIBELS)
    yield from np.stack(forecasts, 1).astype(np.float32)[:, :, None]


def rivals_of_grids() -> dict[str, Callable[[Frames, int], Iterator[Frames]]]:
    """The rivals that forecasts of grids are compared with: also pysteps' extrapolation, where that is installed."""
    found = importlib.util.find_spec("pysteps") is not None
    return {**RIVALS, **({"baseline_pysteps": pysteps_extrapolation} if found else {})}


# By the key that JSON has for their scores.
RIVALS: dict[str, Callable[[Frames, int], Iterator[Frames]]] = {
    "baseline_last_frame": last_frame,
    "baseline_motion": motion_continued,
}
GRID_RIVAL_NAMES = {"baseline_pysteps": "pysteps, extrapolation"}
RIVAL_NAMES = {"baseline_last_frame": "last frame repeated", "baseline_motion": "motion continued"}
