"""How the picture goes on if what moves goes on moving: displacement, warping, and five ways to continue them.

This is ours and not the paper's. Nothing here is trained. The idea is that of motion compensation with several
hypotheses, as video coding knows it: none is right everywhere, and a network (`motion_network.py`) decides where which
is. Each hypothesis is a displacement field into a picture that is known (an anchor: the last frame, or the plate, which
is what stands behind what moves), so that it can be drawn at any size and in colour.

Notation: B batch, T time, K frames ahead, M hypotheses, C channels, H x W pixels, h x w = H/2 x W/2 the half grid on
which fields live. A displacement is (B, 2, ., .), (dy, dx), in pixels of the full frame unless it says otherwise.
Backward: what is at x now was at x + d. Frames are float32 in [0, 1], of one channel where motion is looked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# What each hypothesis says. "still" has no field: it is the last frame itself.
HYPOTHESES = ("still", "place", "drift", "camera", "matter", "plate")

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
        picture: (B, C, H, W).
        displacement: (B, 2, H, W), in pixels of the picture.

    Returns:
        (B, C, H, W).
    """
    H, W = picture.shape[-2:]
    at = positions(H, W, displacement) + displacement
    grid = torch.stack([at[:, 1] * (2 / max(1, W - 1)) - 1, at[:, 0] * (2 / max(1, H - 1)) - 1], -1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


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
    return F.avg_pool2d(F.avg_pool2d(values, (1, size), 1), (size, 1), 1)


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
    cost = F.avg_pool2d(F.pad(torch.cat(differences, 1), margin, mode="replicate"), k, 1)  # (B, moves, H/4, W/4)
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
    """Fractions of a pixel, which block matching hardly sees where the picture is smooth: one step of Lucas and Kanade.

    The displacement is changed by what best explains, to first order, the difference that is left, in windows of 12
    pixels; less where there is little texture, and by a pixel at most.

    Args:
        displacement: of `match`, (B, 2, ceil(H/4), ceil(W/4)).
        now: (B, 1, H, W) in [0, 1].
        before: likewise.

    Returns:
        (B, 2, ceil(H/4), ceil(W/4)).
    """
    certainty = 5e-4  # squared slope of the picture from which on it says more than noise
    H, W = now.shape[-2:]
    pad = (0, -W % _STRIDE, 0, -H % _STRIDE)
    now, before = F.pad(now, pad, mode="replicate"), F.pad(before, pad, mode="replicate")
    moved = warp(before, resize(displacement, *now.shape[-2:]))
    difference = now - moved
    slope_y = F.pad(moved[..., 2:, :] - moved[..., :-2, :], (0, 0, 1, 1)) / 2
    slope_x = F.pad(moved[..., 2:] - moved[..., :-2], (1, 1, 0, 0)) / 2
    products = torch.cat([slope_y**2, slope_y * slope_x, slope_x**2, slope_y * difference, slope_x * difference], 1)
    yy, yx, xx, y, x = box_mean(F.avg_pool2d(products, _STRIDE), 3).split(1, 1)
    yy, xx = yy + certainty, xx + certainty
    change = torch.cat([xx * y - yx * x, yy * x - yx * y], 1) / (yy * xx - yx**2)
    return displacement + change.clamp(-1, 1)


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


def _smooth(values: Tensor, weight: Tensor, size: int) -> Tensor:
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


def _step_up(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, smoothly between."""
    x = ((values - low) / (high - low)).clamp(0, 1)
    return x * x * (3 - 2 * x)


def _fill(picture: Tensor, known: Tensor) -> Tensor:
    """What is not known (0, to 1) from what is known around, the smoother the farther: pictures at half the size, and
    at half of that, give it. (B, C, H, W) with (B, 1, H, W) likewise.
    """
    H, W = picture.shape[-2:]
    if max(H, W) == 1:
        return picture
    small = halve(known)
    below = _fill(halve(picture * known) / (small + 1e-6), small)
    return known * picture + (1 - known) * resize(below, H, W)


# ----------------------------------------------------------------------------------------------------------------------
# Going on


class Steps(NamedTuple):
    """The hypotheses for K frames ahead.

    fields : (K, B, 5, 2, h, w), displacements of all but "still", in pixels of the full frame; that of "plate" into the
        plate, the others into the last frame
    mask : (K, B, 1, h, w) in [0, 1], where "matter" is, carried along; elsewhere "plate" is
    """

    fields: Tensor
    mask: Tensor

    def prior(self) -> Tensor:
        """Logarithms of the weights that the hypotheses have when nothing else is known, (K, B, M, h, w), not of sum 1.

        Where "matter" is, it counts double, and what does not move by itself less: it was found to move.
        """
        matter, one = self.mask, torch.ones_like(self.mask)
        known = [one - 0.5 * matter, one, one, one - 0.8 * matter, 2 * matter, 0.5 * (1 - matter)]
        return (torch.cat(known, 2) + 1e-3).log()


class Continuation:
    """What moves in given frames, and how it goes on by five hypotheses.

    place : the motion field stays where it is, and the picture flows through it (zooms, pans, weather)
    drift : the same, with the mean field of the last four frames, the newest counting most
    camera : only the motion of the whole picture goes on
    matter : what moves keeps its shape and velocity (cars, people), in front of
    plate : what was seen behind it, moving with the camera

    `seen` (B, 1, h, w) in [0, 1] tells where the plate was seen; elsewhere it is made up.

    Args:
        frames: (T, B, 1, H, W) in [0, 1], T at least 2.
        matches: (T-1, B, 2, ., .), of each frame in the one before, as `match` gives them.
        memory: how much of a velocity of "matter" that was found before counts.
        damping: of the velocity of "matter", a frame.
    """

    def __init__(self, frames: Tensor, matches: Tensor, memory: float = 0.6, damping: float = 0.97) -> None:
        T, B = frames.shape[:2]
        small = halve(frames.flatten(0, 1)).unflatten(0, (T, B))  # (T, B, 1, h, w)
        h, w = small.shape[-2:]
        # Displacements are kept in pixels of the half grid.
        cameras = camera_motion(matches.flatten(0, 1)).unflatten(0, (T - 1, B)) / 2
        newest = min(4, T - 1)
        ramp = torch.arange(1.0, newest + 1, device=frames.device)
        drift = torch.einsum("t,tbchw->bchw", ramp / ramp.sum(), matches[-newest:]) / 2
        step = torch.stack([matches[-1] / 2, drift, cameras[-3:].mean(0)], 1)  # (B, 3, 2, ., .)
        self._step = resize(step.flatten(0, 1), h, w)
        self._flow = torch.zeros_like(self._step)
        self._damping = damping
        self._find_matter(small, matches / 2, cameras, memory)

    def _find_matter(self, small: Tensor, matches: Tensor, cameras: Tensor, memory: float) -> None:
        """Follow what moves on its own through the given frames: velocity and mask, the camera, and the plate's parts.

        small (T, B, 1, h, w); matches and cameras (T-1, B, 2, ., .), in pixels of the half grid.
        """
        h, w = small.shape[-2:]
        kept: tuple[Tensor, Tensor] | None = None
        camera = torch.zeros_like(small[0])
        votes = torch.zeros_like(small[0]).expand(-1, 2, -1, -1)  # for going, and in all
        pans: list[Tensor] = []
        masks: list[Tensor] = []
        for before, now, match_, camera_ in zip(small, small[1:], matches, cameras, strict=False):
            texture, pan = _texture(now), resize(camera_, h, w)
            back = _smooth(resize(match_, h, w), texture, 9)
            stays, goes = box_mean((now - warp(before, pan)) ** 2, 3), box_mean((now - warp(before, back)) ** 2, 3)
            speed = (2 * (back - pan)).square().sum(1, keepdim=True)  # in pixels of the frame, squared
            vote = (stays - goes) / (stays + goes + 2 * _NOISE)  # in [-1, 1]: to go explains more than to stay, or less
            for_going = vote.clamp(min=0) * speed / (speed + 0.25)
            if kept is not None:
                carried, landed = carry(torch.cat([kept[0], votes], 1), kept[0], kept[1] + 1e-2)
                votes = 0.7 * carried[:, 2:] * landed / (landed + 0.05)
            votes = votes + torch.cat([for_going, vote.abs()], 1)
            going, total = votes.split(1, 1)
            around = _spread(going / (total + 1e-6), total, now)  # counts where there are no votes, as if it were one
            mask = (going + around) / (total + 1)
            velocity = _smooth(-back, mask.clamp(0, 1) * texture + 1e-6, 17)
            if kept is not None:
                share = memory * landed / (landed + 0.3)
                velocity = share * carried[:, :2] + (1 - share) * velocity
            kept = velocity, mask.clamp(0, 1)
            camera = (camera + pan) / 2 if pans else pan
            pans.append(pan)
            masks.append(_step_up(mask, 0.15, 0.55))
            if len(masks) == 1:
                first = carry(masks[0], -velocity, masks[0])[1].clamp(max=1)
        self._velocity, self._mask, self._camera = velocity, masks[-1], camera
        self._source, self._behind = torch.zeros_like(velocity), torch.zeros_like(velocity)
        self._pans, self._kept = 2 * torch.stack(pans), []
        known, seen = (1 - first) ** 2 + 1e-5, 1 - first
        for pan, mask in zip(pans, masks, strict=True):
            old, new = mask * warp(known, pan), (1 - mask) ** 2
            known, seen = old + new, torch.maximum(warp(seen, pan), 1 - mask)
            self._kept.append(old / (known + 1e-7))
        self.seen = _step_up(seen, 0.3, 0.7)

    def steps(self, count: int) -> Steps:
        """The next `count` frames ahead; a second call goes on where the first one ended."""
        B, fields, masks = len(self._mask), [], []
        for _ in range(count):
            self._flow = warp(self._flow, self._step) + self._step
            landed, weight = carry(torch.cat([self._velocity, self._source], 1), self._velocity, self._mask)
            self._source, self._mask = landed[:, 2:] - landed[:, :2], weight.clamp(max=1.0)
            self._velocity = self._damping * landed[:, :2]
            self._behind = warp(self._behind, self._camera) + self._camera
            in_place = self._flow.unflatten(0, (B, 3))  # (B, 3, 2, h, w)
            fields.append(torch.cat([in_place, self._source[:, None], self._behind[:, None]], 1))
            masks.append(self._mask)
        return Steps(2 * torch.stack(fields), torch.stack(masks))

    def plate(self, frames: Sequence[Tensor]) -> Tensor:
        """What stands behind what moves: each frame where nothing moves, else what was seen there before, else what
        is seen around.

        Args:
            frames: the T given frames, (B, C, H, W) each, of any size and in colour.

        Returns:
            (B, C, H, W).
        """
        plate = frames[0]
        H, W = plate.shape[-2:]
        for frame, pan, kept in zip(frames[1:], self._pans, self._kept, strict=True):
            share = resize(kept, H, W)
            plate = share * warp(plate, to_size(pan, H, W)) + (1 - share) * frame
        around = _fill(resize(plate, *self.seen.shape[-2:]), self.seen)
        seen = resize(self.seen, H, W)
        return seen * plate + (1 - seen) * resize(around, H, W)


def to_size(displacement: Tensor, height: int, width: int) -> Tensor:
    """A displacement on the half grid, in pixels of the full frame, for a picture of another size, in its pixels.

    (B, 2, h, w) -> (B, 2, height, width).
    """
    h, w = displacement.shape[-2:]
    if (height + height % 2, width + width % 2) == (2 * h, 2 * w):
        return resize(displacement, height, width)
    scale = displacement.new_tensor([height / (2 * h), width / (2 * w)])[:, None, None]
    return resize(displacement, height, width) * scale


def agree(fields: Tensor, logits: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Give a share of what all hypotheses but "plate" weigh to one more: that all of them are right on average.

    Where they disagree their mixture shows a thing several times; along the mean of their fields it is there once.

    Args:
        fields: (..., 5, 2, h, w), as in `Steps`.
        logits: (..., M, h, w), logarithms of the weights, up to a constant.
        share: in [0, 1).

    Returns:
        (..., 6, 2, h, w) and (..., M + 1, h, w).
    """
    moving, plate = torch.log_softmax(logits, -3).split([len(HYPOTHESES) - 1, 1], -3)
    together = moving.logsumexp(-3, keepdim=True)
    mean = ((moving - together).exp()[..., 1:, None, :, :] * fields[..., :-1, :, :, :]).sum(-4, keepdim=True)
    logits = torch.cat([moving + math.log(1 - share), plate, together + math.log(max(share, 1e-6))], -3)
    return torch.cat([fields, mean], -4), logits


def draw_each(last: Tensor, plate: Tensor, fields: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The hypotheses' pictures and their weights.

    Args:
        last: the last given frame, (B, C, H, W), of any size.
        plate: likewise.
        fields: (B, 5, 2, h, w), as in `Steps`, or 6 of `agree`.
        logits: (B, M, h, w), logarithms of the weights, up to a constant.

    Returns:
        (B, M, C, H, W), and of sum 1 over M, (B, M, 1, H, W).
    """
    B, fields_, H, W = *fields.shape[:2], *last.shape[-2:]
    anchors = torch.stack([last] * 4 + [plate] + [last] * (fields_ - 5), 1).flatten(0, 1)  # (B * fields, C, H, W)
    moved = warp(anchors, to_size(fields.flatten(0, 1), H, W)).unflatten(0, (B, fields_))
    weights = torch.softmax(resize(logits, H, W), 1)[:, :, None]
    return torch.cat([last[:, None], moved], 1), weights


def draw(last: Tensor, plate: Tensor, fields: Tensor, logits: Tensor) -> Tensor:
    """The mean of all hypotheses' pictures, each as its weight says: (B, C, H, W). Arguments as for `draw_each`."""
    pictures, weights = draw_each(last, plate, fields, logits)
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
    going_on = Continuation(small, find_matches(small))
    plate = going_on.plate(list(frames))
    for _ in range(ahead):
        step = going_on.steps(1)
        yield draw(frames[-1], plate, step.fields[0], step.prior()[0]).clamp(0, highest)
