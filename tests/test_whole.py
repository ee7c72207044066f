"""What moves, drawn as one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from commands import DIGITS, ROOT, one_error_line
from moving import SIZE, crossing, disc, error, panning, texture
from torch import Tensor

from vmrnn_cli import motion
from vmrnn_cli.config import MotionConfig
from vmrnn_cli.motion_network import MotionVMRNN
from vmrnn_cli.predictor import Predictor
from vmrnn_cli.whole import Layers, Things, rehearsed, set_off, things_in

SCENE = ROOT / "examples" / "scene.mp4"


def follow(frames: Tensor) -> list[motion.Followed]:
    return motion.follow(frames, motion.find_matches(frames))


def swinging(frames: int, turn: int) -> Tensor:
    """A disc over a still texture that comes and, from one frame on, goes back where it came from."""
    there = crossing([((48, 30), (0, 2.5))], turn + 1)
    return torch.cat([there, there.flip(0)[1:]])[:frames]


def at(values: Tensor, place: tuple[float, float], radius: float = 8) -> float:
    """Mean of (1, 1, h, w) on the half grid around a place of the frame."""
    weight = disc((place[0] / 2, place[1] / 2), radius / 2, SIZE // 2)
    return float((weight * values).sum() / weight.sum())


def velocities(known: list[motion.Followed], matte: Tensor, speed: Tensor) -> Tensor:
    """Of things, in pixels of the frame, without what goes on beyond it: (1, 2, h, w)."""
    margin = SIZE // 2 // 16
    return 2 * set_off(known[-1], matte, speed).moving.velocity[..., margin:-margin, margin:-margin]


def speed_and_worth(frames: Tensor) -> tuple[Tensor, Tensor]:
    known = follow(frames)
    return rehearsed(known, Layers.of(known).matte)


def test_what_moves_steadily_keeps_its_speed_and_what_turns_round_does_not() -> None:
    steady, worth = speed_and_worth(crossing([((48, 20), (0, 2.5))], 10))
    turned, _ = speed_and_worth(swinging(10, 5))
    assert at(steady, (48, 42.5)) > 0.9 and at(worth, (48, 42.5)) == 1
    assert at(turned, (48, 32.5)) < 0.6


def test_what_was_not_there_yet_in_the_rehearsal_keeps_its_speed() -> None:
    late, _ = speed_and_worth(crossing([((48, -40), (0, 6.0))], 10))
    assert at(late, (48, 12)) > 0.9


def test_what_the_rehearsal_did_not_bear_out_is_left_to_the_network() -> None:
    """What flows behind a window, as stairs that move do, doesn't leave it as a thing would."""
    clip = 0.6 * texture(seed=1)[None].repeat(10, 1, 1, 1, 1)
    clip[..., 30:66, 24:72] = 0.3 + 0.7 * panning((0.0, 2.0), 10)[..., 30:66, 24:72]
    known = follow(clip)
    matte = Layers.of(known).matte
    _, worth = rehearsed(known, matte)
    assert at(matte, (48, 48)) > 0.9 and at(worth, (48, 48)) == 0


def test_specks_are_no_things() -> None:
    """Nor go along with one that is far away."""
    matte = torch.zeros(1, 48, 48)
    matte[0, 10:20, 10:20] = matte[0, 30:33, 40:42] = 1
    matte[0, 40, 5:10] = 1
    assert things_in(matte).sum((1, 2)).tolist() == [100, 6]
    clip = crossing([((68, 20), (0, 2.5))], 10)
    for t in range(10):
        clip[t] = torch.lerp(clip[t], torch.ones(()), disc((20, 20 + 3 * t), 1.2))
    assert float(Layers.of(follow(clip)).matte[..., 6:14, :].max()) == 0


def test_what_fills_the_picture_is_no_thing() -> None:
    """A disc that hides more than a third of it may as well be the camera's motion."""
    clip = crossing([((48, 44), (0, 2.0))], 10, radius=38)
    known = follow(clip)
    matte = Layers.of(known).matte
    _, worth = rehearsed(known, matte)
    assert float(matte.mean()) > 0.35 and float((matte * worth).mean()) < 0.02


