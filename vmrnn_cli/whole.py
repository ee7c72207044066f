"""A forecast to look at: what moves goes on as one, whole, in front of what the network makes of the rest.

A network's forecast is a mean over what may come, which has the least error: where nobody knows how a thing goes on,
it fades. Here it is in one place, often a slightly wrong one. The given frames are taken apart, in hindsight, into
things and what is behind them; the network carries on the picture without the things, and each of these goes on by
itself. A rehearsal tells how fast, and which of them: the first half of the given frames is continued in the same way,
and what met the second half much worse than a mean does is left to the network.

This is ours and not the paper's. Nothing here is trained.

Notation: B batch, T time, S speeds, N things of one clip, C channels, H x W pixels, h x w = H/2 x W/2 the half grid, as
in `motion.py`; going back, the last given frame comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import (
    HYPOTHESES,
    Continuation,
    Followed,
    Matter,
    Moving,
    box_mean,
    carry,
    draw,
    fill_in,
    framed,
    gathered,
    positions,
    resize,
    step_up,
    to_size,
    warp,
)
from .motion_network import Outlook

SPEEDS = (0.0, 0.5, 1.0)  # shares of a thing's velocity beside the camera's
WORTH = 1.5  # times a mean's error in the rehearsal: what misses by more is not drawn as one
LARGEST = 0.35  # of the picture: what is larger is no thing in front of something
_SMALLEST = 6  # places of the half grid
_MOST = 64  # things of a clip, the largest ones
_ROUNDS = 3  # of taking apart: the better what is behind is known, the narrower are the things
_LEARNT = 3  # frames after the first, from which on what moves is well known
_BEYOND = 16  # a part of the shorter side: how far a thing that is cut off goes on; farther, it would be a streak
_WINDOW = 9  # on the half grid, passed over twice: where errors count for a place
_NOISE = 2e-5  # a mean squared error that means nothing
_TRUST = 5.0  # in full speed, in such terms: what was not there yet in the rehearsal keeps it


# ----------------------------------------------------------------------------------------------------------------------
# Taking apart


class Layers(NamedTuple):
    """Given frames, taken apart in hindsight: things, and what is behind them.

    matte : (B, 1, h, w) in [0, 1], where things hide what is behind them in the last frame
    shown : (B, 1, h, w) in [0, 1], where what is behind was seen in some frame; elsewhere it is made up
    back : (T, B, 2, h, w), from the last frame to where its places were in each, if only the camera moved
    shares : (T, B, 1, h, w), of sum 1: of which frames the plate is made
    """

    matte: Tensor
    shown: Tensor
    back: Tensor
    shares: Tensor

    @classmethod
    def of(cls, known: Sequence[Followed]) -> Layers:
        """Of frames, from what is known after each.

        A place shows what is behind in those frames in which no thing was there: neither is what hides it in the last
        frame, carried back, nor, which counts less, what was found to move at the time. Of what it shows in them the
        median counts. What then differs from it is what moves.

        Args:
            known: after each given frame, at least two, see `motion.follow`.
        """
        now, back = known[-1].small, _camera_back(known)
        seen = torch.stack([warp(each.small, field) for each, field in zip(reversed(known), back, strict=True)])
        inside = _inside(back)
        moved = [warp(mask, field) for mask, field in zip(reversed(_found(known)), back, strict=True)]
        mask = _matter(known[-1]).mask
        mask = matte = mask * (1 - _plain(now, mask))
        for _ in range(_ROUNDS):
            free = inside * (1 - _wider(_carried_back(known, matte, back))) ** 2
            weight = free * ((1 - torch.stack([matte, *moved[1:]])) ** 2 + 0.1)
            shown = step_up(free.amax(0), 0.3, 0.7)
            usual = _weighted_median(seen, weight + 1e-5)
            # The plate is a mean of frames near the median: a median alone would show each frame's noise.
            shares = weight * torch.exp(-(((seen - usual) / 0.04) ** 2)) + 1e-5 * weight + 1e-9
            shares = shares / shares.sum(0)
            plate = (shares * seen).sum(0)
            plate = torch.lerp(fill_in(plate, shown), plate, shown)
            matte = mask * step_up(box_mean((now - plate).abs(), 3), 0.01, 0.03)
        things = [_around(things_in(of_clip).amax(0, keepdim=True), 5) for of_clip in matte]
        return cls(matte * torch.stack(things), shown, back, shares)

    def plate(self, frames: Sequence[Tensor]) -> Tensor:
        """What is behind, filled from around where it was never seen.

        Args:
            frames: the T given ones, (B, C, H, W) each, of any size and in colour.

        Returns:
            (B, C, H, W).
        """
        H, W = frames[-1].shape[-2:]
        plate = torch.zeros_like(frames[-1])
        for frame, share, field in zip(reversed(frames), self.shares, self.back, strict=True):
            plate += resize(share, H, W) * warp(frame, to_size(2 * field, H, W))
        around = fill_in(resize(plate, *self.shown.shape[-2:]), self.shown)
        return torch.lerp(resize(around, H, W), plate, resize(self.shown, H, W))

    def without(self, frames: Sequence[Tensor], matte: Tensor) -> tuple[Tensor, Tensor]:
        """The last of the frames without the things in a matte (B, 1, h, w), and the plate; (B, C, H, W) each."""
        H, W = frames[-1].shape[-2:]
        plate = self.plate(frames)
        return torch.lerp(frames[-1], plate, resize(_wider(matte), H, W)), plate


def _camera_back(known: Sequence[Followed]) -> Tensor:
    """See `Layers.back`."""
    fields = [torch.zeros_like(_matter(known[-1]).pan)]
    for each in reversed(known[1:]):
        fields.append(warp(_matter(each).pan, fields[-1]) + fields[-1])
    return torch.stack(fields)


def _matter(known: Followed) -> Matter:
    assert known.matter is not None
    return known.matter


def _inside(back: Tensor) -> Tensor:
    """Whether places were within the picture then: (T, B, 2, h, w) -> (T, B, 1, h, w)."""
    h, w = back.shape[-2:]
    at = positions(h, w, back) + back
    y, x = at[:, :, :1], at[:, :, 1:]
    return ((y >= -0.5) & (y <= h - 0.5) & (x >= -0.5) & (x <= w - 0.5)).to(back.dtype)


def _found(known: Sequence[Followed]) -> list[Tensor]:
    """What was found to move in each frame, (B, 1, h, w); in the first ones also what later ones found there."""
    masks = [torch.zeros_like(known[0].small), *(_matter(each).mask for each in known[1:])]
    for t in range(min(_LEARNT, len(known) - 1), 0, -1):
        there = carry(masks[t], -_matter(known[t]).as_one(), masks[t])[1].clamp(max=1)
        masks[t - 1] = torch.maximum(masks[t - 1], there)
    return masks


def _carried_back(known: Sequence[Followed], matte: Tensor, back: Tensor) -> Tensor:
    """Where what the matte shows was in each frame, seen from the last one: (T, B, 1, h, w).

    What the edge of the picture cuts off goes on beyond it.
    """
    mask, places = _with_surroundings(matte, 2), [matte]
    for each, field in zip(reversed(known[1:]), back[1:], strict=True):
        mask = carry(mask, -_with_surroundings(_matter(each).velocity, 2), mask)[1].clamp(max=1)
        places.append(warp(_middle(mask, matte), field))
    return torch.stack(places)


def _with_surroundings(values: Tensor, part: int) -> Tensor:
    """More on each side by this part (a half: 2) of the shorter one, the same as at the edge; (B, C, h, w) likewise."""
    return F.pad(values, (min(values.shape[-2:]) // part,) * 4, mode="replicate")


def _middle(values: Tensor, like: Tensor) -> Tensor:
    """Of what has surroundings, as much as the other has, (..., h, w)."""
    h, w = like.shape[-2:]
    margin = (values.shape[-1] - w) // 2
    return values[..., margin : margin + h, margin : margin + w]


def _plain(now: Tensor, mask: Tensor) -> Tensor:
    """What goes on from outside the mask into it without an edge, and so is no thing: 0 or 1, (B, 1, h, w).

    Where a surface is plain, a mask has grown over it. An edge is what differs from its neighbours by a tenth of the
    frame's contrast, at most by 0.02.
    """
    edge = (0.1 * now.std((2, 3), correction=0, keepdim=True)).clamp(max=0.02)
    plain = (F.max_pool2d(mask, 3, 1, 1) < 0.05).to(now.dtype)
    for _ in range(max(now.shape[-2:])):
        beside = box_mean(plain, 3)
        mean = box_mean(now * plain, 3) / (beside + 1e-6)
        more = torch.maximum(plain, ((beside > 0.01) & ((now - mean).abs() < edge)).to(now.dtype))
        if torch.equal(more, plain):
            break
        plain = more
    return plain


def _wider(mask: Tensor) -> Tensor:
    """By some half a place of the half grid, so that no rim of a thing stays behind; (..., 1, h, w) likewise."""
    return (1.5 * box_mean(mask.flatten(0, -4), 3)).clamp(max=1).view_as(mask)


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Over the first dimension: (T, ...) -> (...)."""
    values, order = values.sort(0)
    total = weights.gather(0, order).cumsum(0)
    middle = (total >= total[-1:] / 2).to(torch.uint8).argmax(0, keepdim=True)
    return values.gather(0, middle)[0]


