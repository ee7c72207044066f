"""What a `MotionVMRNN` is trained for: its forecasts near the truth, measured against repeating the last frame.

Notation: B batch, T time, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .motion import FIELDS, FRONT, HYPOTHESES, at_least_two
from .motion_network import AGREEMENT, BLUR, Decisions, MotionVMRNN, Outlook
from .recipes import loss_terms

_REHEARSAL = 0.3  # weight of the rehearsed frames; the ones ahead have 1
# Weights of terms, where others have about 1:
_MOTION, _BEHIND = 0.6, 0.2  # of what is taught of scenes
_HOLD = 0.005  # of the squares of what is decided
_SQUARED_NOISE, _NOISE = 1e-3, 0.01  # added to what the last frame costs: less than that is not worth learning


class MotionLoss(nn.Module):
    """The loss of a batch of clips, all in one forward pass so that DistributedDataParallel sees one.

    mse, l1 : squared and absolute error
    edges : absolute error of the slopes, which keeps edges
    choice : the hypotheses' own absolute errors in 4 x 4 pixels, as they are weighed; of their mean, a soft minimum, so
        that one that may be right keeps its weight where it mostly is not, as a likelihood has it
    texture : ahead, how much less or more of it is around each place than in truth, so that what moves does not fade
        although it may be a few pixels off

    Each is divided by what repeating the last frame costs in that clip, so that quiet clips count as much as wild ones,
    and the squared error by what it costs at that step, too.

    Of scenes, what was in the last frame is to come from where it was, and what was not from behind. And what is
    decided is held near nothing: where no evidence speaks for it, the hypotheses keep their untrained weights.
    """

    def __init__(self, model: MotionVMRNN, loss: str) -> None:
        """`loss` is the sum of some of these terms, as `recipes.loss_terms` takes it."""
        super().__init__()
        self.model, self.terms = model, loss_terms(loss, "MotionVMRNN")

    def forward(self, clips: Tensor, context: int, forced: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) -> the mean loss. Of five channels, the first is the frame in [0, 1], and the others are what
        is taught (`data.scenes.Scene.taught`). `forced` has no meaning here: nothing is fed back.
        """
        frames, taught = clips.transpose(0, 1), None  # (T, B, C, H, W)
        if frames.shape[2] > 3:
            frames, taught = frames[:, :, :1], frames[context:, :, 1:, ::2, ::2]
        given, ahead = at_least_two(frames[:context]), frames[context:]
        parts = list(self.model(given, [len(ahead)]))
        with torch.no_grad():
            anchors = [part.continuation.anchors(list(given[: part.given])) for part in parts]
            scale = _Scale(given[-1:] - ahead, self.terms)
        losses = []
        for clip in range(clips.shape[0]):  # drawn one by one, they stay in the processor's cache
            for part, anchor in zip(parts, anchors, strict=True):
                outlook = Outlook(*(field[:, clip] for field in part.outlook))
                S = len(outlook.light)
                pictures, weights = outlook.draw_each(anchor[clip].expand(S, -1, -1, -1, -1))
                rehearsed = part.given < len(given)
                truth = (given if rehearsed else ahead)[-S:, clip]
                loss = scale.loss(pictures - truth[:, None], weights, clip)
                if not rehearsed and "texture" in self.terms:
                    loss = loss + self.terms["texture"] * _fading((weights * pictures).sum(1), truth)
                losses.append(_REHEARSAL * loss if rehearsed else loss)
        total = torch.stack(losses).sum() / clips.shape[0] + _HOLD * _decided([part.decided for part in parts])
        return total if taught is None else total + _misled(parts[-1].outlook, taught)


def _fading(forecast: Tensor, truth: Tensor) -> Tensor:
    """How far the slopes around each place are from those of the truth, relative to these: (S, C, H, W) each."""
    got, wanted = (_texture(frames) for frames in (forecast, truth))
    return (got - wanted).abs().mean() / (wanted.mean() + _NOISE)


def _texture(frames: Tensor) -> Tensor:
    """The mean of the slopes in windows of 9 pixels, (S, C, H, W) -> (S, C, ., .)."""
    down, across = _slopes(frames)
    slopes = down.abs()[..., :-1] + across.abs()[..., :-1, :]
    return F.avg_pool2d(slopes, min(9, *slopes.shape[-2:]), 4)


