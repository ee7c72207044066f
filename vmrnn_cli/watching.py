"""A stream that never ends: forecast as it comes, and told when it surprises.

Every frame costs one step of what is given; every few frames a rollout goes ahead from there. What is kept has the same
size however long the stream is.

Notation: C channels, H x W pixels; frames are float32 (C, H, W) in [0, 1], numbered from 0.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .carried import Carried, Rollout
from .devices import set_threads
from .errors import InputError
from .frames import Frame
from .matching import match_values
from .metrics import mse
from .predictor import Network, Predictor, load_weights
from .readings import fill
from .surprise import Event, Events, Grid, Surprise

LEADS = (1, 5, 10)  # frames ahead at which forecasts are scored
EVERY = 5  # frames from rollout to rollout
FRAMES = 10  # of a rollout
FPS = 25.0
_REST = 0.5  # seconds of calm after which an event has ended
_PER_ALARM = 1000  # frames, at least, to a false alarm, unless more are asked for: scans may come an hour apart

Scores = Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Watched:
    """One frame of a stream, and what was known of it before it came.

    number : of the frame, counted from 0; of those that were dropped none
    time : seconds since the first frame
    frame : itself, (C, H, W) in [0, 1]
    surprise : -log10 of the share of this stream's frames that surprise as much; None as long as that is not known
    alarm : the surprise above which an event begins
    error : squared error, summed over the frame where it is not missing, of what was forecast of it, by how many
        frames ahead
    error_last_frame, error_motion : the same of the last frame repeated, and of motion continued without a network
    forecast : the newest one of this frame, (C, H, W); None where there is none
    heat : (h, w), how far each place is off, in terms of what is usual there: 1 is usual
    began, ended : the event that did so with this frame
    rollout : what is forecast from here on, every few frames: `rollout.forecast` are the frames, (C, H, W) each
    """

    number: int
    time: float
    frame: Frame
    surprise: float | None = None
    alarm: float = 0.0
    error: Scores = field(default_factory=dict)
    error_last_frame: Scores = field(default_factory=dict)
    error_motion: Scores = field(default_factory=dict)
    forecast: Frame | None = None
    heat: Grid | None = None
    began: Event | None = None
    ended: Event | None = None
    rollout: Rollout | None = None


class Watch:
    """Takes frames one at a time.

    events : how many there were, and the one that lasts
    network_s : seconds that the network and the motion it goes on with have taken

    Args:
        predictor: the network, on a device.
        fps: frames per second.
        every: frames from rollout to rollout, at most as many as one has.
        frames: how many a rollout has.
        leads: how many frames ahead forecasts are scored at.
        alarms_per_hour: how many false alarms may be expected; default `usual_alarms`.
        matched: whether forecasts get the values of the last frame again, as `matching` does.

    Raises:
        InputError: numbers outside these.
    """

    def __init__(
        self, predictor: Predictor, *, fps: float = FPS, every: int = EVERY, frames: int = FRAMES,
        leads: Sequence[int] = LEADS, alarms_per_hour: float | None = None, matched: bool = False,
    ) -> None:  # fmt: skip
        alarms_per_hour = usual_alarms(fps) if alarms_per_hour is None else alarms_per_hour
        check(fps=fps, every=every, frames=frames, leads=leads, alarms_per_hour=alarms_per_hour)
        self._carried = Carried(predictor)
        self._enough = max(2, predictor.model.config.context)
        self._every, self._frames = every, frames
        self._leads = tuple(lead for lead in leads if lead <= frames)
        self._rollouts: deque[Rollout] = deque(maxlen=-(-frames // every))
        self._surprise = Surprise(fps, alarms_per_hour)
        self.events = Events(max(every, round(_REST * fps)))
        self.network_s = 0.0
        self._number = -1
        self._matched = matched
        self._filled: Frame | None = None  # the last frame without missing values
        self._shape: tuple[int, ...] = ()
        self._fps = fps

    def see(self, frame: Frame, at: float | None = None) -> Watched:
        """Take the next frame, (C, H, W) in [0, 1], NaN where a value is missing.

        `at` is its time in seconds, by default as its number says.
        """
        self._number += 1
        number = self._number
        at = number / self._fps if at is None else at
        if frame.shape != self._shape:
            self._shape = frame.shape
            self.forget()
        (self._filled,) = fill(frame[None], self._filled)
        known: dict[str, Any] = self._look_back(number, at, frame, self._filled)
        begin = time.perf_counter()
        self._carried.give(self._filled)
        if self._carried.count >= self._enough and (number + 1) % self._every == 0:
            # Counted along the stream, whatever has been forgotten.
            rollout = self._carried.rollout(self._frames, self._leads)._replace(frame=number)
            if self._matched:
                last = self._filled
                rollout = rollout._replace(forecast=[match_values(each, last) for each in rollout.forecast])
            known["rollout"] = rollout
            self._rollouts.append(rollout)
        self.network_s += time.perf_counter() - begin
        return Watched(number, at, frame, **known)

    @property
    def alarm(self) -> float:
        """The surprise above which an event begins."""
        return self._surprise.alarm

    def forget(self) -> None:
        """Forget the frames so far: the next one does not go on with them. It is of another size, say."""
        self._carried.restart()
        self._rollouts.clear()
        self._filled = None

    def _look_back(self, number: int, at: float, frame: Frame, filled: Frame) -> dict[str, Any]:
        """Compare a frame, and the same without missing values, with what was forecast of it."""
        error, last, motion = {}, {}, {}
        for rollout in self._rollouts:
            lead = number - rollout.frame
            if lead in self._leads:
                error[lead] = mse(rollout.forecast[lead - 1], frame)
                last[lead] = mse(rollout.last, frame)
                motion[lead] = mse(rollout.continued[lead], frame)
        known: dict[str, Any] = {"error": error, "error_last_frame": last, "error_motion": motion}
        newest = self._rollouts[-1] if self._rollouts else None
        if newest is None or number - newest.frame > self._frames:
            return known
        lead = number - newest.frame
        forecast = newest.forecast[lead - 1]
        reading = self._surprise.see(_gray(filled), _gray(forecast), _gray(newest.last))
        changed = self.events.see(number, at, reading)
        known |= {"surprise": reading.surprise, "alarm": reading.alarm, "forecast": forecast, "heat": reading.heat}
        if changed is not None:
            known["began" if changed.end is None else "ended"] = changed
        return known


def usual_alarms(fps: float) -> float:
    """False alarms per hour that may be expected where nobody says: one, and at most one in a thousand frames."""
    return min(1.0, 3600 * fps / _PER_ALARM)


def check(*, fps: float, every: int, frames: int, leads: Sequence[int], alarms_per_hour: float | None) -> None:
    """Raise InputError unless a stream can be watched so."""
    if not 0 < fps <= 1e5:
        raise InputError(f"{fps} frames per second is no frame rate", "give a number from 0.0001 to 100000")
    if not 1 <= frames <= 1000:
        raise InputError(f"--frames {frames} makes no forecast of a stream", "give a number from 1 to 1000")
    if not 1 <= every <= frames:
        raise InputError(
            f"--every {every} leaves frames without a forecast", f"give a number from 1 to {frames}, as --frames says"
        )
    if not leads or min(leads) < 1:
        raise InputError(f"--leads {','.join(map(str, leads))} says no frames ahead", "give numbers, as in 1,5,10")
    if alarms_per_hour is not None and not 0 < alarms_per_hour <= 3600:
        raise InputError(
            f"--alarms-per-hour {alarms_per_hour:g} is no rate of alarms", "give a number above 0, up to 3600"
        )


def watch(
    source: Iterable[NDArray[Any]], *, fps: float = FPS, every: int = EVERY, frames: int = FRAMES,
    leads: Sequence[int] = LEADS, alarms_per_hour: float | None = None, weights: str | Path | Network | None = None,
    device: str = "auto", dtype: str = "auto", scan: str = "auto", threads: int | None = None,
) -> Iterator[Watched]:  # fmt: skip
    """Watch a stream: yield what is known of each frame, as it comes.

    Args:
        source: frames, (H, W), (C, H, W) or (H, W, 3): uint8, or floats in [0, 1]. NaN is missing.
        fps: frames per second.
        every: frames from rollout to rollout, at most as many as one has.
        frames: how many frames a rollout has.
        leads: how many frames ahead forecasts are scored at.
        alarms_per_hour: how many false alarms may be expected; default one, and at most one in a thousand frames.
        weights: a network, or what `vmrnn_cli.weights.load` takes; default the bundled ones for footage.
        device: auto, cpu, cuda or mps.
        dtype: auto, float32 or bfloat16, of the matrix products.
        scan: auto or a scan backend, see `vmrnn_cli.scan.BACKENDS`.
        threads: CPU threads.

    Yields:
        A `Watched` for each frame: `number`, `time` (seconds), `surprise` (above `alarm` an event begins), `heat`
        (h, w), `forecast` (C, H, W) in [0, 1], errors by lead, `began` and `ended` (an `Event`), `rollout`.

    Raises:
        InputError: a frame or an option that cannot be used.
        VMRNNError: the machine failed.
    """
    set_threads(threads)
    check(fps=fps, every=every, frames=frames, leads=leads, alarms_per_hour=alarms_per_hour)
    model, _ = load_weights(weights)
    predictor = Predictor(model, device=device, dtype=dtype, scan_backend=scan)
    watching = Watch(predictor, fps=fps, every=every, frames=frames, leads=leads, alarms_per_hour=alarms_per_hour)
    for number, given in enumerate(source):
        yield watching.see(_as_frame(np.asarray(given), number))


def _as_frame(given: NDArray[Any], number: int) -> Frame:
    """(H, W), (C, H, W) or (H, W, 3) -> (C, H, W) float32."""
    if given.ndim == 3 and given.shape[-1] == 3 and given.shape[0] > 4:
        given = given.transpose(2, 0, 1)
    frame = given[None] if given.ndim == 2 else given
    if frame.ndim != 3 or min(frame.shape[1:]) < 2:
        raise InputError(f"frame {number} must be (H, W), (C, H, W) or (H, W, 3), got {given.shape}", "reshape it")
    if frame.dtype == np.uint8:
        return (frame / np.float32(255)).astype(np.float32)
    if frame.dtype.kind != "f":
        raise InputError(f"frame {number} must be uint8 or floats, got {frame.dtype}", "divide it by its largest value")
    frame = np.ascontiguousarray(frame, np.float32)
    low, high = (float(end(frame, initial=0.0)) for end in (np.nanmin, np.nanmax))
    if low < 0 or high > 1:
        raise InputError(f"frame {number} must be in [0, 1], got {low:g} to {high:g}", "bring it into [0, 1]")
    return frame


def _gray(frame: Frame) -> Grid:
    """(C, H, W) -> (H, W)."""
    if len(frame) == 3:
        return np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), frame, 1)
    return frame[0] if len(frame) == 1 else frame.mean(0)
