"""Probability matching: a forecast that has the values of the last known frame again, in the places that it gives them.

What is likeliest on average is smooth: squared error pays for it, and heavy rain is gone from it although it will fall
somewhere. Here the forecast decides where most is, and the last frame how much that is (Ebert, 2001, for ensembles).

Notation: C channels, H x W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def match_values(forecast: NDArray[np.float32], last: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give each place of a forecast the value that has its rank in the last frame.

    Places that are forecast alike get the same, the mean of what they would get one by one; so the mean of all places
    is that of the last frame.

    Args:
        forecast: (C, H, W) in any unit.
        last: (C, H, W), without missing values.

    Returns:
        (C, H, W), each channel with the values of `last`.
    """
    matched = np.empty_like(forecast)
    for channel, known, out in zip(forecast, last, matched, strict=True):
        _, rank, count = np.unique(channel, return_inverse=True, return_counts=True)
        first = np.cumsum(count) - count  # of the places that are alike, in the order of their values
        values = np.add.reduceat(np.sort(known, axis=None).astype(np.float64), first) / count
        out[:] = values[rank].reshape(channel.shape)
    return matched
