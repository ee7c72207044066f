"""How the picture goes on if what moves goes on moving: displacement, warping, and ways to continue them.

This is ours and not the paper's. Nothing here is trained. The idea is that of motion compensation with several
hypotheses, as video coding knows it: none is right everywhere, and a network (`motion_network.py`) decides where which
is. Each hypothesis is a displacement field into a picture that is known (an anchor: the last frame, or what stands
behind what moves), so that it can be drawn at any size and in colour.

Notation: B batch, T time, K frames ahead, M hypotheses, A anchors, P pictures that are mixed, C channels, H x W pixels,
h x w = H/2 x W/2 the half grid on which fields live. A displacement is (B, 2, ., .), (dy, dx), in pixels of the full
frame unless it says otherwise. Backward: what is at x now was at x + d. Frames are float32 in [0, 1], of one channel
where motion is looked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# What each hypothesis says. "still" has no field: it is the last frame itself. "past" has that of "plate".
HYPOTHESES = ("still", "place", "thing", "camera", "matter", "plate", "past")
FIELDS = 5  # of "place" to "plate"
FRONT = 5  # hypotheses in the last frame, "still" to "matter"; the others are of what is behind
BLURS = (3, 7)  # pixels: windows, each passed over twice, of which the last frame is blurred

_NOISE = 2e-4  # a squared difference of pixels that means nothing
_STRIDE, _WINDOW = 4, 16  # block matching: a displacement every 4 pixels, from windows of 16
_LARGEST = 384  # pixels on the shorter side of the frames in which motion is looked for
_REACH, _FAR_REACH = 6, 12  # in pixels a frame: every displacement up to the first, every second one up to the other


# ----------------------------------------------------------------------------------------------------------------------
# Moving pictures


def positions(height: int, width: int, like: Tensor) -> Tensor:
    """Where each pixel is: (1, 2, height, width), (y, x)."""
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))[None]


def warp(picture: Tensor, displacement: Tensor) -> Tensor:
    """Backward: the value at x comes from x + displacement, between pixels linearly, beyond the edge from the edge.

    Args:
        picture: (B, C, H, W), or with as many pixels more on each side, as `framed` makes it.
        displacement: (B, 2, H, W), in pixels of the picture.

    Returns:
        (B, C, H, W).
    """
    down, right = displacement.unbind(1)
    steps = [max(1, size - 1) for size in picture.shape[-2:]]  # from edge to edge, which are -1 and 1
    ends = [(size - 1) / count for size, count in zip(down.shape[-2:], steps, strict=True)]
    y, x = (
        torch.linspace(-end, end, size, dtype=down.dtype, device=down.device)
        for end, size in zip(ends, down.shape[-2:], strict=True)
    )
    grid = torch.stack([torch.add(x, right, alpha=2 / steps[1]), torch.add(y[:, None], down, alpha=2 / steps[0])], -1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def framed(picture: Tensor) -> Tensor:
    """With a pixel more on each side: its edge, blurred along it.

    What comes from beyond the edge comes from there; sharp, it would leave streaks.

    (B, C, H, W) -> (B, C, H + 2, W + 2).
    """
    size = max(1, min(picture.shape[-2:]) // 16 * 2 - 1)  # an eighth of the shorter side, odd
    for dim in (-2, -1):
        first, last = (picture.narrow(dim, at, 1) for at in (0, picture.shape[dim] - 1))
        first, last = (box_mean(box_mean(edge, size), size) for edge in (first, last))
        picture = torch.cat([first, picture, last], dim)
    return picture


def carry(values: Tensor, displacement: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Forward: the value at x lands at x + displacement, shared among the four pixels around.

    Args:
        values: (B, C, H, W).
        displacement: (B, 2, H, W), in pixels of `values`.
        weight: (B, 1, H, W), at least 0: how much each place has to carry.

    Returns:
        The weighted mean of what lands at each place, (B, C, H, W), 0 where nothing does, and its weight (B, 1, H, W).
    """
    B, C, H, W = values.shape
    at = positions(H, W, displacement) + displacement
    corner = at.floor()
    upper = at - corner  # share of the pixel below, or to the right
    load = torch.cat([weight, weight * values], 1)
    total = values.new_zeros(B, C + 1, H * W)
    for below in (0, 1):
        for right in (0, 1):
            y, x = corner[:, 0] + below, corner[:, 1] + right
            share = (upper[:, 0] if below else 1 - upper[:, 0]) * (upper[:, 1] if right else 1 - upper[:, 1])
            share = share * ((y >= 0) & (y < H) & (x >= 0) & (x < W))
            index = y.clamp(0, H - 1) * W + x.clamp(0, W - 1)  # (B, H, W)
            index = index.long().flatten(1)[:, None].expand(-1, C + 1, -1)
            total.scatter_add_(2, index, (share[:, None] * load).flatten(2))
    total = total.view(B, C + 1, H, W)
    return total[:, 1:] / (total[:, :1] + 1e-6), total[:, :1]


