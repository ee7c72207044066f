"""Scenes of moving layers, made of the frames of other clips: motion in plenty, steady and accelerated, with occlusion.

Pieces of frames are cut out along soft shapes and move over another frame, or over a clip; the camera pans, zooms and
turns. Which pieces, shapes and paths is drawn anew for each scene, from its random generator alone. And weather, which
is made of nothing: it flows, grows and decays.

Of scenes it is known what cannot be known of clips: where each place was in the last given frame, and whether it was
seen there. This is taught, too (`motion_loss.py`).

Notation: T time, S side of a square, all in pixels; pictures are (1, 1, S, S), scenes (T, 1, S, S), float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..motion import warp
from .base import ClipArray, ClipDataset

Path2D = NDArray[np.float64]  # (T, 2), (y, x)

_WEATHER = 0.5  # share of the scenes
TAUGHT = 4  # channels of `taught`


class Layer(NamedTuple):
    """What moves as one.

    shape : (T, 1, S, S) in [0, 1], how much of each place it covers; None for the background
    motion : (T, 2, 3), as `_motion` gives it; None where it is not known
    """

    shape: Tensor | None
    motion: Tensor | None


class Scene(NamedTuple):
    """frames : (T, 1, S, S) in [0, 1]. layers : the background, and what lies over it, upwards."""

    frames: Tensor
    layers: Sequence[Layer]

    def taught(self, given: int) -> Tensor:
        """Where each place was in the last of `given` frames.

        Returns:
            (T, 4, S, S): the displacement backward into that frame in pixels (dy, dx); whether what is seen was seen
            there; and whether this is known, which it is not in the given frames.
        """
        T, _, S, _ = self.frames.shape
        top = torch.zeros(T, S, S, dtype=torch.long)  # which layer is seen
        for number, layer in enumerate(self.layers):
            if layer.shape is not None:
                top[layer.shape[:, 0] > 0.5] = number
        at = F.affine_grid(torch.eye(2, 3)[None], [1, 1, S, S], align_corners=False)[0]  # (S, S, 2), (x, y) in [-1, 1]
        taught = torch.zeros(T, TAUGHT, S, S)
        for number, layer in enumerate(self.layers):
            if layer.motion is None:
                continue
            of_layer = F.affine_grid(layer.motion, [T, 1, S, S], align_corners=False)  # (T, S, S, 2)
            matrix, shift = layer.motion[given - 1].split([2, 1], 1)
            before = (of_layer - shift[:, 0]) @ torch.linalg.inv(matrix).T  # where it was in the last given frame
            x, y = ((before + 1) * (S / 2)).floor().long().unbind(-1)
            inside = (x >= 0) & (x < S) & (y >= 0) & (y < S)
            seen = top[given - 1][y.clamp(0, S - 1), x.clamp(0, S - 1)] == number
            dx, dy = ((before - at) * (S / 2)).unbind(-1)
            truth = torch.stack([dy, dx, seen.float(), inside.float()], 1)
            taught = torch.where((top == number)[:, None], truth, taught)
        taught[:given] = 0
        return taught


def make_scene(
    frames: int, side: int, still: Callable[[], Tensor], clip: Callable[[], Tensor], rng: np.random.Generator
) -> Scene:
    """Make a scene.

    Args:
        frames: T.
        side: S.
        still: draws a frame, (1, 1, S, S).
        clip: draws a clip, (T, 1, S, S).
        rng: where everything else comes from.
    """
    camera = None
    if rng.random() < 0.35:
        scene = clip()
    else:
        pans = rng.random() < 0.5
        camera = _motion(
            frames, 3.0 if pans else 0.0, 0.004 * pans, 0.003 * pans, rng.uniform(0.6, 0.95), np.zeros(2), rng
        )
        scene = _draw(still(), camera, side, "reflection")
    layers = [Layer(None, camera)]
    for _ in range(rng.integers(1, 4)):
        turn = 0.008 if rng.random() < 0.5 else 0.0
        motion = _motion(frames, 5.0, 0.003, turn, np.exp(rng.uniform(-0.7, 0.7)), rng.uniform(-0.9, 0.9, 2), rng)
        shape = _draw(_shape(side, rng), motion, side, "zeros")
        skin = still()
        if rng.random() < 0.25:  # a plain surface, which says little about how it moves
            skin = float(rng.random()) + 0.05 * skin
        scene = scene + shape * (_draw(skin, motion, side, "reflection") - scene)
        layers.append(Layer(shape, motion))
    if rng.random() < 0.3:
        noise = rng.standard_normal(scene.shape, dtype=np.float32)
        scene = scene + float(rng.uniform(0, 0.02)) * torch.from_numpy(noise)
    return Scene(scene.clamp(0, 1), layers)


def make_weather(frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """Make a clip of what drifts and changes as it goes: showers on a radar, clouds, smoke.

    Noise of several scales, of which the finer ones change faster, flows along a field of motion that is smooth and
    stays as it is; what lies above some threshold is seen. How fast it changes is as on real radar: after 3, 6 and 12
    frames the flow that goes on explains about 60, 40 and 20 % of the squared change.

    Args:
        frames: T.
        side: S.
        rng: where everything comes from.

    Returns:
        (T, 1, S, S) in [0, 1].
    """
    margin = side // 2  # what flows in comes from there
    wide = side + 2 * margin
    noise = lambda cells: F.interpolate(  # noqa: E731
        torch.from_numpy(rng.standard_normal((1, 2, cells, cells), dtype=np.float32)),
        size=(wide, wide), mode="bicubic", align_corners=False,
    )  # fmt: skip
    speed, direction = 3 * side / 128 * rng.random(), rng.uniform(0, 2 * np.pi)
    mean = torch.tensor([speed * np.sin(direction), speed * np.cos(direction)], dtype=torch.float32)[:, None, None]
    step = mean + float(speed * rng.uniform(0, 0.2)) * noise(int(rng.integers(3, 6)))  # backward, in pixels a frame
    scales = [noise(cells) for cells in (6, 12, 24, 48, 96, 192) if cells <= wide]
    roughness, pace = rng.uniform(0.7, 1.0), rng.uniform(0.01, 0.1)
    threshold, least, gain = rng.uniform(-0.3, 1.0), rng.uniform(0, 0.2), rng.uniform(0.05, 0.3)
    flow, clip = torch.zeros_like(step), []
    for t in range(frames):
        now = sum(
            roughness**k * (np.cos(1.6**k * pace * t) * both[:, :1] + np.sin(1.6**k * pace * t) * both[:, 1:])
            for k, both in enumerate(scales)
        )
        clip.append(warp(now, flow)[..., margin : margin + side, margin : margin + side])
        flow = warp(flow, step) + step
    above = torch.cat(clip) - threshold
    return torch.where(above > 0, least + gain * above, 0.0).clamp(0, 1)


def _path(frames: int, top_speed: float, rng: np.random.Generator) -> Path2D:
    """Where something is in each frame, from 0 on: steady, accelerated, swaying, or coming to rest."""
    t = np.arange(frames)
    speed, direction = top_speed * rng.random() ** 1.5, rng.uniform(0, 2 * np.pi)
    path = np.outer(t, speed * np.array([np.sin(direction), np.cos(direction)]))
    kind = rng.random()
    if kind < 0.3:
        path = path + np.outer(t**2, rng.normal(0, 0.03, 2))
    elif kind < 0.5:
        path = path + np.outer(np.sin(rng.uniform(0.1, 0.5) * t + rng.uniform(0, 6)), rng.normal(0, 4, 2))
    elif kind < 0.6:
        stop = rng.integers(min(5, frames - 1), frames)
        path = np.where((t < stop)[:, None], path, path[stop])
    return path


def _motion(
    frames: int, top_speed: float, zoom: float, turn: float, scale: float, centre: Path2D, rng: np.random.Generator
) -> Tensor:
    """From places of the scene to places of a layer, both in [-1, 1]: (T, 2, 3), as PyTorch's `affine_grid` wants it.

    Speed is in pixels of a frame 128 wide; zoom and turn (radians) are standard deviations, a frame; `scale` is how
    much of the layer is seen, and `centre` where its centre is at first.
    """
    y, x = (-(_path(frames, top_speed, rng) / 64 + centre)).T
    t = np.arange(frames) - frames / 2
    size, angle = scale * np.exp(rng.normal(0, zoom) * t), rng.normal(0, turn) * t
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    rows = [[cos, sin, cos * x + sin * y], [-sin, cos, -sin * x + cos * y]]
    return torch.from_numpy(np.array(rows, np.float32).transpose(2, 0, 1).copy())


def _draw(picture: Tensor, motion: Tensor, side: int, beyond: str) -> Tensor:
    """A layer as each frame sees it: (1, 1, S, S) -> (T, 1, S, S)."""
    grid = F.affine_grid(motion, [len(motion), 1, side, side], align_corners=False)
    return F.grid_sample(picture.expand(len(motion), -1, -1, -1), grid, padding_mode=beyond, align_corners=False)


def _shape(side: int, rng: np.random.Generator) -> Tensor:
    """A blob of up to four ellipses and boxes about the centre, with soft edges: (1, 1, S, S)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    depth = torch.full((side, side), -1e3)  # how far inside the edge, in pixels
    for _ in range(rng.integers(1, 5)):
        centre_y, centre_x = rng.normal(0, 0.18, 2)
        radius_y, radius_x = rng.uniform(0.06, 0.4, 2)
        angle = rng.uniform(0, np.pi)
        u = (y - centre_y) * np.cos(angle) + (x - centre_x) * np.sin(angle)
        v = (x - centre_x) * np.cos(angle) - (y - centre_y) * np.sin(angle)
        if rng.random() < 0.3:
            distance = torch.maximum((u / radius_y).abs(), (v / radius_x).abs())
        else:
            distance = ((u / radius_y) ** 2 + (v / radius_x) ** 2).sqrt()
        depth = torch.maximum(depth, (1 - distance) * min(radius_y, radius_x) * side / 2)
    return torch.sigmoid(2 * depth)[None, None]


