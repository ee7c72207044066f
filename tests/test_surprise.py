"""What surprises is told from what does not, on scenes in which it is known what happens."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
from moving import texture

from vmrnn_cli.surprise import Event, Events, Reading, Surprise, pooled

SIDE, LENGTH, AT = 96, 110, 70


def scene(seed=0, velocity=1.5, times=range(LENGTH)):
    """A camera that pans over a picture, with noise, as (T, H, W)."""
    world = texture(2 * SIDE + 200, seed)[0, 0].numpy()
    noise = 0.01 * np.random.default_rng(seed).standard_normal((LENGTH, SIDE, SIDE), np.float32)
    steps = [math.floor(40 + velocity * t) for t in times]
    return np.clip(0.1 + 0.8 * np.stack([world[30 : 30 + SIDE, x : x + SIDE] for x in steps]) + noise, 0, 1)


def with_disc(frames, start, contrast=1.0):
    """A disc with a skin of its own is there from one frame on, and hides so much of what is behind."""
    y, x = np.mgrid[:SIDE, :SIDE]
    shape = np.hypot(y - 50, x - 40) < 11
    skin = np.where(frames[start][50, 40] < 0.5, 0.55, 0.0) + 0.4 * texture(SIDE, 9, 3)[0, 0].numpy()
    changed = frames.copy()
    changed[start:, shape] += contrast * (skin[shape] - changed[start:, shape])
    return changed


def watched(frames, velocity=1.5, every=5):
    """Frames with an alarm, where forecasts are the last frame known to them, moved on by so much a frame."""
    surprise, readings = Surprise(25.0, 1.0), []
    frames = frames.astype(np.float32)
    for t in range(1, len(frames)):
        known = (t - 1) // every * every
        forecast = np.roll(frames[known], -round(velocity * (t - known)), 1)
        readings.append(surprise.see(frames[t], forecast, frames[known]))
    assert all(reading.alarm == pytest.approx(math.log10(25 * 3600)) for reading in readings)
    return [t for t, reading in enumerate(readings, 1) if (reading.surprise or 0) > reading.alarm]


def test_nothing_happens_and_nothing_is_told():
    assert watched(scene()) == []


def test_a_cut_is_told_when_it_comes():
    found = watched(np.concatenate([scene()[:AT], scene(seed=3)[AT:]]))
    assert found[0] == AT


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_restless_scene_is_told_once_and_hides_no_cut_after_it(seed):
    """It moves by three cells a frame, which neither a forecast nor the frame before explains."""
    rng, world = np.random.default_rng(seed), 0.1 + 0.8 * texture(SIDE, seed)[0, 0].numpy()
    restless = [np.roll(world, 9 * t, 1) + 0.01 * rng.standard_normal(world.shape) for t in range(60)]
    frames = np.concatenate([scene()[:60], restless, scene(seed + 20)[:40], scene(seed + 10)[:20]])
    assert watched(frames, velocity=0) == [60, 160]


def test_what_appears_is_told_when_it_comes():
    assert watched(with_disc(scene(), AT))[0] == AT


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_appears_in_a_busy_scene_is_told_though_its_contrast_is_moderate(seed):
    frames = scene(seed)
    frames[:, 70:90, 70:90] = scene(seed + 7, velocity=2.3)[:, 70:90, 70:90]  # something restless beside it
    quiet = watched(frames)
    assert AT in watched(with_disc(frames, AT, 0.6))
    assert quiet == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_appears_is_told_though_all_else_moves_faster_than_is_foreseen(seed):
    """Much is left of all that moves, so nothing but where it is tells the disc."""
    rng, world = np.random.default_rng(seed), 0.1 + 0.8 * texture(SIDE, seed)[0, 0].numpy()
    frames = np.stack([np.roll(world, -4 * t, 1) + 0.01 * rng.standard_normal(world.shape) for t in range(LENGTH)])
    quiet = watched(frames, velocity=0)
    assert watched(with_disc(frames, AT), velocity=0) == [AT + 1]
    assert quiet == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_appears_soon_after_the_camera_jerked_is_told(seed):
    """The jerk is told like a cut, and what was known of the scene has to be learned again."""
    jerk = AT - 7
    frames = scene(seed, times=[*range(jerk), *range(jerk + 20, LENGTH + 20)])
    frames[:, 70:90, 70:90] = scene(seed + 7, velocity=2.3)[:, 70:90, 70:90]  # something restless beside it
    quiet = watched(frames)
    assert watched(with_disc(frames, AT, 0.6)) == [jerk, AT + 1]
    assert quiet == [jerk]


def test_a_reversal_is_told_soon():
    """The noise is another one: it is the motion that goes back."""
    found = watched(scene(times=[*range(AT), *range(AT - 2, 2 * AT - LENGTH - 2, -1)]))
    assert AT < found[0] <= AT + 8


@pytest.mark.parametrize("seed", [0, 1])
def test_a_reversal_is_told_though_next_to_nothing_moves(seed):
    """What moves differs by four of 255 levels from a picture that stands still."""
    behind, (y, x) = 0.2 + 0.5 * texture(SIDE, seed)[0, 0].numpy(), np.mgrid[:SIDE, :SIDE]
    frames = np.stack([behind + 0.016 * (np.hypot(y - 50, x + 15 - t) < 8) for t in range(LENGTH)])
    frames = np.rint(255 * frames) / 255
    back = np.concatenate([frames[:AT], frames[AT - 2 : 2 * AT - LENGTH - 2 : -1]])
    assert AT < min(watched(back, velocity=0), default=0) <= AT + 8
    assert watched(frames, velocity=0) == []


def test_a_freeze_is_told_soon():
    frames = scene()
    frames[AT:] = frames[AT - 1]
    found = watched(frames)
    assert AT < found[0] <= AT + 20


@pytest.mark.parametrize(
    ("name", "light"),
    [
        ("fade", lambda t: np.clip(1 - t / 25, 0.1, 1)),
        ("blackout and back", lambda t: np.clip(np.abs(t - 18) / 15 - 0.1, 0, 1)),
        ("flicker", lambda t: 1 + 0.15 * np.random.default_rng(1).uniform(-1, 1, len(t))),
        ("lamp", lambda t: 1 - 0.3 * (t >= 2)),
    ],
)
def test_light_is_no_event(name, light):
    frames = scene()
    frames[AT:] *= light(np.arange(LENGTH - AT))[:, None, None]
    assert watched(np.rint(255 * frames.clip(0, 1)) / 255) == [], name


@pytest.mark.parametrize(("gain", "least", "seed"), [(2.0, 0.4, 0), (2.0, 0.4, 2), (2.5, 0.2, 4), (2.5, 0.4, 4)])
def test_light_that_is_cut_off_at_white_is_no_event(gain, least, seed):
    frames = least + (1 - least) * scene(seed)
    frames[AT:] *= np.clip(1 + (gain - 1) * np.arange(LENGTH - AT) / 5, 1, gain)[:, None, None]
    assert np.mean(frames[-1] > 1) > 0.3
    assert watched(np.rint(255 * frames.clip(0, 1)) / 255) == []


@pytest.mark.parametrize(("gain", "offset", "seed"), [(1.0, -0.4, 4), (0.7, -0.35, 2)])
def test_light_that_is_cut_off_at_black_is_no_event(gain, offset, seed):
    frames, far = 0.8 * scene(seed), np.clip(np.arange(LENGTH - AT) / 5, 0, 1)[:, None, None]
    frames[AT:] = (1 + (gain - 1) * far) * frames[AT:] + far * offset
    assert np.mean(frames[-1] < 0) > 0.3
    assert watched(np.rint(255 * frames.clip(0, 1)) / 255) == []


def test_noise_is_no_event():
    frames = scene()
    frames[AT:] += 0.05 * np.random.default_rng(2).standard_normal(frames[AT:].shape)
    assert watched(frames.clip(0, 1)) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_is_no_event_where_nothing_ever_stirred(seed):
    """What comes into such a picture is."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(0.2 + 0.2 * texture(SIDE, seed)[0].numpy(), 130, 0)
    frames[60:] += 0.04 * rng.standard_normal(frames[60:].shape)
    frames[100:, 40:56, 30:46] = 0.8
    assert watched(np.rint(255 * frames.clip(0, 1)) / 255, velocity=0) == [100, 101]


