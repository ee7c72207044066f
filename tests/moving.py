"""Scenes whose motion is known. Notation: T time, B batch, C channels, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from vmrnn_cli import motion

SIZE = 96


def texture(size: int = SIZE, seed: int = 0, roughness: int = 7) -> Tensor:
    """A picture that shows motion everywhere, (1, 1, size, size) in [0, 1]."""
    noise = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(seed))
    smooth = motion.box_mean(motion.box_mean(noise, roughness), 3)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def panning(velocity: tuple[float, float], frames: int = 24, size: int = SIZE) -> Tensor:
    """A large picture that moves by as many pixels a frame, (dy, dx), as a panning camera sees it. (T, 1, 1, H, W)."""
    world = texture(3 * size)
    scene = []
    for t in range(frames):
        shift = torch.tensor(velocity)[None, :, None, None] * -t
        moved = motion.warp(world, shift.expand(1, 2, 3 * size, 3 * size))
        scene.append(moved[..., size : 2 * size, size : 2 * size])
    return torch.stack(scene)


def disc(centre: tuple[float, float], radius: float, size: int = SIZE) -> Tensor:
    y, x = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    distance = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)[None, None]


def crossing(
    discs: list[tuple[tuple[float, float], tuple[float, float]]], frames: int = 24, radius: float = 13
) -> Tensor:
    """Textured discs, by place and velocity, over a still texture. (T, 1, 1, H, W)."""
    still, scene = 0.6 * texture(seed=1), []
    for t in range(frames):
        frame = still
        for number, (place, velocity) in enumerate(discs):
            to = torch.tensor(velocity) * t
            skin = motion.warp(0.4 + 0.6 * texture(seed=5 + number), -to[None, :, None, None].expand(1, 2, SIZE, SIZE))
            shape = disc((place[0] + float(to[0]), place[1] + float(to[1])), radius)
            frame = shape * skin + (1 - shape) * frame
        scene.append(frame)
    return torch.stack(scene)


def error(forecast: Tensor, truth: Tensor) -> float:
    return float((forecast - truth).square().mean())
