"""A forecast to look at: what moves goes on as one, whole, in front of what the network makes of the rest.

A network's forecast is a mean over what may come, which has the least error: where nobody knows how a thing goes on,
it fades. Here it is in one place, often a slightly wrong one. How much of its velocity it keeps is rehearsed: the
motion of the first half of the given frames is continued at several speeds, and each place keeps a mixture of them,
mostly the one that met the second half best, and all of it where nothing tells.

This is ours and not the paper's. Nothing here is trained.

Notation: B batch, S speeds, C channels, H x W pixels, h x w = H/2 x W/2 the half grid, as in `motion.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .motion import HYPOTHESES, Continuation, Followed, Steps, box_mean, draw_over, smooth, to_size, warp

SPEEDS = (0.0, 0.5, 1.0)  # shares of a thing's velocity beside the camera's
_WINDOW = 9  # on the half grid, passed over twice: where errors count for a place
_THING = 33  # likewise: a thing goes on as one
_NOISE = 2e-5  # a mean squared error that means nothing
_TRUST = 5.0  # in full speed, in such terms: what was not there yet in the rehearsal keeps it


class Things:
    """What moves in given frames, and how it goes on as one.

    going_on : its continuation, which gathers the anchors

    Args:
        known: after each given frame, at least two, see `motion.follow`.
        speed: how much of its velocity beside the camera's each place keeps, (B, 1, h, w) in [0, 1]; default as
            rehearsed.
    """

    def __init__(self, known: Sequence[Followed], speed: Tensor | None = None) -> None:
        self.going_on = Continuation(known, going=rehearsed_speed(known) if speed is None else speed)
        matter = known[-1].matter
        assert matter is not None
        self._shown = matter.shown()

    def step(self) -> Steps:
        """Where they are in the next frame, as `motion.draw_over` takes it.

        What is behind them counts half where it was never seen and is made up.
        """
        fields, masks = self.going_on.steps(1)
        here, matter, was = masks.split(1, 2)
        return Steps(fields, torch.cat([here, matter, was * (1 + warp(self._shown, fields[0, :, -1] / 2)) / 2], 2))

    def draw_over(self, scenes: Sequence[Tensor], anchors: Sequence[Tensor]) -> list[Tensor]:
        """The next frame, in front of each scene (B, C, H, W), from its clip's anchors (B, A, C, H + 2, W + 2)."""
        with torch.autocast(scenes[0].device.type, enabled=False):  # motion is measured in float32
            step = self.step()
            return [draw_over(scene, of_clip, step) for scene, of_clip in zip(scenes, anchors, strict=True)]


def rehearsed_speed(known: Sequence[Followed]) -> Tensor | None:
    """How much of its velocity each place keeps, see `Things`; None, for all of it, of fewer than four frames.

    Mostly the speed at which the continuation of the first half of the frames met the second half best.
    """
    if len(known) < 4:
        return None
    given = -(-len(known) // 2)
    first, second = known[:given], known[given:]
    errors = torch.cat([_error(first, second, speed) for speed in SPEEDS], 1)  # (B, S, h, w)
    errors = box_mean(box_mean(errors, _WINDOW), _WINDOW)
    speeds = errors.new_tensor(SPEEDS)[:, None, None]
    share = torch.softmax(_TRUST * speeds - errors / (0.03 * errors.amin(1, keepdim=True) + _NOISE), 1)
    speed = (share * speeds).sum(1, keepdim=True)
    last = known[-1]
    assert last.matter is not None
    return smooth(speed, last.matter.matte(last.small) + 1e-4, _THING)


def _error(first: Sequence[Followed], second: Sequence[Followed], speed: float) -> Tensor:
    """Mean squared error of the first frames' continuation in the second ones, over the camera's: (B, 1, h, w)."""
    frames = [known.small for known in first]
    things = Things(first, torch.full_like(frames[0], speed))
    anchors = things.going_on.anchors(frames)
    total, camera = torch.zeros_like(frames[0]), HYPOTHESES.index("camera") - 1
    for known in second:
        steps = things.step()
        scene = warp(anchors[:, 0], to_size(steps.fields[0, :, camera], *known.small.shape[-2:]))
        total += (draw_over(scene, anchors, steps) - known.small).square()
    return total / len(second)
