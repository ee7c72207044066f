"""How surprising a frame of a stream is: what no forecast of it explains, by what the stream itself is used to.

A frame is compared, on a coarse grid, with what was forecast of it and with the frame before. Of both, the gain and the
offset that fit best around each place are taken off first, and a place may lie a cell further: light that changes, a
fade, a flicker and a hand that shakes explain a frame as well as motion does. What is left is measured in terms of the
contrast that is there, of what is usually left at that place, and of the noise of this very frame. Six numbers come of
it, and the stream's own running distribution of each tells how rare it is:

    place    what is left where most is left, in terms of what is usual there: a still picture in which something stirs
    sudden   what was left at a place, in terms of the most near there lately and a frame later: an object that appears
    whole    how much more than lately is left in the quarter of the picture where least is: a cut
    skill    how much worse the forecast fits than the last frame that it knew, while the light is steady: a stop
    retraced how much better the frames before a moment, in reverse, tell those after it than forecasts do, or that
             all stands still: a reversal
    still    how little changes, where the picture always changes: a freeze

The distributions are taken for normal ones above their median, on a logarithmic scale. So far out as an alarm an hour
is nothing has been seen yet of most streams, and footage of many kinds is about so.

Notation: H x W pixels, h x w cells of a grid whose shorter side is about 32; values in [0, 1].
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float32]

_CELLS = 32  # on the shorter side of the grid
_PEAK = 8  # cells: an object of about 11 x 11 pixels in 128 x 128
_FLOOR = (0.5 / 255) ** 2  # a squared difference that digits alone can make
_MEMORY = 75  # frames over which is learned what is usually left
_WARM_UP = 25  # numbers before there is an alarm
_KEPT = 4096  # numbers of which a distribution is made
_AGAIN = 25  # numbers after which a distribution of many is looked at again
_TRUST = 20  # numbers that count as much as what is typical of footage
_DARK = 0.25  # share of the usual contrast below which a picture says nothing
_BLANK = 0.02  # share of the contrast that is left of most scenes
_RETRACED = 6  # frames that go back before it is told
_FAINT = _FLOOR / 24  # a squared difference that digits alone can make of cells of 4 x 4 pixels
_STEADY = 0.03  # change of the gain within which light is steady
_LATELY = 12  # frames for which it has to be, or nothing has to change, or a scene has to be known
_AFRESH = 5  # frames of a scene after which it is known what is left where
_NEAR = 2  # cells: what moves leaves something there too
_END = 0.02  # from black, and from white: values that light may have cut off
_LEAST = 0.02  # what a cell tells of the light that is all black or white
_EDGE = 1 / 16  # share of the shorter side over which things come in, rather than appear


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

    alarm : the surprise above which an event begins

    Args:
        fps: frames per second.
        alarms_per_hour: how many false alarms may be expected.
    """

    def __init__(self, fps: float, alarms_per_hour: float = 1.0) -> None:
        self.alarm = -math.log10(min(0.5, alarms_per_hour / (3600 * fps)))
        # By how much they spread at least, and typically.
        self._place, self._whole = _Distribution(0.8, 1.0), _Distribution(0.3, 0.3)
        self._sudden = _Distribution(0.4, 0.4)
        self._shares: deque[float] = deque(maxlen=_LATELY)  # logarithms, since the scene began
        # What is left at each place, (h, w), of the contrast: the frame before, and the most before that, fading.
        self._off = self._most = np.zeros((0, 0), np.float32)
        self._fading = 1 - 1 / max(_LATELY, fps)  # of the most: after a second little of it counts
        self._seen = 0  # frames, since the scene began
        self._skill, self._still = _Distribution(0.5, 0.5), _Distribution(0.8, 1.0)
        self._skills: deque[float] = deque(maxlen=3)
        self._retraced = _Distribution(0.45, 0.45)
        self._frames: deque[Grid] = deque(maxlen=2 * _RETRACED + 1)
        self._misfits: deque[float] = deque(maxlen=_RETRACED)  # of the forecasts
        self._changes: deque[float] = deque(maxlen=_LATELY)  # squared, from frame to frame
        self._unsteady = _LATELY  # frames ago that the light was not steady
        self._before: Grid | None = None  # the frame before
        self._lit: Grid | None = None  # the last frame with contrast, while what came after it has none
        self._contrast = 0.0
        self._usual: Grid | None = None
        self._learned = 0  # frames from which that was

    def see(self, truth: Grid, forecast: Grid, last: Grid) -> Reading:
        """Measure a frame, and learn from it.

        Args:
            truth: the frame, (H, W).
            forecast: what was forecast of it, (H, W).
            last: the last frame that the forecast knew, (H, W).
        """
        size = max(1, round(min(truth.shape) / _CELLS))
        y, known = pooled(truth, size), pooled(last, size)
        guess = pooled(forecast, size)
        noise = _pixel_noise(truth) ** 2 / size**2 + _FLOOR  # of a cell, squared
        before = known if self._before is None or self._before.shape != y.shape else self._before
        self._before = y
        black, white = (pooled(cut.astype(np.float32), size) for cut in (truth < _END, truth > 1 - _END))
        left, gain = _unexplained(y, [guess, before, *self._remembered(before)], black, white)
        noise = noise * np.maximum(1, gain) ** 2  # which a gain makes larger
        place, ratio = self._measure_place(y, left, noise)
        surprises = [
            self._measure_skill(y, guess, known, float(noise.mean())), self._measure_stillness(y, before, truth.size),
            self._measure_retracing(y, guess),
        ]  # fmt: skip
        if not self._too_dark(y, before):
            whole = self._measure_whole(y, left, noise)
            surprises += [self._place.add(place, self.alarm), whole, self._measure_suddenness(y, left, noise)]
            if whole is not None and whole > self.alarm:
                self._begin_scene()
        at_all = [surprise for surprise in surprises if surprise is not None]
        return Reading(max(at_all, default=None), self.alarm, 0.6 * self.alarm, np.sqrt(ratio).astype(np.float32))

    def _begin_scene(self) -> None:
        """Forget what holds for one scene only."""
        if self._usual is not None:
            self._usual[:], self._learned = self._usual.mean(), 5
        self._changes.clear()
        self._shares.clear()
        self._seen = 0
        self._still.clear()

    def _measure_place(self, y: Grid, left: Grid, noise: Grid) -> tuple[float, Grid]:
        """Where most is left, in terms of contrast and of what is usual there, and that of all places."""
        contrast = _variance(y, 2) + 0.3 * y.var() + 8 * noise
        share = _box(left, 1) ** 2 / contrast  # signed, so that what belongs together adds up
        if self._usual is None or self._usual.shape != share.shape:
            self._usual, self._learned = share.copy(), 0
        usual = self._usual
        ratio = share / (0.5 * usual + 0.5 * usual.mean() + 2 * noise / contrast + 0.02)  # two frames' noise is usual
        self._learned += 1
        usual += (np.minimum(share, 4 * usual + 0.05) - usual) / min(self._learned + 1, _MEMORY)
        return math.log(_peak(ratio) + 0.1), ratio

    def _measure_suddenness(self, y: Grid, left: Grid, noise: Grid) -> float | None:
        """How surprising it is that, the frame before, so much more was left somewhere than near there lately, or now.

        What else goes on in the picture, and went on elsewhere, does not hide it.
        """
        contrast = float(y.var()) + _FLOOR
        now, floor = _box(left, 1) ** 2 / contrast, _BLANK + float(noise.mean()) / contrast
        before, self._off = self._off, now
        if self._seen == 0 or before.shape != now.shape:
            self._most, self._seen = np.zeros_like(now), 1
            return None
        most, self._most = self._most, np.maximum(self._fading * self._most, before)
        self._seen += 1
        if self._seen <= _AFRESH + 1:
            return None
        more = (before + floor) / (_highest(np.maximum(most, now), _NEAR) + floor)
        edge = int(_EDGE * min(more.shape))
        inside = more[edge : more.shape[0] - edge, edge : more.shape[1] - edge]
        return self._sudden.add(max(0.0, math.log(_peak(inside))), self.alarm)

    def _measure_whole(self, y: Grid, left: Grid, noise: Grid) -> float | None:
        """How surprising it is that so much more is left of the whole picture than at any time lately."""
        *lately, share = *self._shares, math.log(self._share(y, left, noise) + _BLANK)
        self._shares.append(share)
        return None if len(lately) < _LATELY else self._whole.add(max(0.0, share - max(lately)), self.alarm)

    def _share(self, y: Grid, left: Grid, noise: Grid) -> float:
        """What is left of the contrast where least is, two frames' noise aside."""
        radius = max(1, min(y.shape) // 5)
        beyond = np.maximum(_box(left**2, radius) - 2 * noise, 0)
        return float(np.quantile(beyond / (_variance(y, radius) + 4 * noise), 0.25))

    def _measure_skill(self, y: Grid, guess: Grid, known: Grid, noise: float) -> float | None:
        """How surprising it is that the forecast is worse than none."""
        fits = [_fit(y, x) for x in (guess, known)]
        off = [float(np.square(fit.left(y, x)).mean()) + noise for fit, x in zip(fits, (guess, known), strict=True)]
        self._skills.append(math.log(off[0] / off[1]))
        light = (
            abs(float(np.median(fits[1].gain)) - 1),
            abs(float(y.mean() - known.mean())) / max(float(y.mean()), 0.02),
        )
        self._unsteady = 0 if max(light) > _STEADY else self._unsteady + 1
        if self._unsteady < _LATELY or len(self._skills) < 3:
            return None
        return self._skill.add(sum(self._skills) / 3, self.alarm)

    def _measure_stillness(self, y: Grid, before: Grid, pixels: int) -> float | None:
        """How surprising it is that so little has changed for a while."""
        self._changes.append(float(np.square(y - before).mean()))
        if len(self._changes) < _LATELY or self._too_dark(y, before):
            return None
        change = sum(self._changes) / _LATELY
        return self._still.add(-0.5 * math.log(change + 1e-3 * _FLOOR / pixels), self.alarm)

    def _measure_retracing(self, y: Grid, guess: Grid) -> float | None:
        """How surprising it is that what came goes back the way it came."""
        if self._frames and self._frames[-1].shape != y.shape:
            self._frames.clear()
        self._frames.append(y)
        self._misfits.append(float(_misfits(y[None], guess)[0]))
        if len(self._frames) < 2 * _RETRACED + 1:
            return None
        frames = np.stack(self._frames)
        came, after = frames[:_RETRACED][::-1], frames[_RETRACED + 1 :]
        ahead = np.minimum(self._misfits, _misfits(after, frames[_RETRACED])).mean() + _FAINT
        back = _misfits(after, came).mean() + _FAINT
        return self._retraced.add(max(0.0, math.log(ahead / back)), self.alarm)

    def _too_dark(self, y: Grid, before: Grid) -> bool:
        """Whether there is too little to see to tell anything."""
        return max(float(y.std()), float(before.std())) < _DARK * self._contrast

    def _remembered(self, before: Grid) -> list[Grid]:
        """Where the given picture is dark or blank, the one before it got so."""
        contrast = float(before.std())
        if self._lit is not None and self._lit.shape == before.shape and contrast < _DARK * self._contrast:
            return [self._lit]
        self._lit, self._contrast = before, max(contrast, 0.99 * self._contrast)
        return []


class _Distribution:
    """The running distribution of a number: its median, and how far it spreads above that.

    Args:
        least: the spread, a standard deviation, that it has at least.
        typical: the spread that it has before much is known.
    """

    def __init__(self, least: float, typical: float) -> None:
        self._least, self._typical = least, typical
        self._numbers = np.zeros(_KEPT)  # once full, the oldest gives way
        self._added = 0
        self._median, self._spread = 0.0, least

    def add(self, number: float, alarm: float) -> float | None:
        """-log10 of the share of numbers so large, before it is one of them."""
        surprise = None
        count = min(self._added, _KEPT)
        if count >= _WARM_UP:
            if count < 10 * _AGAIN or self._added % _AGAIN == 0:
                median, high = np.quantile(self._numbers[:count], (0.5, 0.9))
                spread = (count * float(high - median) / 1.2816 + _TRUST * self._typical) / (count + _TRUST)
                self._median, self._spread = float(median), max(spread, self._least)
            surprise = _rarity((number - self._median) / self._spread)
            if surprise > alarm:  # what is beyond an alarm counts as far as one
                number = self._median + self._spread * NormalDist().inv_cdf(1 - 10**-alarm)
        self._numbers[self._added % _KEPT] = number
        self._added += 1
        return surprise

    def clear(self) -> None:
        """Forget all numbers."""
        self._added = 0


def _rarity(away: float) -> float:
    """-log10 of the share of a normal distribution that is further above, in standard deviations."""
    if away < 6:
        return -math.log10(0.5 * math.erfc(away / math.sqrt(2)))
    return (away**2 / 2 + math.log(away * math.sqrt(2 * math.pi))) / math.log(10)  # what it comes to far out


# ---- comparing two pictures


def pooled(frame: Grid, size: int) -> Grid:
    """The mean of each `size` x `size` pixels, the rest at the edges left out: (H, W) -> (h, w)."""
    h, w = frame.shape[0] // size, frame.shape[1] // size
    return frame[: h * size, : w * size].reshape(h, size, w, size).mean((1, 3), dtype=np.float32)


class _Fit(NamedTuple):
    """The light that makes one picture of another around each place, (h, w) each."""

    gain: Grid
    mean_x: Grid
    mean_y: Grid

    def left(self, y: Grid, x: Grid) -> Grid:
        """What is left of y."""
        return y - self.mean_y - self.gain * (x - self.mean_x)


def _fit(y: Grid, x: Grid, tells: Grid | None = None) -> _Fit:
    """The gain, at least 0, and the offset by which x comes nearest to y around each place.

    What does not fit counts less in a second round: an object that appears must not pass for light. `tells` is how much
    each place tells of the light, (h, w) above 0.
    """
    radius = max(1, min(y.shape) // 4)
    tells = np.ones_like(y) if tells is None else tells
    weight, fit = tells, None
    for _ in range(2):
        total, *sums = _box(np.stack([weight, weight * x, weight * y, weight * x * x, weight * x * y]), radius)
        mean_x, mean_y, square, product = (part / total for part in sums)
        variance, covariance = np.maximum(square - mean_x**2, 0), np.maximum(product - mean_x * mean_y, 0)
        fit = _Fit(*_box(np.stack([covariance / (variance + _FLOOR), mean_x, mean_y]), radius // 2))
        off = fit.left(y, x) ** 2
        weight = (tells / (1 + off / (4 * np.median(off) + _FLOOR))).astype(np.float32)
    assert fit is not None
    return fit


def _misfits(y: Grid, x: Grid) -> Grid:
    """The mean square of what is left of each y (T, h, w) by x, the light of the whole picture aside: (T,)."""
    y, x = (part - part.mean((-2, -1), keepdims=True) for part in (y, x))
    gain = (x * y).mean((-2, -1)) / ((x * x).mean((-2, -1)) + _FLOOR)
    left: Grid = np.square(y - gain.clip(min=0)[:, None, None] * x).mean((-2, -1))
    return left


def _unexplained(y: Grid, candidates: Sequence[Grid], black: Grid, white: Grid) -> tuple[Grid, Grid]:
    """What is left of y by the candidate, up to a cell off, that explains most around each place; and its gain.

    `black` and `white` are the shares of each cell that are, (h, w) in [0, 1]. By these, a cell may be brighter or
    darker than light explains: values were cut off there.
    """
    h, w = y.shape
    fits = [_fit(y, x, np.maximum(1 - black - white, _LEAST)) for x in candidates]
    off = np.stack(
        [
            fit.left(y, wide[top : top + h, start : start + w])
            for fit, wide in zip(fits, (np.pad(x, 1, mode="edge") for x in candidates), strict=True)
            for top, start in itertools.product(range(3), repeat=2)
        ]
    )
    off *= np.where(off < 0, 1 - white, 1 - black)
    best = np.argmin(_box(off * off, 1), 0)[None]
    gains: Grid = np.repeat(np.stack([fit.gain for fit in fits]), 9, 0)
    return np.take_along_axis(off, best, 0)[0], np.take_along_axis(gains, best, 0)[0]


def _variance(values: Grid, radius: int) -> Grid:
    """Around each place, of (h, w)."""
    variance: Grid = _box(values * values, radius) - _box(values, radius) ** 2
    return variance.clip(min=0)


def _box(values: Grid, radius: int) -> Grid:
    """Mean over the places up to `radius` away, as far as there are such: (..., h, w) likewise."""
    means = _means(values.shape[-2], radius) @ values @ _means(values.shape[-1], radius).T
    return means.astype(np.float32, copy=False)


def _highest(values: Grid, radius: int) -> Grid:
    """The highest of the places up to `radius` away, of (h, w)."""
    for _ in range(2):  # along the one axis, and the other
        wide = np.pad(values, ((radius, radius), (0, 0)), mode="edge")
        values = np.max([wide[start : start + len(values)] for start in range(2 * radius + 1)], 0).T
    return values


def _peak(values: Grid) -> float:
    """The mean over the places with the highest values."""
    count = min(_PEAK, values.size)
    return float(np.partition(values, -count, None)[-count:].mean())


@lru_cache(maxsize=32)
def _means(length: int, radius: int) -> Grid:
    """The matrix (length, length) that takes the mean of neighbours."""
    place = np.arange(length)
    near = (np.abs(place[:, None] - place) <= radius).astype(np.float32)
    means: Grid = near / near.sum(1, keepdims=True)
    return means.astype(np.float32, copy=False)


def _pixel_noise(frame: Grid) -> float:
    """The standard deviation of a frame's noise, from what differs from the pixels around more than slopes do."""
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
