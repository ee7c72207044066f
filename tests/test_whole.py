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
from vmrnn_cli.whole import Things, rehearsed_speed

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


def test_what_moves_steadily_keeps_its_speed_and_what_turns_round_does_not() -> None:
    steady = rehearsed_speed(follow(crossing([((48, 20), (0, 2.5))], 10)))
    turned = rehearsed_speed(follow(swinging(10, 5)))
    assert steady is not None and turned is not None
    assert at(steady, (48, 42.5)) > 0.9
    assert at(turned, (48, 32.5)) < 0.6


def test_what_was_not_there_yet_in_the_rehearsal_keeps_its_speed() -> None:
    late = rehearsed_speed(follow(crossing([((48, -40), (0, 6.0))], 10)))
    assert late is not None
    assert at(late, (48, 12)) > 0.9


def test_a_speed_is_beside_the_camera() -> None:
    """At a speed of 0 things go on with the camera."""
    frames = panning((0.0, 2.0), 10)
    for t, frame in enumerate(frames):
        shape, to = disc((20 + 2.5 * t, 48), 13), torch.tensor([2.5 * t, 0.0])[None, :, None, None]
        skin = motion.warp(0.4 + 0.6 * texture(seed=5), -to.expand(1, 2, SIZE, SIZE))
        frame.copy_(shape * skin + (1 - shape) * frame)
    known = follow(frames)
    shifts = []
    for speed in (0.0, 1.0):
        things = Things(known, torch.full((1, 1, SIZE // 2, SIZE // 2), speed))
        for _ in range(4):
            step = things.step()
        there = step.masks[0, 0, 0] > 0.9
        assert there.sum() > 100
        thing, camera = (step.fields[0, 0, motion.HYPOTHESES.index(name) - 1] for name in ("thing", "camera"))
        shifts.append((thing - camera)[:, there].mean(1))
    assert shifts[0].abs().max() < 0.5
    assert shifts[1][0] < -6  # backward, by 4 x 2.5 pixels


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
    assert error(still * forecasts[1][-1], still * truth[-1]) < 1e-3  # and the texture is behind it again


def test_what_is_made_up_behind_things_counts_half() -> None:
    known = follow(crossing([((48, 40), (0, 0.8))], 10))  # slow: what is behind its middle is never seen
    things, matter = Things(known), known[-1].matter
    assert matter is not None
    left, was = things.step().masks[0, :, 2], motion.Continuation(known).steps(1).masks[0, :, 2]
    shown = matter.shown()[0]
    for seen, share in ((shown < 0.01, 0.5), (shown > 0.99, 1.0)):
        where = seen & (was > 0.9)
        assert where.sum() > 10
        torch.testing.assert_close(left[where], share * was[where], atol=0.02, rtol=0)


@pytest.mark.parametrize("frames, rehearsed", [(2, False), (3, False), (4, True)])
def test_few_frames(frames: int, rehearsed: bool) -> None:
    known = follow(crossing([((48, 20), (0, 2.5))], frames))
    assert (rehearsed_speed(known) is not None) == rehearsed
    assert Things(known).step().fields.isfinite().all()


def test_clips_of_a_batch_do_not_meet() -> None:
    clips = [crossing([((48, 20), (0, 2.5))], 8), panning((0.0, 2.0), 8)]
    both = Things(follow(torch.cat(clips, 1))).step()
    for number, clip in enumerate(clips):
        alone = Things(follow(clip)).step()
        torch.testing.assert_close(both.fields[:, number : number + 1], alone.fields, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both.masks[:, number : number + 1], alone.masks, atol=1e-4, rtol=1e-4)


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