# ----------------------------------------------------------------------------------------------------------------------
# Going on


class Things:
    """What moves in given frames, each thing going on as one in front of what a network makes of the rest.

    Args:
        known: after each given frame, at least two, see `motion.follow`.
        frames: these T frames, (B, C, H, W) each, of any size and in colour.
    """

    def __init__(self, known: Sequence[Followed], frames: Sequence[Tensor]) -> None:
        layers = Layers.of(known)
        speed, worth = rehearsed(known, layers.matte)
        matte = layers.matte * worth
        self.going, self._matte = set_off(known[-1], matte, speed), matte
        self._last = framed(frames[-1])
        clean, plate = layers.without(frames, matte)
        h, w = matte.shape[-2:]
        self._anchors = gathered(clean, plate, clean, (2 * h, 2 * w))

    def draw(self, outlook: Outlook) -> Tensor:
        """The next frame, (B, C, H, W), not clamped: the outlook without things, and in front of it these."""
        self.going = self.going.next()
        return draw_over(outlook.draw(self._anchors), self._last, self.going.moving, self._matte)


def draw_over(scene: Tensor, last: Tensor, moving: Moving, matte: Tensor) -> Tensor:
    """What moves, in front of a scene.

    Args:
        scene: (B, C, H, W).
        last: the last given frame, `framed`, (B, C, H + 2, W + 2).
        moving: with surroundings, see `set_off`.
        matte: without them.

    Returns:
        (B, C, H, W).
    """
    H, W = scene.shape[-2:]
    thing = warp(last, to_size(2 * _middle(moving.source, matte), H, W))
    return torch.lerp(scene, thing, resize(_middle(moving.mask, matte), H, W))