def test_a_speed_is_beside_the_camera() -> None:
    """At a speed of 0 things go on with the camera."""
    frames = panning((0.0, 2.0), 10)
    for t, frame in enumerate(frames):
        shape, to = disc((20 + 2.5 * t, 48), 13), torch.tensor([2.5 * t, 0.0])[None, :, None, None]
        skin = motion.warp(0.4 + 0.6 * texture(seed=5), -to.expand(1, 2, SIZE, SIZE))
        frame.copy_(shape * skin + (1 - shape) * frame)
    known = follow(frames)
    matte, camera = Layers.of(known).matte, known[-1].matter
    assert camera is not None
    shifts = []
    for speed in (0.0, 1.0):
        velocity = velocities(known, matte, torch.full_like(matte, speed))
        there = matte[0, 0] > 0.9
        assert there.sum() > 100
        shifts.append((velocity + 2 * camera.camera)[0][:, there].mean(1))
    assert shifts[0].abs().max() < 0.1
    # The picture moves by 2 to the right, and the disc does not.
    assert shifts[1].tolist() == pytest.approx([2.5, -2.0], abs=0.4)


def test_what_is_behind_is_seen_in_hindsight() -> None:
    """Also where the thing stood in the first frames, in which nothing could tell yet that it moves."""
    behind = 0.6 * texture(seed=1)  # as in `crossing`
    clip = crossing([((48, 24), (0, 3.5))], 10)
    known = follow(clip)
    layers = Layers.of(known)
    torch.testing.assert_close(layers.shares.sum(0), torch.ones_like(layers.matte))
    plate = layers.plate(list(clip))
    assert float(((plate - behind) * disc((48, 24), 15)).abs().mean() / disc((48, 24), 15).mean()) < 0.02
    clean, _ = layers.without(list(clip), layers.matte)
    gone = disc((48, 24 + 3.5 * 9), 10)
    assert error(gone * clean, gone * behind) < 0.1 * error(gone * clip[-1], gone * behind)
    hidden = motion.halve(disc((48, 24 + 3.5 * 9), 13))
    assert float((layers.matte * hidden).sum() / hidden.sum()) > 0.9


def test_what_goes_on_without_an_edge_is_no_thing() -> None:
    """A dark square over a plain wall: nothing of the wall goes along."""
    clip = torch.full((10, 1, 1, SIZE, SIZE), 0.8)
    for t in range(10):
        clip[t, ..., 40:60, 10 + 4 * t : 30 + 4 * t] = 0.2
    matte = Layers.of(follow(clip)).matte
    square = torch.zeros_like(matte)
    square[..., 20:30, 23:33] = 1
    assert float((matte * square).sum() / square.sum()) > 0.95
    assert float((matte * (1 - square)).sum()) < 0.3 * float(square.sum())


def test_things_that_do_not_touch_go_their_own_ways() -> None:
    """A fast one does not take a slow one along."""
    known = follow(crossing([((24, 16), (0, 3.5)), ((72, 60), (0, -1.0))], 10))
    matte = Layers.of(known).matte
    assert len(things_in(matte[0])) == 2
    velocity = velocities(known, matte, torch.ones_like(matte))
    for place, speed in (((24, 47.5), 3.5), ((72, 51), -1.0)):
        assert at(velocity[:, 1:], place) == pytest.approx(speed, rel=0.15)
        assert abs(at(velocity[:, :1], place)) < 0.2