def _decided(parts: list[Decisions]) -> Tensor:
    """The mean square of what was decided: of logits, and of velocities, in quarters of a pixel a frame."""
    logits = torch.cat([part.logits.float() for part in parts])
    velocity = torch.cat([part.velocity.float() for part in parts])
    untrained = logits.new_full((logits.shape[2], 1, 1), BLUR)
    untrained[: len(HYPOTHESES)] = 0
    untrained[len(HYPOTHESES)] = AGREEMENT
    return (logits - untrained).square().mean() + 4 * velocity.square().mean()


def _misled(outlook: Outlook, taught: Tensor) -> Tensor:
    """What scenes teach: how far the mean of the fields is from where things were, relative to how far they have moved,
    and how much is taken from behind that was in the last frame, or not taken that was not.

    `outlook` is of (S, B, ...), `taught` (S, B, 4, h, w). As much as is known of the batch counts.
    """
    displacement, seen, known = taught.split([2, 1, 1], 2)
    seen = seen * known
    count = seen.sum((2, 3, 4), keepdim=True).clamp(min=1)
    moved = (displacement.norm(dim=2, keepdim=True) * seen).sum((2, 3, 4), keepdim=True) / count
    off = ((outlook.fields[:, :, FIELDS] - displacement).square().sum(2, keepdim=True) + 0.01).sqrt() / (1 + moved)
    motion = (off.clamp(max=2) * seen).sum() / seen.sum().clamp(min=1)
    behind = torch.softmax(outlook.logits.float(), 2)[:, :, FRONT : len(HYPOTHESES)].sum(2, keepdim=True)
    behind = behind.clamp(1e-4, 1 - 1e-4)
    hidden = known - seen  # half as much: something may have come to light that was not behind
    choice = -(seen * torch.log1p(-behind) + 0.5 * hidden * behind.log()).sum() / known.sum().clamp(min=1)
    return known.mean() * (_MOTION * motion + _BEHIND * choice)


class _Scale:
    """What repeating the last frame costs, (K, B, C, H, W) of differences, and a loss relative to it."""

    def __init__(self, difference: Tensor, terms: Mapping[str, float]) -> None:
        self._terms = terms
        squared = difference.square().mean((2, 3, 4)) + _SQUARED_NOISE  # (K, B)
        self._squared = (squared * squared.mean(0)).sqrt()
        self._absolute = difference.abs().mean((0, 2, 3, 4)) + _NOISE  # (B,)
        down, across = _slopes(difference)
        self._slopes = down.abs().mean((0, 2, 3, 4)) + across.abs().mean((0, 2, 3, 4)) + _NOISE

    def loss(self, differences: Tensor, weights: Tensor, clip: int) -> Tensor:
        """Of one clip, from the differences of all pictures, (S, P, C, H, W), and their weights (S, P, 1, H, W)."""
        difference = (weights * differences).sum(1)  # (S, C, H, W), that of their mean
        step = torch.arange(len(difference)).clamp(max=len(self._squared) - 1)  # a rehearsal may be the longer one
        down, across = _slopes(difference)
        costs: dict[str, Callable[[], Tensor]] = {
            "mse": lambda: (difference.square().mean((1, 2, 3)) / self._squared[step, clip]).mean(),
            "l1": lambda: difference.abs().mean() / self._absolute[clip],
            "edges": lambda: (down.abs().mean() + across.abs().mean()) / self._slopes[clip],
            "choice": lambda: _missed(differences, weights, self._absolute[clip]),
        }
        return sum((w * costs[name]() for name, w in self._terms.items() if name in costs), difference.new_zeros(()))


def _missed(differences: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
    """A soft minimum of the pictures' errors, -log of the mean of exp(-error), as they are weighed.

    Of (S, P, C, H, W) and (S, P, 1, H, W); in the unit `scale`.
    """
    softness = 0.3  # the less, the more the best alone counts
    side = min(4, *differences.shape[-2:])
    errors = F.avg_pool2d(differences.abs().mean(2), side) / (softness * scale)  # (S, P, ., .)
    likely = F.avg_pool2d(weights[:, :, 0].float(), side).clamp(min=1e-5).log()
    return -softness * torch.logsumexp(likely - errors.float(), 1).mean()


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours down and across, of (..., H, W)."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
