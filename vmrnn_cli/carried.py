"""The state of a network, carried along frames that come one at a time: what `predict` computes on all of them.

Notation: C channels, H x W pixels; frames are float32 (C, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .frames import Frame
from .motion import Continuation, draw, nothing_behind
from .motion_network import Given, MotionVMRNN, Outlook
from .predictor import Predictor, blocks, finite


class Rollout(NamedTuple):
    """A forecast from the frames given up to one.

    frame : the number of that frame, counted from 0
    last : that frame, (C, H, W)
    forecast : the frames after it, (C, H, W) each
    continued : what continuing its motion without a network says of some of them, by how many frames ahead
    """

    frame: int
    last: Frame
    forecast: list[Frame]
    continued: dict[int, Frame]


class Carried:
    """A network and what it keeps of the frames given so far, of constant size. A rollout leaves no trace in it.

    count : of the frames given

    Args:
        predictor: the network, on a device.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._model = predictor, predictor.model
        self.restart()

    def restart(self) -> None:
        """Forget all frames."""
        self.count = 0
        self._frame: Tensor | None = None
        self._behind: Tensor | None = None  # what moves, (1, 2, C, H, W)
        self._given = Given(self._model.config.context)  # also of what continues motion without a network
        self._next: Tensor | None = None  # of a network that paints: the frame after the last one, and its state
        self._states: tuple | None = None

    def give(self, frame: Frame) -> None:
        """Take the next frame."""
        with self._predictor.computing():
            self._frame = self._predictor.input(frame)
            known = self._given.add(self._frame)
            behind = self._behind
            self._behind = nothing_behind(self._frame) if behind is None else known.behind(behind, self._frame)
            if not isinstance(self._model, MotionVMRNN):
                self._next, self._states = self._model(self._frame, self._states)
        self.count += 1

    def rollout(self, frames: int, leads: Sequence[int] = ()) -> Rollout:
        """Forecast so many frames from at least two given ones; for `leads`, also by continuing their motion.

        Raises:
            NotFiniteError: the network's output is not finite.
        """
        assert self._frame is not None
        with self._predictor.computing():
            forecast = list(self._forecast(frames))
            continued = self._continued([lead for lead in leads if lead <= frames])
        return Rollout(self.count - 1, self._frame[0].cpu().numpy(), forecast, continued)

    def _forecast(self, frames: int) -> Iterator[Frame]:
        if isinstance(self._model, MotionVMRNN):
            anchors = self._anchors()
            for part in self._model.go_on(self._given, blocks(frames)):
                if part.given == self.count:
                    for fields in zip(*part.outlook, strict=True):
                        picture = Outlook(*fields).draw(anchors).clamp(0, 1)
                        yield finite(picture[0].cpu().numpy(), self._model)
            return
        frame, states = self._next, self._states
        for ahead in range(frames):
            assert frame is not None
            if ahead:
                frame, states = self._model(frame, states)
            yield finite(frame[0].float().cpu().numpy(), self._model)

    def _continued(self, leads: Sequence[int]) -> dict[int, Frame]:
        """As `motion.motion_continued` does."""
        if not leads:
            return {}
        anchors = self._anchors()
        with torch.autocast(anchors.device.type, enabled=False):
            steps = Continuation([self._given.kept[-1].known]).steps(max(leads))
            prior = steps.prior()
            return {
                lead: draw(anchors, steps.fields[lead - 1], prior[lead - 1]).clamp(0, 1)[0].cpu().numpy()
                for lead in leads
            }

    def _anchors(self) -> Tensor:
        """What forecasts are drawn from, see `motion.Followed.anchors`."""
        assert self._frame is not None and self._behind is not None
        return self._given.kept[-1].known.anchors(self._behind, self._frame)
