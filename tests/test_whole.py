"""What moves, drawn as one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from moving import SIZE, crossing, disc, error, panning
from torch import Tensor

from vmrnn_cli import motion
from vmrnn_cli.config import MotionConfig
from vmrnn_cli.errors import InputError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.motion_network import MotionVMRNN
from vmrnn_cli.predictor import Predictor
from vmrnn_cli.whole import Things, rehearsed_speed


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


def test_a_speed_is_beside_the_camera() -> None:
    """At a speed of 0 things go on with the camera."""
    frames = panning((0.0, 2.0), 10)
    things = Things(follow(frames), torch.zeros(1, 1, SIZE // 2, SIZE // 2))
    for _ in range(4):
        step = things.step()
    there = step.masks[0, 0, 0] > 0.5
    shift = step.fields[0, 0, motion.HYPOTHESES.index("thing") - 1]
    camera = step.fields[0, 0, motion.HYPOTHESES.index("camera") - 1]
    assert not there.any() or (shift - camera).abs()[:, there].max() < 0.5


def test_a_disc_arrives_whole() -> None:
    """Where it is 10 frames later, as bright as it was; a mean has faded there."""
    clip = crossing([((48, 16), (0, 2.5))], 20)
    given, truth = clip[:10, 0].numpy(), clip[10:, 0]
    torch.manual_seed(0)
    network = MotionVMRNN(MotionConfig((SIZE, SIZE)))
    forecasts = [torch.from_numpy(Predictor(network, whole=whole).batch(given[None], 10)[0]) for whole in (False, True)]
    around = disc((48, 16 + 2.5 * 19), 15)
    mean, whole = (error(around * forecast[-1], around * truth[-1]) for forecast in forecasts)
    assert whole < 0.35 * mean
    still = 1 - around
    assert error(still * forecasts[1][-1], still * truth[-1]) < 1e-3  # and the texture is behind it again


def test_what_was_never_seen_is_not_made_up_anew() -> None:
    """A disc that stood there all the time leaves the network's own picture."""
    things = Things(follow(crossing([((48, 48), (0, 0.0))], 10)))
    assert things.step().masks[0, :, 2].max() < 0.1


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
        Predictor(network, whole=True, dtype=dtype).batch(given[None], 10) for dtype in ("float32", "bfloat16")
    )
    assert np.abs(single - half).max() < 0.01


def test_far_ahead_it_stays_finite_and_within_the_picture() -> None:
    network = MotionVMRNN(MotionConfig((SIZE, SIZE)))
    given = crossing([((48, 16), (0, 2.5)), ((30, 70), (1.0, -2.0))], 10)[:, 0].numpy()
    forecast = Predictor(network, whole=True).batch(given[None], 120)
    assert np.isfinite(forecast).all() and forecast.min() >= 0 and forecast.max() <= 1


def test_a_network_that_paints_has_nothing_to_draw_whole() -> None:
    painter = VMRNN(VMRNNConfig("B", 1, (16, 16), 4, 16, (1,), d_state=2, context=3, horizon=2))
    with pytest.raises(InputError, match="paints its frames"):
        Predictor(painter, whole=True)


def test_the_commands_draw_and_score_them(run, tmp_path) -> None:
    clip = crossing([((48, 16), (0, 2.5))], 20)[:, 0, 0].numpy()
    np.save(tmp_path / "clip.npy", clip)
    np.save(tmp_path / "clips.npy", np.stack([clip] * 2))
    few = ("--frames", 10, "--weights", "vmrnn-d-motion", "--threads", 1, "--json")
    told = {}
    for name, option in (("mean", ()), ("whole", ("--whole",))):
        _, out, _ = run("predict", "clip.npy", "-o", f"{name}.npz", *few, *option)
        drawn = np.load(tmp_path / f"{name}.npz")["prediction"]
        told[name] = json.loads(out)["metrics"]["mse"], float(np.square(drawn[-1, 0] - clip[-1]).sum())
        _, out, _ = run("eval", "--data", "clips.npy", "--split", "all", "--layout", "NTHW", *few, *option)
        assert json.loads(out)["mse"] == pytest.approx(told[name][0], rel=1e-3)
    assert told["whole"][0] < told["mean"][0]
    assert told["whole"][1] < 0.5 * told["mean"][1]