def test_a_thing_that_comes_in_goes_on_a_little_beyond_the_edge() -> None:
    """By 3 of the 5 places that it has come in: it did not end at the edge."""
    clip = crossing([((48, -16), (0, 2.5))], 10)
    things = Things(follow(clip), list(clip))
    for _ in range(4):
        things.going = things.going.next()
    assert things.going.moving.mask.shape[-2:] == (SIZE // 2 + 6, SIZE // 2 + 6)
    across = things.going.moving.mask[0, 0, 27, 3:]
    assert float(across[0]) < 0.1 and float(across[2:8].min()) > 0.7


def test_a_thing_that_comes_nearer_grows() -> None:
    clip = 0.6 * texture(seed=1)[None].repeat(10, 1, 1, 1, 1)
    places = motion.positions(SIZE, SIZE, clip)
    for t, frame in enumerate(clip):
        scale, centre = 1.04**t, torch.tensor([47.5, 24.0 + 2 * t])[:, None, None]
        skin = motion.warp(0.4 + 0.6 * texture(seed=5), (places - centre) / scale + 47.5 - places)
        shape = disc((47.5, 24.0 + 2 * t), 20 * scale)
        frame.copy_(shape * skin + (1 - shape) * frame)
    known = follow(clip)
    matte = Layers.of(known).matte
    going = set_off(known[-1], matte, torch.ones_like(matte))
    for _ in range(10):
        going = going.next()
    assert at(going.moving.mask[..., 3:-3, 3:-3], (47.5, 62), 20) > 0.97  # and does not grow thin
    velocity = velocities(known, matte, torch.ones_like(matte))
    rear, front = (at(velocity[:, 1:], (47.5, 42 + along), 4) for along in (-16, 16))
    assert 0.15 * 32 * 0.04 < front - rear < 1.1 * 32 * 0.04


def test_a_disc_arrives_whole() -> None:
    """Where it is 10 frames later, as bright as it was; a mean has faded there."""
    clip = crossing([((48, 16), (0, 2.5))], 20)
    given, truth = clip[:10, 0].numpy(), clip[10:, 0]
    torch.manual_seed(0)
    network = MotionVMRNN(MotionConfig((SIZE, SIZE)))
    predictor = Predictor(network)
    forecasts = [torch.from_numpy(predictor.batch(given[None], 10, whole=whole)[0]) for whole in (False, True)]
    around = disc((48, 16 + 2.5 * 19), 15)
    mean, whole = (error(around * forecast[-1], around * truth[-1]) for forecast in forecasts)
    assert whole < 0.35 * mean
    still = 1 - around
    assert error(still * forecasts[1][-1], still * truth[-1]) < 1.5e-3  # and the texture is behind it again


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_few_frames(frames: int) -> None:
    clip = crossing([((48, 20), (0, 2.5))], frames)
    known = follow(clip)
    speed, _ = rehearsed(known, Layers.of(known).matte)
    if frames < 4:
        assert speed.min() == 1
    things = Things(known, list(clip))
    for each in things.going.next().moving:
        assert each.isfinite().all()


@pytest.mark.parametrize("size", [(2, 2), (2, 40), (7, 9), (33, 50)])
def test_small_and_odd_sizes(size: tuple[int, int]) -> None:
    clip = torch.rand(6, 1, 1, *size, generator=torch.Generator().manual_seed(0))
    forecast = Predictor(MotionVMRNN(MotionConfig((SIZE, SIZE)))).batch(clip[None, :, 0].numpy(), 4, whole=True)
    assert forecast.shape == (1, 4, 1, *size) and np.isfinite(forecast).all()


def test_clips_of_a_batch_do_not_meet() -> None:
    clips = [crossing([((48, 20), (0, 2.5))], 8), panning((0.0, 2.0), 8)]
    both = Things(follow(torch.cat(clips, 1)), list(torch.cat(clips, 1)))
    for number, clip in enumerate(clips):
        alone = Things(follow(clip), list(clip))
        for got, expected in zip(both.going.moving, alone.going.moving, strict=True):
            torch.testing.assert_close(got[number : number + 1], expected, atol=1e-4, rtol=1e-4)


def test_it_is_measured_in_float32_whatever_the_network_runs_in() -> None:
    network = MotionVMRNN(MotionConfig((SIZE, SIZE)))
    given = crossing([((48, 16), (0, 2.5))], 10)[:, 0].numpy()
    single, half = (
        Predictor(network, dtype=dtype).batch(given[None], 10, whole=True) for dtype in ("float32", "bfloat16")
    )
    assert np.abs(single - half).max() < 0.01


def test_far_ahead_it_stays_finite_and_within_the_picture() -> None:
    network = MotionVMRNN(MotionConfig((SIZE, SIZE)))
    given = crossing([((48, 16), (0, 2.5)), ((30, 70), (1.0, -2.0))], 10)[:, 0].numpy()
    forecast = Predictor(network).batch(given[None], 120, whole=True)
    assert np.isfinite(forecast).all() and forecast.min() >= 0 and forecast.max() <= 1


def test_frames_that_come_one_by_one_are_those_of_a_batch_and_scored_is_the_mean() -> None:
    predictor = Predictor(MotionVMRNN(MotionConfig((SIZE, SIZE))))
    given = crossing([((48, 16), (0, 2.5))], 10)[:, 0].numpy()
    outputs = list(predictor.stream(list(given), 20, whole=True))
    for name, whole in (("frame", False), ("picture", True)):
        drawn = np.stack([getattr(output, name) for output in outputs])
        np.testing.assert_allclose(drawn, predictor.batch(given[None], 20, whole=whole)[0], atol=1e-5)


def test_a_network_that_paints_has_nothing_to_draw_whole(run) -> None:
    code, _, err = run("predict", DIGITS, "--whole", "-o", "out.png")
    assert code == 2 and "cannot draw what moves as one" in one_error_line(err)
    code, _, err = run("eval", "--data", DIGITS, "--split", "all", "--weights", "vmrnn-d-mmnist-small", "--whole")
    assert code == 2 and "cannot draw what moves as one" in one_error_line(err)


def test_the_commands_draw_and_score_them(run, tmp_path) -> None:
    clip = crossing([((48, 16), (0, 2.5))], 20)[:, 0, 0].numpy()
    np.save(tmp_path / "clip.npy", clip)
    np.save(tmp_path / "clips.npy", np.stack([clip] * 2))
    few = ("--frames", 10, "--weights", "vmrnn-d-motion", "--threads", 1, "--json")
    told, scored = {}, {}
    for name, option in (("mean", ()), ("whole", ("--whole",))):
        _, out, _ = run("predict", "clip.npy", "-o", f"{name}.npz", *few, *option)
        told[name] = json.loads(out)
        told[name]["error"] = float(np.square(np.load(tmp_path / f"{name}.npz")["prediction"][:, 0] - clip[10:]).sum())
        _, out, _ = run("eval", "--data", "clips.npy", "--split", "all", "--layout", "NTHW", *few, *option)
        scored[name] = json.loads(out)["mse"]
        assert json.loads(out)["whole"] == bool(option)
        assert scored[name] == pytest.approx(told[name]["error"] / 10, rel=1e-3)
    assert [told[name]["whole"] for name in told] == [False, True]
    assert told["whole"]["metrics"] == told["mean"]["metrics"]
    assert scored["whole"] < 0.7 * scored["mean"]


def test_footage_is_drawn_whole_unless_it_is_said_otherwise(run, tmp_path) -> None:
    few = ("--frames", 6, "--threads", 1, "--size", 64, "--json")
    drawn, told = {}, {}
    for name, options in (("default", ()), ("whole", ("--whole",)), ("mean", ("--no-whole",)), ("gray", ("--gray",))):
        _, out, _ = run("predict", SCENE, "-o", f"{name}.npz", *few, *options)
        told[name], drawn[name] = json.loads(out), np.load(tmp_path / f"{name}.npz")["prediction"]
    np.testing.assert_array_equal(drawn["default"], drawn["whole"])
    assert np.abs(drawn["default"] - drawn["mean"]).max() > 0.1
    assert [told[name]["whole"] for name in told] == [True, True, False, True]
    assert told["default"]["metrics"] == told["mean"]["metrics"] == told["gray"]["metrics"]


def test_slices_of_a_grid_and_pages_are_drawn_whole(run, tmp_path) -> None:
    few = ("--frames", 3, "--context", 6, "--threads", 1, "--weights", "vmrnn-d-motion", "--json")
    drawn = {}
    for name, option in (("mean", ()), ("whole", ("--whole",))):
        code, out, err = run("predict", ROOT / "examples" / "traffic.nc", "-o", f"{name}.npz", *few, *option)
        assert code == 0, err
        drawn[name] = np.load(tmp_path / f"{name}.npz")["prediction"]
    assert drawn["whole"].shape == drawn["mean"].shape and np.isfinite(drawn["whole"]).all()
    assert run("predict", SCENE, "-o", "page.html", "--frames", 3, "--size", 64, "--threads", 1)[0] == 0
    assert "drawn whole" in (tmp_path / "page.html").read_text()
