"""Scenes of moving layers."""

from __future__ import annotations

import numpy as np
import torch
from small import ready_clips

from vmrnn_cli import motion
from vmrnn_cli.data import ClipDataset
from vmrnn_cli.data.scenes import TAUGHT, ClipsAndScenes, make_scene, make_weather

T, S = 8, 32


def still_clips(count: int = 6) -> ClipDataset:
    """Clips in which nothing moves, each of its own texture."""
    frames = np.random.default_rng(0).integers(0, 256, (count, 1, 1, S, S), np.uint8)
    return ready_clips(np.repeat(frames, T, axis=1), T)


def test_scenes_move_where_their_clips_do_not() -> None:
    clips = still_clips()
    scenes = ClipsAndScenes(clips, 1.0, 4)
    assert (len(scenes), scenes.clip_shape) == (len(clips), (T, 1 + TAUGHT, S, S))
    moved = 0
    for index in range(6):
        scene = scenes.clip(index, np.random.default_rng(index))
        assert scene.shape == (T, 1 + TAUGHT, S, S) and scene.dtype == np.float32
        scene = scene[:, :1]
        assert scene.min() >= 0 and scene.max() <= 1
        moved += float(np.abs(np.diff(scene, axis=0)).mean()) > 0.01
    assert moved >= 4  # a layer may stand still, too, and so may weather


def test_without_scenes_clips_stay_still_and_become_more() -> None:
    varied = ClipsAndScenes(still_clips(), 0.0, 4)
    drawn = [varied.clip(0, np.random.default_rng(seed)) for seed in range(8)]
    assert all(np.abs(np.diff(clip, axis=0)).max() < 1e-5 for clip in drawn)
    assert len({clip.tobytes() for clip in drawn}) >= 6


def test_a_scene_is_its_generators_alone() -> None:
    scenes = ClipsAndScenes(still_clips(), 1.0, 4)
    one, same, other = (scenes.clip(2, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_layers_lie_over_the_background_and_leave_the_rest_as_it_is() -> None:
    black, white = torch.zeros(T, 1, S, S), torch.ones(1, 1, S, S)
    for seed in range(40):
        scene = make_scene(T, S, lambda: white, lambda: black, np.random.default_rng(seed)).frames
        if float(scene.min()) == 0:  # this one has the clip for its background, and no noise
            covered = (scene > 0.5).float().mean((1, 2, 3))
            assert 0 < float(covered.max()) < 1
            return
    raise AssertionError("no scene of forty has the clip for its background")


def test_what_is_taught_of_a_scene_is_where_its_places_were() -> None:
    """Drawn from the last given frame along what is taught, the frames ahead are as they are, where that is known."""
    given, known, moving = 4, 0, 0
    for seed in range(12):
        still, scene = _smooth_texture(seed), None
        scene = make_scene(T, 64, lambda: still, lambda: still.expand(T, -1, -1, -1), np.random.default_rng(seed))  # noqa: B023
        taught = scene.taught(given)
        assert taught.shape == (T, TAUGHT, 64, 64) and not taught[:given].any()
        displacement, seen = taught[given:, :2], taught[given:, 2:3] * taught[given:, 3:]
        last = scene.frames[given - 1].expand(T - given, -1, -1, -1)
        inner = seen * (-torch.nn.functional.max_pool2d(-seen, 7, 1, 3))  # edges are soft
        off = ((motion.warp(last, displacement) - scene.frames[given:]).abs() * inner).sum() / inner.sum().clamp(min=1)
        assert off < 0.02, seed
        moved = inner * (displacement.norm(dim=1, keepdim=True) > 1)
        known, moving = known + float(inner.sum()), moving + float(moved.sum())
    assert moving > 0.2 * known > 0


def _smooth_texture(seed: int) -> torch.Tensor:
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    return motion.box_mean(motion.box_mean(noise, 7), 5)


def test_weather_drifts_and_changes_as_it_goes() -> None:
    """Some of it stands still; where it moves, the motion found explains most of the change, and not all of it."""
    explained = []
    for seed in range(8):
        clip = make_weather(10, 64, np.random.default_rng(seed))
        assert clip.shape == (10, 1, 64, 64) and float(clip.min()) >= 0 and float(clip.max()) <= 1
        before, now = clip[8:9], clip[9:]
        change = float((now - before).square().mean())
        found = motion.refine(motion.match(now, before), now, before)
        left = float((now - motion.warp(before, motion.resize(found, 64, 64)))[..., 8:-8, 8:-8].square().mean())
        if change > 1e-3:
            explained.append(left / change)
    assert len(explained) >= 2 and np.median(explained) < 0.5 and min(explained) > 0