def box_mean(values: Tensor, size: int) -> Tensor:
    """Mean over the `size` x `size` neighbourhood (odd) of each place; edges repeated. (B, C, H, W) likewise."""
    values = F.pad(values, (size // 2,) * 4, mode="replicate")
    return _sums(_sums(values, size, -1), size, -2) / size**2


def _sums(values: Tensor, size: int, dim: int) -> Tensor:
    """Sums of `size` neighbours along a dimension, as many as lie within it; each of two sums of half as many.

    PyTorch's average pooling, which adds up each anew, takes several times as long.
    """
    if size == 1:
        return values
    half, count = _sums(values, size // 2, dim), values.shape[dim] - size + 1
    total = half.narrow(dim, 0, count) + half.narrow(dim, size // 2, count)
    return total + values.narrow(dim, size - 1, count) if size % 2 else total


def resize(field: Tensor, height: int, width: int) -> Tensor:
    """(B, C, ., .) -> (B, C, height, width), linearly; displacements keep their unit."""
    if field.shape[-2:] == (height, width):
        return field
    return F.interpolate(field, size=(height, width), mode="bilinear", align_corners=False)


def halve(picture: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, h, w): the mean of each 2 x 2 pixels; an odd edge is repeated."""
    H, W = picture.shape[-2:]
    return F.avg_pool2d(F.pad(picture, (0, W % 2, 0, H % 2), mode="replicate"), 2)


# ----------------------------------------------------------------------------------------------------------------------
# Finding motion


def match(now: Tensor, before: Tensor) -> Tensor:
    """Block matching: where each window of `now` was in `before`.

    The displacement is a soft minimum of the windows' squared difference, so that it knows fractions of a pixel. To
    move must be better than to stay by more than noise: where nothing moves, the displacement is 0.

    Args:
        now: (B, 1, H, W) in [0, 1].
        before: (B, 1, H, W), one frame earlier.

    Returns:
        (B, 2, ceil(H/4), ceil(W/4)), backward, in pixels, up to 12 either way.
    """
    softness, noise, reward_to_stay, reward_to_be_near = 0.3, 1e-4, 2.0, 4.0
    H, W = now.shape[-2:]
    pad = (0, -W % _STRIDE, 0, -H % _STRIDE)
    now, before = F.pad(now, pad, mode="replicate"), F.pad(before, pad, mode="replicate")
    H, W = now.shape[-2:]
    before = F.pad(before, (_FAR_REACH,) * 4, mode="replicate")
    moves = _moves()
    differences = [
        F.avg_pool2d((now - before[..., top : top + H, left : left + W]).square_(), _STRIDE)
        for top, left in ((dy + _FAR_REACH, dx + _FAR_REACH) for dy, dx in moves)
    ]
    k = _WINDOW // _STRIDE
    margin = ((k - 1) // 2, k // 2, (k - 1) // 2, k // 2)
    windows = F.pad(torch.cat(differences, 1), margin, mode="replicate")
    cost = _sums(_sums(windows, k, -1), k, -2) / k**2  # (B, moves, H/4, W/4)
    by_move = now.new_tensor(moves)
    longest = by_move.abs().amax(1)
    penalty = noise * (reward_to_stay * (longest > 0) + reward_to_be_near * (longest > _REACH))
    cost = cost + penalty[:, None, None]
    share = torch.softmax(-cost / (softness * cost.amin(1, keepdim=True) + noise), 1)
    return torch.einsum("bmhw,mk->bkhw", share, by_move)


def _moves() -> list[tuple[int, int]]:
    """The displacements that are tried, (dy, dx)."""
    near, far = range(-_REACH, _REACH + 1), range(-_FAR_REACH, _FAR_REACH + 1, 2)
    return [(dy, dx) for dy in near for dx in near] + [
        (dy, dx) for dy in far for dx in far if max(abs(dy), abs(dx)) > _REACH
    ]


def refine(displacement: Tensor, now: Tensor, before: Tensor) -> Tensor:
    """Fractions of a pixel, which block matching hardly sees where the picture is smooth, and no outliers: a step of
    Lucas and Kanade in windows of 12 pixels, then the median of 20; and both again.

    Args:
        displacement: of `match`, (B, 2, ceil(H/4), ceil(W/4)).
        now: (B, 1, H, W) in [0, 1].
        before: likewise.

    Returns:
        (B, 2, ceil(H/4), ceil(W/4)).
    """
    H, W = now.shape[-2:]
    pad = (0, -W % _STRIDE, 0, -H % _STRIDE)
    now, before = F.pad(now, pad, mode="replicate"), F.pad(before, pad, mode="replicate")
    for _ in range(2):
        products = _slopes_and_difference(now, before, resize(displacement, *now.shape[-2:]))
        change = _explain(box_mean(F.avg_pool2d(products, _STRIDE), 3), 5e-4)
        displacement = median(displacement + change, 5)
    return displacement


def _slopes_and_difference(now: Tensor, before: Tensor, displacement: Tensor) -> Tensor:
    """What a step of Lucas and Kanade takes the mean of in its windows, of frames (B, 1, H, W): (B, 5, H, W).

    Products of the slopes of the frame before, moved by (B, 2, H, W), and of these with what is left of the difference.
    """
    moved = warp(before, displacement)
    difference = now - moved
    y, x = torch.zeros_like(moved), torch.zeros_like(moved)  # there is no slope at the edges
    y[..., 1:-1, :] = (moved[..., 2:, :] - moved[..., :-2, :]) / 2
    x[..., 1:-1] = (moved[..., 2:] - moved[..., :-2]) / 2
    return torch.cat([y**2, y * x, x**2, y * difference, x * difference], 1)


def _explain(products: Tensor, certainty: float) -> Tensor:
    """The displacement that best explains the difference, to first order; means (B, 5, ., .) -> (B, 2, ., .).

    Less where there is little texture (`certainty` is the squared slope from which on it says more than noise), and at
    most a pixel.
    """
    yy, yx, xx, y, x = products.split(1, 1)
    yy, xx = yy + certainty, xx + certainty
    return (torch.cat([xx * y - yx * x, yy * x - yx * y], 1) / (yy * xx - yx**2)).clamp(-1, 1)


def median(field: Tensor, size: int) -> Tensor:
    """Of the `size` x `size` neighbourhood (odd) of each place; edges repeated. (B, C, ., .) likewise.

    Where the mean would mix the motion of two things, it is that of one of them.
    """
    B, C, height, width = field.shape
    padded = F.pad(field.reshape(B * C, 1, height, width), (size // 2,) * 4, mode="replicate")
    return F.unfold(padded, size).median(1)[0].view(B, C, height, width)


def camera_motion(displacement: Tensor, rounds: int = 4) -> Tensor:
    """The motion of the whole picture: a displacement that is linear in the place (pan, zoom, rotation, shear).

    Fitted by least squares, anew in each round with less weight where it does not fit: what moves by itself does not
    count as camera. The start is the median.

    Args:
        displacement: (B, 2, height, width).
        rounds: how often.

    Returns:
        (B, 2, height, width), of the same unit.
    """
    B, _, height, width = displacement.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=displacement.device),
        torch.linspace(-1, 1, width, device=displacement.device),
        indexing="ij",
    )
    basis = torch.stack([torch.ones_like(y), y, x], -1).flatten(0, 1)  # (places, 3)
    damping = displacement.new_tensor([0.0, 0.015, 0.015])  # of zoom and turn, that a plain picture shall not invent
    values = displacement.flatten(2).transpose(1, 2)  # (B, places, 2)
    fit = displacement.flatten(2).median(2)[0][:, None].expand_as(values)
    for _ in range(rounds):
        weight = 1 / ((values - fit).square().sum(2) + 0.05)  # (B, places)
        normal = torch.einsum("bn,ni,nj->bij", weight, basis, basis)
        normal = normal + torch.diag(damping) * weight.sum(1)[:, None, None]
        fit = basis @ torch.linalg.solve(normal, torch.einsum("bn,ni,bnc->bic", weight, basis, values))
    return fit.transpose(1, 2).reshape(B, 2, height, width)


def _texture(picture: Tensor) -> Tensor:
    """Local variance: where there is none, a match says nothing, and the velocity comes from the neighbourhood."""
    return (box_mean(picture**2, 3) - box_mean(picture, 3) ** 2).clamp(min=0) + _NOISE


def smooth(values: Tensor, weight: Tensor, size: int) -> Tensor:
    """Two passes of a weighted moving average, (B, C, H, W) with weights (B, 1, H, W)."""
    for _ in range(2):
        total = box_mean(weight, size)
        values, weight = box_mean(values * weight, size) / total, total
    return values


def _spread(values: Tensor, weight: Tensor, guide: Tensor, size: int = 13) -> Tensor:
    """Values from where they are known to where they are not, along what looks alike and not across its edges.

    A guided filter (He, Sun and Tang 2013) with weights: in each window the values are fitted as a linear function of
    the guide. Where nothing is known nearby, the result is 0.

    Args:
        values: (B, 1, H, W).
        weight: (B, 1, H, W), at least 0: how well each value is known.
        guide: (B, 1, H, W) in [0, 1].
        size: of the windows, odd.

    Returns:
        (B, 1, H, W).
    """
    doubt, contrast = 0.05, 1e-3  # weight of the 0 that is believed at first, and squared contrast of what is an edge
    parts = torch.cat([weight, weight * values, weight * guide, weight * values * guide, weight * guide**2], 1)
    total, v, g, vg, gg = box_mean(parts, size).split(1, 1)
    plain_g, plain_gg = box_mean(torch.cat([guide, guide**2], 1), size).split(1, 1)
    total, g, gg = total + doubt, g + doubt * plain_g, gg + doubt * plain_gg
    v, g, vg, gg = v / total, g / total, vg / total, gg / total
    slope = (vg - v * g) / (gg - g**2 + contrast)
    lines = box_mean(torch.cat([total, total * slope, total * (v - slope * g)], 1), size)
    return (lines[:, 1:2] * guide + lines[:, 2:]) / lines[:, :1]


def step_up(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, smoothly between."""
    x = ((values - low) / (high - low)).clamp(0, 1)
    return x * x * (3 - 2 * x)


def fill_in(picture: Tensor, known: Tensor) -> Tensor:
    """What is not known (0, to 1) from what is known around, the smoother the farther: pictures at half the size, and
    at half of that, give it. (B, C, H, W) with (B, 1, H, W) likewise.
    """
    H, W = picture.shape[-2:]
    if max(H, W) == 1:
        return picture
    small = halve(known)
    below = fill_in(halve(picture * known) / (small + 1e-6), small)
    return known * picture + (1 - known) * resize(below, H, W)


# ----------------------------------------------------------------------------------------------------------------------
# Going on


class Steps(NamedTuple):
    """The hypotheses for K frames ahead.

    fields : (K, B, 5, 2, h, w), displacements of "place" to "plate", in pixels of the full frame; the last one into
        what is behind, the others into the last frame
    masks : (K, B, 3, h, w) in [0, 1]: where "thing" and "matter" are, each carried along; and where they were in the
        last frame, going with the camera
    """

    fields: Tensor
    masks: Tensor

    def prior(self) -> Tensor:
        """Logarithms of the weights that the hypotheses have when nothing else is known, (K, B, M, h, w), not of sum 1.

        Where "matter" is, it counts double, and what does not move by itself less: it was found to move. That it moves
        as one thing is right more seldom, and then much better. Where it has left, the plate is seen.
        """
        thing, matter, was = self.masks.split(1, 2)
        left = was * (1 - thing)
        behind = [0.5 * (1 - matter) + left, 0.1 * (1 - matter)]
        known = [1 - 0.5 * matter, 1.5 - 0.5 * matter, 0.3 * thing, 1 - 0.8 * matter, 2 * matter, *behind]
        return (torch.cat(known, 2) + 1e-3).log()


class Matter(NamedTuple):
    """What moves on its own, as (B, ., h, w) on the half grid, in its pixels.

    pan : 2 channels, the camera's motion to this frame, backward
    camera : 2, the same with that of earlier frames, the newest counting most
    velocity : 2, forward
    votes : 2, of the frames so far: that it moves, and in all
    found : 1, at least 0: how sure it is
    mask : 1, in [0, 1]: where it is
    kept : 1, in [0, 1]: how much of the plate stays what it was
    weight, seen : 1 each: how much free sight the plate is made of, and whether it was seen at all
    plate : 1, in [0, 1], what is behind, gray
    """

    pan: Tensor
    camera: Tensor
    velocity: Tensor
    votes: Tensor
    found: Tensor
    mask: Tensor
    kept: Tensor
    weight: Tensor
    seen: Tensor
    plate: Tensor

    def shown(self) -> Tensor:
        """Where the plate was seen, (B, 1, h, w) in [0, 1]; elsewhere it is made up."""
        return step_up(self.seen, 0.3, 0.7)

    def matte(self, now: Tensor) -> Tensor:
        """Where what moves hides the plate in the last frame `now`, both (B, 1, h, w), in [0, 1].

        The mask is wider: it has grown over what is plain around what was seen to move. Not all of it differs from the
        plate where that was seen.
        """
        differs = step_up(box_mean((now - self.plate).abs(), 3), 0.01, 0.03)
        return self.mask * (1 - self.shown() * (1 - differs))

    def as_one(self) -> Tensor:
        """The velocity of whole things, (B, 2, h, w): that of their fastest parts, which are the surest to move."""
        sure = self.found + 1e-4
        velocity, weight = halve(self.velocity * sure) / halve(sure), halve(sure)
        speed = (velocity + halve(self.pan)).square().sum(1, keepdim=True)  # beside the camera's
        velocity = smooth(velocity, weight * (speed**3 + 0.02) + 1e-6, 9)
        return resize(velocity, *self.velocity.shape[-2:])

    @classmethod
    def in_frame(cls, before: Tensor, now: Tensor, match_: Tensor, pan: Tensor, last: Matter | None) -> Matter:
        """Find it by votes: that to go explains a place better than to stay counts for it, frame by frame; votes go
        along with what moves, and spread to where there are none along what looks alike.

        Args:
            before: the frame before, (B, 1, h, w).
            now: the frame.
            match_: where its places were before, (B, 2, ., .).
            pan: the same if nothing but the camera moves, (B, 2, h, w).
            last: what was found in the frame before, if there was one.
        """
        memory = 0.6  # how much of a velocity that was found before counts
        texture = _texture(now)
        back = smooth(resize(match_, *now.shape[-2:]), texture, 9)
        stays, goes = box_mean((now - warp(before, pan)) ** 2, 3), box_mean((now - warp(before, back)) ** 2, 3)
        speed = (2 * (back - pan)).square().sum(1, keepdim=True)  # in pixels of the frame, squared
        vote = (stays - goes) / (stays + goes + 2 * _NOISE)  # in [-1, 1]: to go explains more than to stay, or less
        votes = torch.cat([vote.clamp(min=0) * speed / (speed + 0.25), vote.abs()], 1)
        if last is not None:
            carried, landed = carry(torch.cat([last.velocity, last.votes], 1), last.velocity, last.found + 1e-2)
            votes = votes + 0.7 * carried[:, 2:] * landed / (landed + 0.05)
        going, total = votes.split(1, 1)
        around = _spread(going / (total + 1e-6), total, now)  # counts where there are no votes, as if it were one
        found = (going + around) / (total + 1)
        mask = step_up(found, 0.15, 0.55)
        found = found.clamp(0, 1)
        back = smooth(back, found * texture + 1e-6, 17)
        for _ in range(3):  # of what moves alone, so that what it moves over doesn't slow it down
            products = found * _slopes_and_difference(now, before, back)
            back = back + _explain(box_mean(box_mean(products, 5), 5), 1e-5)
        sure = found + 1e-4
        velocity = -resize(median(halve(back * sure) / halve(sure), 7), *now.shape[-2:])  # a thing moves as one
        if last is None:
            camera = pan
            hidden = carry(mask, -velocity, mask)[1].clamp(max=1)  # by what was there in the first frame
            weight, seen = (1 - hidden) ** 2 + 1e-5, 1 - hidden
        else:
            share = memory * landed / (landed + 0.3)
            velocity = share * carried[:, :2] + (1 - share) * velocity
            camera, weight, seen = (last.camera + pan) / 2, last.weight, last.seen
        kept = mask * warp(weight, pan)
        weight, seen = kept + (1 - mask) ** 2, torch.maximum(warp(seen, pan), 1 - mask)
        kept = kept / (weight + 1e-7)
        plate = kept * warp(before if last is None else last.plate, pan) + (1 - kept) * now
        return cls(pan, camera, velocity, votes, found, mask, kept, weight, seen, plate)


class Followed(NamedTuple):
    """What is known of how frames moved, up to the last one given; the next frame makes another of it.

    It has the same size however many frames there were. All of it is on the half grid and in its pixels.

    small : (B, 1, h, w), the last frame
    flow : (B, 2, ., .), where its places were in the frame before, None before there are two
    cameras : (B, 2, ., .), the motion of the whole picture, of the last three
    matter : what moves on its own in the last frame, None before there are two
    """

    small: Tensor
    flow: Tensor | None = None
    cameras: tuple[Tensor, ...] = ()
    matter: Matter | None = None

    @classmethod
    def first(cls, frame: Tensor) -> Followed:
        """From the first frame, (B, 1, H, W)."""
        return cls(halve(frame))

    def then(self, frame: Tensor, match_: Tensor) -> Followed:
        """With the next frame.

        Args:
            frame: (B, 1, H, W).
            match_: of it in the one before, (B, 2, ., .), as `match` and `refine` give it.
        """
        now, match_ = halve(frame), match_ / 2
        camera = camera_motion(2 * match_) / 2
        matter = Matter.in_frame(self.small, now, match_, resize(camera, *now.shape[-2:]), self.matter)
        return Followed(now, match_, (*self.cameras, camera)[-3:], matter)

    def behind(self, before: Tensor, frame: Tensor) -> Tensor:
        """What stands behind what moves, as far as frames have shown it.

        Args:
            before: that of the frames before, at first `nothing_behind`; (B, 2, C, H, W), of any size and in colour.
            frame: the last frame, likewise (B, C, H, W).

        Returns:
            (B, 2, C, H, W): the "plate", to which each frame adds as much as it shows free, and the "past", which is
            the last frame where nothing moves, else what was there before, whether it moved or not.
        """
        assert self.matter is not None
        H, W = frame.shape[-2:]
        kept = torch.cat([self.matter.kept, self.matter.mask], 1)
        share = resize(kept, H, W)[:, :, None]  # (B, 2, 1, H, W)
        moved = warp(before.flatten(1, 2), to_size(2 * self.matter.pan, H, W)).view_as(before)
        return share * moved + (1 - share) * frame[:, None]

    def anchors(self, behind: Tensor, frame: Tensor) -> Tensor:
        """What forecasts are drawn from.

        Args:
            behind: of `behind`.
            frame: the last frame, (B, C, H, W).

        Returns:
            (B, A, C, H + 2, W + 2): the frame, twice blurred, the plate, filled from around where it was never seen,
            and the past, all of them `framed`.
        """
        assert self.matter is not None
        H, W = frame.shape[-2:]
        h, w = self.small.shape[-2:]
        plate, past = behind.unbind(1)
        around = resize(fill_in(resize(plate, h, w), self.matter.shown()), H, W)
        shown = resize(self.matter.shown(), H, W)
        return gathered(frame, shown * plate + (1 - shown) * around, past, (2 * h, 2 * w))


def gathered(frame: Tensor, plate: Tensor, past: Tensor, size: tuple[int, int]) -> Tensor:
    """Anchors, see `Followed.anchors`, of three pictures (B, C, H, W); blurred at the `size` at which fields live."""
    H, W = frame.shape[-2:]
    looked_at = frame if size == (H + H % 2, W + W % 2) else F.adaptive_avg_pool2d(frame, size)
    blurred = [resize(box_mean(box_mean(looked_at, window), window), H, W) for window in BLURS]
    anchors = torch.stack([frame, *blurred, plate, past], 1)
    return framed(anchors.flatten(0, 1)).unflatten(0, anchors.shape[:2])


def nothing_behind(frame: Tensor) -> Tensor:
    """What `Followed.behind` begins with: the first frame, (B, C, H, W) -> (B, 2, C, H, W)."""
    return torch.stack([frame, frame], 1)


def follow(frames: Tensor, matches: Tensor) -> list[Followed]:
    """What is known after each frame: (T, B, 1, H, W), and the matches (T-1, B, 2, ., .) of `find_matches`."""
    known = [Followed.first(frames[0])]
    for frame, match_ in zip(frames[1:], matches, strict=True):
        known.append(known[-1].then(frame, match_))
    return known


class Moving(NamedTuple):
    """What moves, carried along frame by frame: (B, ., h, w) on the half grid and in its pixels.

    velocity : 2 channels, forward
    source : 2, where it was in the last given frame, backward
    mask : 1, in [0, 1]: where it is
    """

    velocity: Tensor
    source: Tensor
    mask: Tensor

    @classmethod
    def from_here(cls, velocity: Tensor, mask: Tensor) -> Moving:
        """In the last given frame."""
        return cls(velocity, torch.zeros_like(velocity), mask)

    def next(self, damping: Tensor | float = 1.0) -> Moving:
        """One frame later; from then on it moves at `damping` times its velocity."""
        landed, weight = carry(torch.cat([self.velocity, self.source], 1), self.velocity, self.mask)
        velocity, source = landed.split(2, 1)
        return Moving(damping * velocity, source - velocity, weight.clamp(max=1.0))


class Continuation:
    """What moves in given frames, and how it goes on.

    place : the motion field stays where it is, and the picture flows through it (zooms, pans, weather)
    thing : what moves is rigid and goes on as one, with the velocity of its fastest parts (cars)
    camera : only the motion of the whole picture goes on
    matter : each part of what moves goes on by itself, a little slower frame by frame (people), in front of
    plate : what was seen behind it, or is made up from around, moving with the camera; and
    past : what was there before, if it was only something else that moved

    `known` is kept as it was given.

    Args:
        known: after each frame, at least two; the anchors of frames before the first of it cannot be had.
        damping: of the velocity of "matter", a frame.
    """

    def __init__(self, known: Sequence[Followed], damping: float = 0.985) -> None:
        self.known, last = known, known[-1]
        assert last.flow is not None and last.matter is not None
        h, w = last.small.shape[-2:]
        step = torch.stack([last.flow, torch.stack(last.cameras).mean(0)], 1)  # (B, 2, 2, ., .)
        self._step = resize(step.flatten(0, 1), h, w)
        self._flow = torch.zeros_like(self._step)
        self._damping = step.new_tensor([1.0, damping]).repeat(len(step))[:, None, None, None]
        velocity = torch.stack([last.matter.as_one(), last.matter.velocity], 1).flatten(0, 1)  # (B 2, 2, h, w)
        self._was = last.matter.matte(last.small)
        self._moving = Moving.from_here(velocity, self._was.repeat_interleave(2, 0))
        self._camera, self._behind = last.matter.camera, torch.zeros_like(last.matter.camera)

    def steps(self, count: int) -> Steps:
        """The next `count` frames ahead; a second call goes on where the first one ended."""
        B, fields, masks = len(self._camera), [], []
        for _ in range(count):
            self._flow = warp(self._flow, self._step) + self._step
            self._moving = self._moving.next(self._damping)
            self._behind = warp(self._behind, self._camera) + self._camera
            place, camera = self._flow.unflatten(0, (B, 2)).unbind(1)
            thing, matter = self._moving.source.unflatten(0, (B, 2)).unbind(1)
            fields.append(torch.stack([place, thing, camera, matter, self._behind], 1))
            was = warp(self._was, self._behind)
            masks.append(torch.cat([self._moving.mask.view(B, 2, *was.shape[-2:]), was], 1))
        return Steps(2 * torch.stack(fields), torch.stack(masks))

    def anchors(self, frames: Sequence[Tensor]) -> Tensor:
        """What forecasts are drawn from, see `Followed.anchors`.

        Args:
            frames: the T given frames, (B, C, H, W) each, of any size and in colour.

        Returns:
            (B, A, C, H + 2, W + 2).
        """
        behind = nothing_behind(frames[0])
        for frame, known in zip(frames[1:], self.known[1:], strict=True):
            behind = known.behind(behind, frame)
        return self.known[-1].anchors(behind, frames[-1])


def to_size(displacement: Tensor, height: int, width: int) -> Tensor:
    """A displacement on the half grid, in pixels of the full frame, for a picture of another size, in its pixels.

    (B, 2, h, w) -> (B, 2, height, width).
    """
    h, w = displacement.shape[-2:]
    if (height + height % 2, width + width % 2) == (2 * h, 2 * w):
        return resize(displacement, height, width)
    scale = displacement.new_tensor([height / (2 * h), width / (2 * w)])[:, None, None]
    return resize(displacement, height, width) * scale


def agree(fields: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Add what the hypotheses in front agree on: that all of them are right on average.

    Where they disagree their mixture shows a thing several times; along the mean of their fields it is there once,
    sharp or, where nothing can be known, blurred.

    Args:
        fields: (..., 5, 2, h, w), as in `Steps`.
        logits: (..., M + 3, h, w), of the hypotheses, logarithms of their weights up to a constant; of the mean
            against those that it is the mean of; and of both blurs against none.

    Returns:
        (..., 6, 2, h, w), and the logarithms of the weights of P = M + 3 pictures, (..., P, h, w): the hypotheses, and
        the mean, sharp and blurred.
    """
    own, share, blur = logits.split([len(HYPOTHESES), 1, len(BLURS)], -3)
    front, behind = torch.log_softmax(own, -3).split([FRONT, len(HYPOTHESES) - FRONT], -3)
    together = front.logsumexp(-3, keepdim=True)
    mean = ((front - together).exp()[..., 1:, None, :, :] * fields[..., :-1, :, :, :]).sum(-4, keepdim=True)
    sharpness = torch.log_softmax(torch.cat([torch.zeros_like(share), blur], -3), -3)
    weights = [front + F.logsigmoid(-share), behind, together + F.logsigmoid(share) + sharpness]
    return torch.cat([fields, mean], -4), torch.cat(weights, -3)


def draw_each(anchors: Tensor, fields: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The pictures that are mixed, and their weights.

    Args:
        anchors: (B, A, C, H + 2, W + 2), of any size, as `Followed.anchors` gives them.
        fields: (B, 6, 2, h, w), of `agree`; or 5, as in `Steps`.
        logits: (B, P, h, w), of `agree`; or (B, M, h, w): logarithms of the weights, up to a constant.

    Returns:
        (B, P, C, H, W), and of sum 1 over P, (B, P, 1, H, W); or M of them.
    """
    B, A, C, H, W = *anchors.shape[:3], anchors.shape[3] - 2, anchors.shape[4] - 2
    last, blurred = anchors[:, :1], 1 + len(BLURS)
    sized = to_size(fields.flatten(0, 1), H, W).unflatten(0, (B, -1))
    moved = warp(last.expand(-1, FRONT - 1, -1, -1, -1).flatten(0, 1), sized[:, : FRONT - 1].flatten(0, 1))
    behind = warp(anchors[:, blurred:].flatten(1, 2), sized[:, FIELDS - 1])
    pictures = [last[..., 1:-1, 1:-1], moved.view(B, FRONT - 1, C, H, W), behind.view(B, A - blurred, C, H, W)]
    if fields.shape[1] > FIELDS:
        pictures.append(warp(anchors[:, :blurred].flatten(1, 2), sized[:, FIELDS]).view(B, blurred, C, H, W))
    return torch.cat(pictures, 1), torch.softmax(resize(logits, H, W), 1)[:, :, None]


def draw(anchors: Tensor, fields: Tensor, logits: Tensor) -> Tensor:
    """The mean of all pictures, each as its weight says: (B, C, H, W). Arguments as for `draw_each`."""
    pictures, weights = draw_each(anchors, fields, logits)
    return (weights * pictures).sum(1)


def find_matches(frames: Tensor) -> Tensor:
    """(T, B, 1, H, W) in [0, 1] -> (T-1, B, 2, ., .): each frame in the one before, by `match` and `refine`."""
    pairs = itertools.pairwise(frames.unbind())
    return torch.stack([refine(match(now, before), now, before) for before, now in pairs])


def at_least_two(frames: Tensor) -> Tensor:
    """(T, B, C, H, W); a single frame is repeated, as one that stood still."""
    return frames if len(frames) > 1 else frames.expand(2, -1, -1, -1, -1)


def gray(frames: Tensor) -> Tensor:
    """(..., C, H, W) -> (..., 1, H, W): luma (ITU-R BT.601) of three channels, the mean of any other number."""
    channels = frames.shape[-3]
    if channels == 1:
        return frames
    share = [0.299, 0.587, 0.114] if channels == 3 else [1 / channels] * channels
    return torch.einsum("c,...chw->...hw", frames.new_tensor(share), frames)[..., None, :, :]


def looked_at(frames: Tensor) -> Tensor:
    """(T, B, C, H, W) -> (T, B, 1, ., .): gray, and halved as long as the shorter side has more than 384 pixels.

    Motion is looked for there: larger pictures would show hardly more of it, and cost many times as much.
    """
    T, frames = len(frames), gray(frames).flatten(0, 1)  # (T * B, 1, H, W)
    while min(frames.shape[-2:]) > _LARGEST:
        frames = halve(frames)
    return frames.unflatten(0, (T, -1))


def motion_continued(frames: Tensor, ahead: int) -> Iterator[Tensor]:
    """The forecast that needs no network: all hypotheses, each with the weight it has when nothing else is known.

    Args:
        frames: (T, B, C, H, W) in [0, 1]; a single frame is repeated.
        ahead: how many frames.

    Yields:
        (B, C, H, W) within [0, 1], or up to the highest value given.
    """
    frames, highest = at_least_two(frames), max(1.0, float(frames.max()))
    small = looked_at(frames)
    going_on = Continuation(follow(small, find_matches(small)))
    anchors = going_on.anchors(list(frames))
    for _ in range(ahead):
        step = going_on.steps(1)
        yield draw(anchors, step.fields[0], step.prior()[0]).clamp(0, highest)