def test_more_alarms_an_hour_are_asked_for_by_a_lower_number():
    assert Surprise(25.0, 60.0).alarm < Surprise(25.0, 1.0).alarm < Surprise(25.0, 0.01).alarm
    assert Surprise(1.0, 3600.0).alarm == pytest.approx(math.log10(2))


def test_heat_is_where_it_happens():
    frames, surprise = with_disc(scene(velocity=0), AT), Surprise(25.0)
    for t in range(1, AT + 1):
        frame, before = frames[t].astype(np.float32), frames[t - 1].astype(np.float32)
        heat = surprise.see(frame, before, before).heat
    hottest = np.unravel_index(np.argmax(heat), heat.shape)
    size = SIDE // heat.shape[0]
    assert math.hypot(hottest[0] * size - 50, hottest[1] * size - 40) < 14


def test_pooled_takes_means():
    frame = np.arange(42, dtype=np.float32).reshape(6, 7)
    assert pooled(frame, 3).tolist() == [[frame[:3, :3].mean(), frame[:3, 3:6].mean()],
                                         [frame[3:, :3].mean(), frame[3:, 3:6].mean()]]  # fmt: skip


def test_events_begin_above_one_number_and_end_below_another():
    events, told = Events(patience=3), []
    for frame, surprise in enumerate([None, 1, 2, 5, 9, 5, 3.5, 3.5, 1, 2, 1, 1, 6]):
        changed = events.see(frame, frame / 10, Reading(surprise, 4.0, 3.0, np.zeros((1, 1), np.float32)))
        told.append(None if changed is None else (changed.number, changed.end))
    assert {n: each for n, each in enumerate(told) if each} == {3: (1, None), 10: (1, 7), 12: (2, None)}
    assert events.now is not None and events.count == 2
    assert events.finish() == Event(2, 12, 12, 6, 1.2, 12)
    assert events.finish() is None


def test_what_is_kept_of_a_stream_has_one_size():
    """However long it is, and however many events there were; what is kept of a scene alone is small."""
    surprise, events, sizes = Surprise(25.0, 3600.0), Events(2), []
    frames = np.concatenate([scene(seed)[:40] for seed in range(8)]).astype(np.float32)
    for number, (before, frame) in enumerate(itertools.pairwise(frames)):
        events.see(number, number / 25, surprise.see(frame, before, before))
        sizes.append(len(pickle.dumps((surprise, events))))
    assert events.count >= 5
    assert max(sizes[100:]) - sizes[100] < 1000
