"""How surprising a frame of a stream is: what no forecast of it explains, by what the stream itself is used to.

A frame is compared with what was forecast of it and with the last frame of that forecast, on a coarse grid. Of both,
the gain and the offset that fit best around each place are taken off first: light that changes, a fade and a flicker
explain a frame as well as motion does. What is left is measured in terms of what is usually left at that place, and of
the noise of this very frame. The few places where most is left make a number, and the number's own running
distribution tells how often the stream has one as large: by an exponential tail, as far out as an alarm an hour asks.

A picture that stands still to the last digit is surprising, too, where the stream never does.

Notation: H x W pixels, h x w cells of a grid whose shorter side is about 32; values in [0, 1].
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float32]

_CELLS = 32  # on the shorter side of the grid
_PEAK = 8  # cells: an object of about 11 x 11 pixels in 128 x 128
_FLOOR = (0.5 / 255) ** 2  # a squared difference that digits alone can make
_MEMORY = 150  # frames over which is learned what is usually left
_SPREAD = 0.5  # of what is usually left, the share that the places around say
_WARM_UP = 25  # numbers before there is an alarm
_KEPT = 4096  # numbers of which the distribution is made
_TAIL = 0.1  # share of the numbers that tell how the tail falls off
_TYPICAL_FALL, _TRUST = 0.35, 20.0  # logarithm by which a tail falls off by e, before so many numbers tell it
_DARK = 0.25  # share of the usual contrast below which a picture says nothing


class Reading(NamedTuple):
    """What is known of one frame.

    surprise : -log10 of the share of frames that surprise as much; None before there is anything to go by
    alarm : the same number, above which an alarm is as rare as was asked for
    calm : the number below which an event comes to its end
    heat : (h, w), how far each place is off, in terms of what is usual there: 1 is usual
    """

    surprise: float | None
    alarm: float
    calm: float
    heat: Grid


class Surprise:
    """A measure that is carried along a stream, of constant size.

    Args:
        fps: frames per second.
        alarms_per_hour: how many false alarms may be expected.
    """

    def __init__(self, fps: float, alarms_per_hour: float = 1.0) -> None:
        self.alarm = -math.log10(min(0.5, alarms_per_hour / (3600 * fps)))
        self._usual: dict[int, Grid] = {}  # squared, by how far ahead the forecast looked
        self._seen: dict[int, int] = {}
        self._tail, self._still = _Tail(), _Tail()
        self._noise = 0.0
        self._before: Grid | None = None  # the last frame
        self._lit: Grid | None = None  # the last frame with contrast, while what came after it has none
        self._contrast = 0.0

    def see(self, truth: Grid, forecast: Grid, last: Grid, lead: int) -> Reading:
        """Measure a frame, and learn from it.

        Args:
            truth: the frame, (H, W).
            forecast: what was forecast of it, (H, W).
            last: the last frame that the forecast knew, (H, W).
            lead: how many frames ahead it looked.
        """
        size = max(1, round(min(truth.shape) / _CELLS))
        y, before = pooled(truth, size), pooled(last, size)
        noise = _pixel_noise(truth) ** 2 / size**2  # of a cell
        candidates = [pooled(forecast, size), before]
        self._remember(y, before, candidates)
        left, gain = _unexplained(y, candidates)
        if lead not in self._usual or self._usual[lead].shape != left.shape:
            self._usual[lead], self._seen[lead] = np.maximum(left, _FLOOR), 0
        usual = self._usual[lead]
        around = (1 - _SPREAD) * _box(usual, 1) + _SPREAD * usual.mean()
        expected = (around + 2 * noise + _FLOOR) * np.maximum(1, gain) ** 2
        ratio = _box(left, 1) / expected  # squared
        peak = min(_PEAK, ratio.size)
        number = math.log(float(np.partition(ratio, -peak, None)[-peak:].mean()) + 1e-6)
        # An outlier is learned, so that a stream that has changed for good is the usual one soon, but slowly.
        self._seen[lead] += 1
        rate = 1 / min(self._seen[lead], _MEMORY)
        usual += rate * (np.minimum(left, 16 * expected) - usual)
        surprise = self._tail.add(number, self.alarm)
        still = self._stands_still(y, truth.size)
        if surprise is not None and still is not None and still > max(surprise, self.alarm):
            surprise = still
        calm = 0.6 * self.alarm
        return Reading(surprise, self.alarm, calm, np.sqrt(ratio).astype(np.float32))

    def _stands_still(self, y: Grid, pixels: int) -> float | None:
        """How surprising it is that so little has changed since the last frame."""
        before, self._before = self._before, y
        if before is None or before.shape != y.shape:
            return None
        change = float(np.square(y - before).mean())
        return self._still.add(-0.5 * math.log(change + 1e-3 * _FLOOR / pixels), self.alarm)

    def _remember(self, y: Grid, before: Grid, candidates: list[Grid]) -> None:
        """Where the given picture was dark or blank, compare with the one before it got so, too."""
        contrast = float(before.std())
        if self._lit is not None and self._lit.shape == y.shape and contrast < _DARK * self._contrast:
            candidates.append(self._lit)
        else:
            self._lit, self._contrast = before, max(contrast, 0.99 * self._contrast)


class _Tail:
    """The running distribution of a number, and how often it is as large."""

    def __init__(self) -> None:
        self._numbers: deque[float] = deque(maxlen=_KEPT)

    def add(self, number: float, alarm: float) -> float | None:
        """-log10 of the share of numbers so large, before it is one of them."""
        share = None
        if len(self._numbers) >= _WARM_UP:
            known = np.fromiter(self._numbers, float)
            start = float(np.quantile(known, 1 - _TAIL))
            beyond = known[known > start] - start
            fall = (float(beyond.sum()) + _TRUST * _TYPICAL_FALL) / (len(beyond) + _TRUST)
            if number > start:
                share = -math.log10(_TAIL) + (number - start) / fall / math.log(10)
            else:
                share = -math.log10(max(float((known > number).mean()), _TAIL))
            # What is beyond an alarm says nothing about the tail; it counts as far as one.
            number = min(number, start + fall * math.log(10) * (alarm + math.log10(_TAIL)))
        self._numbers.append(number)
        return share


def pooled(frame: Grid, size: int) -> Grid:
    """The mean of each `size` x `size` pixels, the rest at the edges left out: (H, W) -> (h, w)."""
    h, w = frame.shape[0] // size, frame.shape[1] // size
    return frame[: h * size, : w * size].reshape(h, size, w, size).mean((1, 3))


def _unexplained(y: Grid, candidates: list[Grid]) -> tuple[Grid, Grid]:
    """What is left of a frame by the candidate that explains most at each place, squared, and that one's gain."""
    results = [_residual(y, candidate) for candidate in candidates]
    left = np.stack([residual for residual, _ in results])
    # The places around tell which one holds: each place would choose by chance.
    best = np.argmin(np.stack([_box(residual, 1) for residual in left]), 0)[None]
    gains = np.stack([gain for _, gain in results])
    return np.take_along_axis(left, best, 0)[0], np.take_along_axis(gains, best, 0)[0]


