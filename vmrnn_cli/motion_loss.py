"""What a `MotionVMRNN` is trained for: its forecasts near the truth, measured against repeating the last frame.

Notation: B batch, T time, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .motion import at_least_two
from .motion_network import MotionVMRNN, Outlook

_REHEARSAL = 0.3  # weight of the rehearsed frames; the ones ahead have 1
# Weights of the terms; the squared error has 1.
_ABSOLUTE, _EDGES, _CHOICE = 0.5, 0.5, 0.5
_SQUARED_NOISE, _NOISE = 1e-3, 0.01  # added to what the last frame costs: less than that is not worth learning


class MotionLoss(nn.Module):
    """The loss of a batch of clips, all in one forward pass so that DistributedDataParallel sees one.

    Squared error, absolute error, and absolute error of the slopes, which keeps edges; and the mean of the hypotheses'
    own absolute errors, as they are weighed, which wants one to be chosen: two that are mixed are two ghosts. Each is
    divided by what repeating the last frame costs in that clip, so that quiet clips count as much as wild ones, and the
    squared error by what it costs at that step, too.
    """

    def __init__(self, model: MotionVMRNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor, context: int, forced: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) in [0, 1] -> the mean loss. `forced` has no meaning here: nothing is fed back."""
        frames = clips.transpose(0, 1)  # (T, B, C, H, W)
        given, ahead = at_least_two(frames[:context]), frames[context:]
        parts = list(self.model(given, [len(ahead)]))
        with torch.no_grad():
            anchors = [part.continuation.anchors(list(given[: part.given])) for part in parts]
            scale = _Scale(given[-1:] - ahead)
        losses = []
        for clip in range(clips.shape[0]):  # drawn one by one, they stay in the processor's cache
            for part, anchor in zip(parts, anchors, strict=True):
                outlook = Outlook(*(field[:, clip] for field in part.outlook))
                S = len(outlook.light)
                pictures, weights = outlook.draw_each(anchor[clip].expand(S, -1, -1, -1, -1))
                rehearsed = part.given < len(given)
                truth = (given if rehearsed else ahead)[-S:, clip]
                losses.append((_REHEARSAL if rehearsed else 1.0) * scale.loss(pictures - truth[:, None], weights, clip))
        return torch.stack(losses).sum() / clips.shape[0]


class _Scale:
    """What repeating the last frame costs, (K, B, C, H, W) of differences, and a loss relative to it."""

    def __init__(self, difference: Tensor) -> None:
        squared = difference.square().mean((2, 3, 4)) + _SQUARED_NOISE  # (K, B)
        self._squared = (squared * squared.mean(0)).sqrt()
        self._absolute = difference.abs().mean((0, 2, 3, 4)) + _NOISE  # (B,)
        down, across = _slopes(difference)
        self._slopes = down.abs().mean((0, 2, 3, 4)) + across.abs().mean((0, 2, 3, 4)) + _NOISE

    def loss(self, differences: Tensor, weights: Tensor, clip: int) -> Tensor:
        """Of one clip, from the differences of all pictures, (S, P, C, H, W), and their weights (S, P, 1, H, W)."""
        difference = (weights * differences).sum(1)  # (S, C, H, W), that of their mean
        step = torch.arange(len(difference)).clamp(max=len(self._squared) - 1)  # a rehearsal may be the longer one
        squared = (difference.square().mean((1, 2, 3)) / self._squared[step, clip]).mean()
        down, across = _slopes(difference)
        slopes = (down.abs().mean() + across.abs().mean()) / self._slopes[clip]
        absolute = difference.abs().mean() / self._absolute[clip]
        choice = (weights * differences.abs()).sum(1).mean() / self._absolute[clip]
        return squared + _ABSOLUTE * absolute + _EDGES * slopes + _CHOICE * choice


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours down and across, of (..., H, W)."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
