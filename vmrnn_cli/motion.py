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
        """Logarithms of the weights that the hypotheses have when nothing else is known, (K, B, M, h, w).

        Each a fifth, "matter" and "plate" together.
        """
        known = torch.cat([torch.ones_like(self.mask).expand(-1, -1, 4, -1, -1), self.mask, 1 - self.mask], 2)
        return (known + 1e-3).log()


class Followed(NamedTuple):
    """What is known of how frames moved, up to the last one given; the next frame makes another of it.

    It has the same size however many frames there were. All of it is on the half grid and in its pixels.

    small : (B, 1, h, w), the last frame
    matches : (B, 2, ., .), of the last four frames, each in the one before
    cameras : (B, 2, ., .), the motion of the whole picture, of the last three
    pan, mask : (B, 2, h, w) and (B, 1, h, w), the camera's motion to the last frame, and where "matter" is in it
    velocity, camera : (B, 2, h, w), of "matter", and of the camera, the newest frames counting most
    """

    small: Tensor
    matches: tuple[Tensor, ...] = ()
    cameras: tuple[Tensor, ...] = ()
    pan: Tensor | None = None
    mask: Tensor | None = None
    velocity: Tensor | None = None
    camera: Tensor | None = None

    @classmethod
    def first(cls, frame: Tensor) -> Followed:
        """From the first frame, (B, 1, H, W)."""
        return cls(halve(frame))

    def then(self, frame: Tensor, match_: Tensor, memory: float = 0.6) -> Followed:
        """With the next frame.

        Args:
            frame: (B, 1, H, W).
            match_: of it in the one before, (B, 2, ., .), as `match` and `refine` give it.
            memory: how much of a velocity of "matter" that was found before counts.
        """
        now, before, match_ = halve(frame), self.small, match_ / 2
        h, w = now.shape[-2:]
        camera_ = camera_motion(2 * match_) / 2
        texture, pan = _texture(now), resize(camera_, h, w)
        back = _smooth(resize(match_, h, w), texture, 9)
        stays, goes = box_mean((now - warp(before, pan)) ** 2, 3), box_mean((now - warp(before, back)) ** 2, 3)
        speed = (2 * (back - pan)).square().sum(1, keepdim=True)  # in pixels of the frame, squared
        better = 2 * (stays + _NOISE) / (stays + goes + 2 * _NOISE)  # 1: to go explains no more than to stay
        mask = speed / (speed + 0.25) * better.clamp(0, 1)
        velocity = _smooth(-back, mask * texture + 1e-6, 17)
        if self.velocity is not None and self.mask is not None:
            carried, landed = carry(self.velocity, self.velocity, self.mask + 1e-4)
            share = memory * landed / (landed + 0.3)
            velocity = share * carried + (1 - share) * velocity
        camera = pan if self.camera is None else (self.camera + pan) / 2
        matches, cameras = (*self.matches, match_)[-4:], (*self.cameras, camera_)[-3:]
        return Followed(now, matches, cameras, pan, mask, velocity, camera)

    def plate(self, before: Tensor, frame: Tensor) -> Tensor:
        """What stands behind what moves: the last frame where nothing moves, else what was seen there before.

        Args:
            before: the plate of the frames before, at first the first frame, (B, C, H, W), of any size and in colour.
            frame: the last frame, likewise.

        Returns:
            (B, C, H, W).
        """
        assert self.mask is not None and self.pan is not None
        H, W = frame.shape[-2:]
        moves = resize(self.mask, H, W)
        return moves * warp(before, to_size(2 * self.pan, H, W)) + (1 - moves) * frame


def follow(frames: Tensor, matches: Tensor) -> list[Followed]:
    """What is known after each frame: (T, B, 1, H, W), and the matches (T-1, B, 2, ., .) of `find_matches`."""
    known = [Followed.first(frames[0])]
    for frame, match_ in zip(frames[1:], matches, strict=True):
        known.append(known[-1].then(frame, match_))
    return known


class Continuation:
    """What moves in given frames, and how it goes on by five hypotheses.

    place : the motion field stays where it is, and the picture flows through it (zooms, pans, weather)
    drift : the same, with the mean field of the last four frames, the newest counting most
    camera : only the motion of the whole picture goes on
    matter : what moves keeps its shape and velocity (cars, people), in front of
    plate : what was seen behind it, moving with the camera

    Args:
        known: after each frame, at least two; the plate of frames before the first of it cannot be had.
        damping: of the velocity of "matter", a frame.
    """

    def __init__(self, known: Sequence[Followed], damping: float = 0.97) -> None:
        self._known, last = known, known[-1]
        assert last.velocity is not None and last.mask is not None and last.camera is not None
        h, w = last.small.shape[-2:]
        matches = torch.stack(last.matches)
        ramp = torch.arange(1.0, len(matches) + 1, device=matches.device)
        drift = torch.einsum("t,tbchw->bchw", ramp / ramp.sum(), matches)
        step = torch.stack([matches[-1], drift, torch.stack(last.cameras).mean(0)], 1)  # (B, 3, 2, ., .)
        self._step = resize(step.flatten(0, 1), h, w)
        self._flow = torch.zeros_like(self._step)
        self._damping = damping
        self._velocity, self._mask, self._camera = last.velocity, last.mask, last.camera
        self._source, self._behind = torch.zeros_like(last.velocity), torch.zeros_like(last.velocity)

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
        """What stands behind what moves, see `Followed.plate`.

        Args:
            frames: the T given frames, (B, C, H, W) each, of any size and in colour.

        Returns:
            (B, C, H, W).
        """
        plate = frames[0]
        for frame, known in zip(frames[1:], self._known[1:], strict=True):
            plate = known.plate(plate, frame)
        return plate


def to_size(displacement: Tensor, height: int, width: int) -> Tensor:
    """A displacement on the half grid, in pixels of the full frame, for a picture of another size, in its pixels.

    (B, 2, h, w) -> (B, 2, height, width).
    """
    h, w = displacement.shape[-2:]
    if (height + height % 2, width + width % 2) == (2 * h, 2 * w):
        return resize(displacement, height, width)
    scale = displacement.new_tensor([height / (2 * h), width / (2 * w)])[:, None, None]
    return resize(displacement, height, width) * scale


def draw_each(last: Tensor, plate: Tensor, fields: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The hypotheses' pictures and their weights.

    Args:
        last: the last given frame, (B, C, H, W), of any size.
        plate: likewise.
        fields: (B, 5, 2, h, w), as in `Steps`.
        logits: (B, M, h, w), logarithms of the weights, up to a constant.

    Returns:
        (B, M, C, H, W), and of sum 1 over M, (B, M, 1, H, W).
    """
    B, C, H, W = last.shape
    anchors = torch.stack([last, last, last, last, plate], 1).flatten(0, 1)  # (B * 5, C, H, W)
    moved = warp(anchors, to_size(fields.flatten(0, 1), H, W)).unflatten(0, (B, 5))
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
    going_on = Continuation(follow(small, find_matches(small)))
    plate = going_on.plate(list(frames))
    for _ in range(ahead):
        step = going_on.steps(1)
        yield draw(frames[-1], plate, step.fields[0], step.prior()[0]).clamp(0, highest)