def _residual(y: Grid, x: Grid) -> tuple[Grid, Grid]:
    """The squared difference between y and x with the gain and offset that fit best around; and the gain.

    What does not fit counts less in a second round: an object that appears must not pass for light.
    """
    radius = max(1, min(y.shape) // 4)
    weight: Grid = np.ones_like(y)
    gain, left = weight, y
    for _ in range(2):
        total = _box(weight, radius)
        mean_x, mean_y = _box(weight * x, radius) / total, _box(weight * y, radius) / total
        variance = _box(weight * x * x, radius) / total - mean_x**2
        covariance = _box(weight * x * y, radius) / total - mean_x * mean_y
        gain = np.maximum(covariance, 0) / (np.maximum(variance, 0) + _FLOOR)
        gain, mean_x, mean_y = (_box(part, radius // 2) for part in (gain, mean_x, mean_y))
        left = (y - mean_y - gain * (x - mean_x)) ** 2
        weight = (1 / (1 + left / (4 * np.median(left) + _FLOOR))).astype(np.float32)
    return left, gain


def _box(values: Grid, radius: int) -> Grid:
    """Mean over the places up to `radius` away, as far as there are such: (h, w) likewise."""
    sums: NDArray[np.float64] = values.astype(np.float64)
    for _ in range(2):
        length = len(sums)
        total = np.concatenate([np.zeros_like(sums[:1]), np.cumsum(sums, 0)])
        end = np.minimum(np.arange(length) + radius + 1, length)
        start = np.maximum(np.arange(length) - radius, 0)
        sums = ((total[end] - total[start]) / (end - start)[:, None]).T
    return sums.astype(np.float32)


def _pixel_noise(frame: Grid) -> float:
    """The standard deviation of a frame's noise, from what differs from the four pixels around more than slopes do."""
    if min(frame.shape) < 3:
        return 0.0
    inner = frame[1:-1, 1:-1]
    crossed = frame[1:-1, :-2] + frame[1:-1, 2:] + frame[:-2, 1:-1] + frame[2:, 1:-1]
    corners = frame[:-2, :-2] + frame[:-2, 2:] + frame[2:, :-2] + frame[2:, 2:]
    return float(np.median(np.abs(4 * inner - 2 * crossed + corners))) / 0.6745 / 6


# ---- events


@dataclass
class Event:
    """Something that could not be expected.

    number : counted from 1
    start, peak, end : the first frame, the most surprising one, and the last one, counted from 0; `end` is None as
        long as it lasts
    surprise : at its peak
    time : seconds, of `end`, or of `start` as long as it lasts
    """

    number: int
    start: int
    peak: int
    surprise: float
    time: float
    end: int | None = None


class Events:
    """Events with hysteresis: they begin above one number, and end once it has been below another for a while.

    Args:
        patience: frames below the lower one.
    """

    def __init__(self, patience: int) -> None:
        self.count = 0
        self.now: Event | None = None
        self._patience, self._calm_for = patience, 0
        self._last, self._time = 0, 0.0  # of the frames that belong to it

    def see(self, frame: int, at: float, reading: Reading) -> Event | None:
        """Take the next frame, `at` so many seconds, and return the event that begins or ends with it."""
        surprise = reading.surprise
        if surprise is None:
            return None
        if self.now is None:
            if surprise <= reading.alarm:
                return None
            self.count, self._calm_for, self._last, self._time = self.count + 1, 0, frame, at
            self.now = Event(self.count, frame, frame, surprise, at)
            return self.now
        if surprise > self.now.surprise:
            self.now.peak, self.now.surprise = frame, surprise
        if surprise > reading.calm:
            self._calm_for, self._last, self._time = 0, frame, at
        else:
            self._calm_for += 1
        return self.finish() if self._calm_for >= self._patience else None

    def finish(self) -> Event | None:
        """End the event that lasts, if any, with the last frame that belongs to it."""
        event, self.now = self.now, None
        if event is not None:
            event.end, event.time = self._last, self._time
        return event