class ClipsAndWeather(ClipDataset):
    """Training clips of grids, and weather among them, which no archive has enough of."""

    def __init__(self, clips: ClipDataset, weather: float) -> None:
        """`clips` are square, of one channel; `weather` is its share among what is drawn, in [0, 1]."""
        self.name, self.clip_shape, self.divided_by = clips.name, clips.clip_shape, clips.divided_by
        self.seen = clips.seen
        self._clips, self._weather = clips, weather

    def __len__(self) -> int:
        return len(self._clips)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        T, _, S, _ = self.clip_shape
        return make_weather(T, S, rng).numpy() if rng.random() < self._weather else self._clips.frames(index, rng)

    def group(self, index: int) -> int:
        return self._clips.group(index)

    def describe(self) -> list[str]:
        return [
            *self._clips.describe(),
            f"{self._weather:.0%} of the clips are weather: made up, it flows, grows and decays",
        ]


class ClipsAndScenes(ClipDataset):
    """Training clips of a folder, in more ways than it has them, and scenes made of their frames.

    A clip may be a part of the frame, enlarged, mirrored either way, lie on its side, or be inverted, darker or of
    another contrast: the network is to learn how things move, not what they look like.
    """

    def __init__(self, clips: ClipDataset, scenes: float, given: int) -> None:
        """Of T frames, 1 + 4 channels each: the frame, and what is taught of it (see `Scene.taught`).

        Args:
            clips: square and gray.
            scenes: the share of scenes among what is drawn, in [0, 1].
            given: how many frames are given.
        """
        T, _, S, _ = clips.clip_shape
        self.name, self.clip_shape, self.divided_by = clips.name, (T, 1 + TAUGHT, S, S), clips.divided_by
        self._clips, self._scenes, self._given = clips, scenes, given

    def __len__(self) -> int:
        return len(self._clips)

    def clip(self, index: int, rng: np.random.Generator) -> ClipArray:
        T, _, S, _ = self.clip_shape
        anything = lambda: int(rng.integers(len(self._clips)))  # noqa: E731
        kind, taught = float(rng.random()), torch.zeros(T, TAUGHT, S, S)
        if kind < _WEATHER * self._scenes:
            frames = make_weather(T, S, rng)
        elif kind < self._scenes:
            scene = make_scene(
                T, S, lambda: self._varied(anything(), rng)[:1], lambda: self._varied(anything(), rng), rng
            )
            frames, taught = scene.frames, scene.taught(self._given)
        else:
            frames = self._varied(index, rng)
        if rng.random() < 0.1:
            frames = 1 - frames
        if rng.random() < 0.3:
            frames = frames ** float(np.exp(rng.normal(0, 0.3))) * float(rng.uniform(0.6, 1.0))
        return torch.cat([frames, taught], 1).numpy()

    def group(self, index: int) -> int:
        return self._clips.group(index)

    def describe(self) -> list[str]:
        return [
            *self._clips.describe(),
            f"{self._scenes:.0%} of the clips are scenes of moving layers made of them, or weather",
        ]

    def _varied(self, index: int, rng: np.random.Generator) -> Tensor:
        """Clip `index`, a part of its frame or turned about: (T, 1, S, S) in [0, 1]."""
        clip = torch.from_numpy(np.ascontiguousarray(self._clips.frames(index, rng)))
        S = clip.shape[-1]
        if rng.random() < 0.5:
            side = int(rng.integers(S * 9 // 16, S + 1))
            top, left = rng.integers(S - side + 1, size=2).tolist()
            part = clip[..., top : top + side, left : left + side]
            clip = F.interpolate(part, size=(S, S), mode="bilinear", align_corners=False)
        if rng.random() < 0.15:
            clip = clip.flip(-2)
        return clip.mT if rng.random() < 0.15 else clip