class Going(NamedTuple):
    """Things that move, and may come nearer.

    moving : with surroundings, see `set_off`
    growth : (B, 1, h + m, w + m), of each place's area from frame to frame: a thing that grows does not grow thin
    """

    moving: Moving
    growth: Tensor

    def next(self) -> Going:
        """One frame later."""
        growth, _ = carry(self.growth, self.moving.velocity, self.moving.mask)
        return Going(self.moving._replace(mask=self.moving.mask * self.growth).next(), growth)


def things_in(matte: Tensor) -> Tensor:
    """What hangs together in one clip's matte, but for specks, the largest first: (1, h, w) -> (N, h, w), 0 or 1.

    Where there is nothing, it is one thing without a place.
    """
    from skimage.measure import label  # takes a quarter of a second to import, so not before it is needed

    numbers = torch.from_numpy(label(matte[0].cpu().numpy() > 0.5, connectivity=1)).to(matte.device)
    places, order = numbers.flatten().bincount()[1:].sort(descending=True, stable=True)
    largest = order[places >= _SMALLEST][:_MOST] + 1
    if not len(largest):
        return torch.zeros_like(matte)
    return (numbers == largest[:, None, None]).to(matte.dtype)


def _around(things: Tensor, size: int) -> Tensor:
    """Places with a thing in their `size` x `size` neighbourhood: (N, h, w) likewise, 0 or 1."""
    return F.max_pool2d(things, size, 1, size // 2)


def set_off(last: Followed, matte: Tensor, speed: Tensor) -> Going:
    """The things in a matte, each with a velocity that is linear in the place.

    Args:
        last: what is known after the last frame.
        matte: (B, 1, h, w).
        speed: how much of its velocity beside the camera's each place keeps, (B, 1, h, w) in [0, 1]; a thing keeps
            the mean of its places.

    Returns:
        With surroundings, (B, ., h + m, w + m): what the edge of the picture cuts off goes on a little beyond it.
    """
    matter = _matter(last)
    beside, growth = torch.zeros_like(matter.velocity), torch.ones_like(matte)
    for clip, of_clip in enumerate(matte):
        things = things_in(of_clip)
        kept = (speed[clip] * things).sum((1, 2)) / things.sum((1, 2)).clamp(min=1)
        velocity, slopes = _linear((matter.velocity + matter.pan)[clip], matter.found[clip], things * of_clip)
        nearest = box_mean(things[:, None], 9)[:, 0].argmax(0)  # to each place
        beside[clip] = (kept[:, None, None, None] * velocity).gather(0, nearest.expand(1, 2, -1, -1))[0]
        grown = torch.eye(2, device=slopes.device) + kept[:, None, None] * slopes
        growth[clip, 0] = torch.linalg.det(grown)[nearest]
    velocity, growth, mask = (_with_surroundings(part, _BEYOND) for part in (beside - matter.camera, growth, matte))
    return Going(Moving.from_here(velocity, mask), growth)


def _linear(velocity: Tensor, found: Tensor, things: Tensor) -> tuple[Tensor, Tensor]:
    """Each thing's velocity: of its fastest parts, which are the surest to move, and linear in the place.

    By least squares, in rounds, as `motion.camera_motion`.

    Args:
        velocity: beside the camera's, (2, h, w).
        found: how sure it is that something moves there, (1, h, w).
        things: (N, h, w) in [0, 1].

    Returns:
        (N, 2, h, w), and how it changes from place to place, (N, 2, 2): down and to the right, of (dy, dx).
    """
    N, h, w = things.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, h, device=things.device), torch.linspace(-1, 1, w, device=things.device), indexing="ij"
    )
    places = torch.stack([y, x], -1).view(1, -1, 2)
    values, things, sure = velocity.flatten(1).T, things.flatten(1), found.flatten()
    speed = values.square().sum(1)  # squared
    weight = (sure + 1e-4) * (speed**3 + 0.02) * things
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-9)
    fit = (weight @ values)[:, None]  # (N, 1, 2)
    centre = (weight[:, :, None] * places).sum(1, keepdim=True)
    basis = torch.cat([torch.ones_like(places[..., :1]).expand(N, -1, -1), places - centre], -1)  # (N, h w, 3)
    damping = torch.diag(basis.new_tensor([0.0, 0.05, 0.05]))  # of zoom and turn, that nothing invents them
    fastest = (speed * (things > 0)).amax(1, keepdim=True)
    sure = (sure * things + 1e-6 * (things > 0)) * (speed / (fastest + 1e-9)) ** 3
    for _ in range(3):
        weight = sure / ((values - fit).square().sum(2) + 0.05) + 1e-12
        normal = torch.einsum("np,npi,npj->nij", weight, basis, basis) + damping * weight.sum(1)[:, None, None]
        line = torch.linalg.solve(normal, torch.einsum("np,npi,pc->nic", weight, basis, values))  # (N, 3, 2)
        fit = basis @ line
    steps = line.new_tensor([2 / max(1, h - 1), 2 / max(1, w - 1)])  # from place to place, as the basis has them
    return fit.transpose(1, 2).reshape(N, 2, h, w), line[:, 1:] * steps[:, None]


