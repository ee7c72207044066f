"""The record of one clip's forecast: what predicts makes it, what writes and scores takes it.

Notation: T time, C channels, H x W pixels.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import interrupts, outputs
from .errors import InputError
from .frames import DEFAULT_FPS, Frame
from .grids.series import GridClip
from .metrics import Score

Progress = Callable[[int, int], None]
Means = dict[str, float | None]


@dataclass
class Timing:
    """Seconds spent loading weights, decoding, in the model, and writing; and how many cell steps the model ran."""

    load_s: float = 0.0
    decode_s: float = 0.0
    predict_s: float = 0.0
    write_s: float = 0.0
    steps: int = 0


@dataclass
class Missing:
    """How many values of the clip were missing, of how many in all; they grow with the steps."""

    count: int = 0
    total: int = 0

    def add(self, count: int, total: int) -> None:
        """Take in a frame."""
        self.count += count
        self.total += total


class Step(NamedTuple):
    """One predicted frame, as it is shown and written.

    prediction : (C, H, W) float32 in [0, 1]
    truth : the same of the true frame, above 1 where it exceeds the divisor; None beyond the end of the clip
    extra : further pictures by the name of their panel, (1 or 3, any height, any width) float32 in [0, 1]
    """

    prediction: Frame
    truth: Frame | None
    extra: Mapping[str, Frame] = {}


@dataclass(frozen=True, eq=False)
class Forecast:
    """A forecast of one clip, in the making or finished.

    context : the given frames, (T, C, H, W) float32 in [0, 1], above 1 where they exceed the divisor
    frames : how many are predicted
    steps : these, each a `Step`: of a forecast in the making an iterator, which makes them as they are asked for, once
    has_truth : whether the clip goes on after the context
    fps : frames per second
    has_clock : whether that is the clip's own, or asked for; else it is a rate to play it at
    divided_by : an array's own values are those in [0, 1] times this, plus `offset`; an .npz is written in them
    offset : see `divided_by`
    missing : grows with the steps; what is missing is filled in frames, and left out of scores
    title : what pictures call it
    source : the name of the clip, as given
    panels : of pictures, where none are asked for; empty for the usual ones
    layout : of a film, one of `render.LAYOUTS`; None for the usual one
    scored_on : (C, H, W) of the network's own picture, on which scores are; None where that is what is shown
    whole : whether what moves is drawn as one, while scores are those of the network's mean (`vmrnn_cli.whole`)
    score, rivals : of the prediction, and of forecasts that cost nothing, by name; they grow with the steps
    timing : grows likewise
    grid : of a grid, what is known of it besides its frames: times, units, coordinates
    notes : what people should know of the clip; those of damage and of missing values come with the forecast's end
    """

    context: Frame
    frames: int
    steps: Iterable[Step] = field(repr=False)
    has_truth: bool
    fps: float = DEFAULT_FPS
    has_clock: bool = False
    divided_by: float = 1.0
    title: str = ""
    source: str = ""
    panels: tuple[str, ...] = ()
    layout: str | None = None
    scored_on: tuple[int, int, int] | None = None
    whole: bool = False
    score: Score = field(default_factory=Score, repr=False)
    rivals: Mapping[str, Score] = field(default_factory=dict, repr=False)
    timing: Timing = field(default_factory=Timing, repr=False)
    offset: float = 0.0
    notes: list[str] = field(default_factory=list, repr=False)
    missing: Missing = field(default_factory=Missing, repr=False)
    grid: GridClip | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its frames."""
        _, C, H, W = self.context.shape
        return C, H, W

    @property
    def clipped_at(self) -> float | None:
        """The highest given value of a grid, where the network saw it cut off at 1; None where nothing was cut off."""
        highest = float(self.context.max())
        return highest if highest > 1 and self.divided_by != 1 else None

    @property
    def metrics(self) -> Means | None:
        """Mean {mse, ssim, psnr} of the prediction, None without truth."""
        return self.score.means()

    @property
    def baselines(self) -> dict[str, Means | None]:
        """The same of each rival."""
        return {name: score.means() for name, score in self.rivals.items()}

    @property
    def baseline_last_frame(self) -> Means | None:
        """The same of the last given frame repeated."""
        return self.baselines["baseline_last_frame"]

    @property
    def baseline_motion(self) -> Means | None:
        """The same of motion continued."""
        return self.baselines["baseline_motion"]

    @cached_property
    def prediction(self) -> NDArray[np.float32]:
        """(T, C, H, W) float32 in [0, 1], of a finished forecast."""
        return np.stack([step.prediction for step in self._finished()])

    @cached_property
    def truth(self) -> NDArray[np.float32] | None:
        """The same, as far as the clip goes; None where it ends with the context."""
        known = [step.truth for step in self._finished() if step.truth is not None]
        return np.stack(known) if known else None

    def _finished(self) -> tuple[Step, ...]:
        if not isinstance(self.steps, tuple):
            raise ValueError("the forecast is in the making: finish it first")
        return self.steps

    def finish(self, progress: Progress | None = None) -> Forecast:
        """Make all steps, and return the forecast that holds them."""
        made = []
        for step in self.steps:
            made.append(step)
            if progress is not None:
                progress(len(made), self.frames)
        return dataclasses.replace(self, steps=tuple(made))

    def save(
        self, path: str | Path, *, panels: Sequence[str] | None = None, overwrite: bool = False,
        progress: Progress | None = None, layout: str | None = None, poster: str | Path | None = None,
    ) -> None:  # fmt: skip
        """Write it, by the suffix: .gif, .mp4, .webm, .png (film strip), .npz or .html; one in the making is made, too.

        Of a film, `layout` is one of `render.LAYOUTS`, and `poster` the .png of a still from halfway the forecast.

        Raises:
            InputError: unknown suffix, panel or layout, one that the file has not, target not writable, or there
                without `overwrite`.
            VMRNNError: the disk is full, or the encoder failed.
        """
        with interrupts.deferred():
            from . import render, writers  # training does without pictures

        writer = writers.find_writer(path)
        render.check_panels(panels)
        shown = tuple(panels or self.panels or (render.WITH_TRUTH if self.has_truth else render.WITHOUT_TRUTH))
        if not self.has_truth and set(shown) <= {"truth", "error"}:
            raise InputError(f"{', '.join(shown)}: nothing is known after the context", "add prediction to --panels")
        render.check_layout(layout, panels)
        writers.check_film(path, layout, poster is not None)
        with ExitStack() as stack:
            still = poster and stack.enter_context(outputs.atomic_path(Path(poster), overwrite))
            temporary = stack.enter_context(outputs.atomic_path(Path(path), overwrite))
            written = writer(dataclasses.replace(self, panels=shown, layout=layout))
            stack.enter_context(written.file(temporary))
            for index, frame in enumerate(self.context):
                self._timed(written.given, index, frame)
            for index, step in enumerate(self.steps):
                self._timed(written.predicted, index, step)
                if progress is not None:
                    progress(index + 1, self.frames)
            if still:
                self._timed(written.write_poster, still)
            self._timed(stack.close)  # encoding ends and the file appears

    def _timed(self, work: Callable[..., object], *arguments: object) -> None:
        begin = time.perf_counter()
        work(*arguments)
        self.timing.write_s += time.perf_counter() - begin