# ----------------------------------------------------------------------------------------------------------------------
# Rehearsing


def rehearsed(known: Sequence[Followed], matte: Tensor) -> tuple[Tensor, Tensor]:
    """How fast things go on, and which of them are worth to be drawn as one.

    Args:
        known: as for `Things`; of fewer than four frames nothing can be said: things go on at full speed.
        matte: (B, 1, h, w).

    Returns:
        How much of its velocity beside the camera's each place keeps, (B, 1, h, w) in [0, 1]: mostly the speed that met
        the second half of the frames best. And around each thing 1 if it is worth it, else 0; likewise.
    """
    speed, worse = torch.ones_like(matte), torch.zeros_like(matte)
    if len(known) >= 4:
        given = -(-len(known) // 2)
        *errors, of_mean = _errors(known[:given], known[given:])
        of_speed = torch.cat(errors, 1)  # (B, S, h, w)
        speeds = of_speed.new_tensor(SPEEDS)[:, None, None]
        share = torch.softmax(_TRUST * speeds - of_speed / (0.03 * of_speed.amin(1, keepdim=True) + _NOISE), 1)
        speed = (share * speeds).sum(1, keepdim=True)
        worse = (share * of_speed).sum(1, keepdim=True) - WORTH * (of_mean + _NOISE)
    worth = []
    for of_clip, of_worse in zip(matte, worse, strict=True):
        things = things_in(of_clip)
        good = ((_around(things, _WINDOW) * of_worse).sum((1, 2)) <= 0) & (things.mean((1, 2)) < LARGEST)
        worth.append(_around(things * good[:, None, None], 5).amax(0, keepdim=True))
    return speed, torch.stack(worth)


def _errors(first: Sequence[Followed], second: Sequence[Followed]) -> Iterator[Tensor]:
    """Mean squared errors of the first frames' continuation in the second ones, around each place: (B, 1, h, w).

    Of things at each of `SPEEDS`, in front of what goes with the camera; and of the mean of all hypotheses.
    """
    layers, frames = Layers.of(first), [known.small for known in first]
    h, w = frames[-1].shape[-2:]
    last, (clean, _) = framed(frames[-1]), layers.without(frames, layers.matte)
    steps = (going_on := Continuation(first)).steps(len(second))
    camera = HYPOTHESES.index("camera") - 1
    scenes = [warp(framed(clean), to_size(fields[:, camera], h, w)) for fields in steps.fields]

    def missed(pictures: list[Tensor]) -> Tensor:
        errors = [(picture - known.small).square() for picture, known in zip(pictures, second, strict=True)]
        return box_mean(box_mean(torch.stack(errors).mean(0), _WINDOW), _WINDOW)

    for speed in SPEEDS:
        going, drawn = set_off(first[-1], layers.matte, torch.full_like(frames[-1], speed)), []
        for scene in scenes:
            going = going.next()
            drawn.append(draw_over(scene, last, going.moving, layers.matte))
        yield missed(drawn)
    anchors, prior = going_on.anchors(frames), steps.prior()
    yield missed([draw(anchors, *step) for step in zip(steps.fields, prior, strict=True)])
