"""A stream is forecast as a clip is, in constant memory."""

from __future__ import annotations

import itertools
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from moving import crossing
from small import D, network

import vmrnn_cli
from vmrnn_cli.carried import Carried
from vmrnn_cli.config import MotionConfig
from vmrnn_cli.errors import InputError
from vmrnn_cli.motion_network import MotionVMRNN
from vmrnn_cli.predictor import Predictor, predict
from vmrnn_cli.rivals import motion_continued
from vmrnn_cli.watching import Watch, watch

SMALL = MotionConfig(embed_dim=16, depths=(1, 1), d_state=2, detail_dim=8, decoder_dim=16)


def motion_network():
    torch.manual_seed(0)
    made = MotionVMRNN(SMALL).eval()
    torch.nn.init.normal_(made.decide.weight, std=0.3)
    return made


def moving(frames):
    return crossing([((48.0, 24.0), (0.5, 1.5))], frames)[:, 0, :, 16:80, :64].numpy()  # (T, 1, 64, 64)


@pytest.mark.parametrize("model", [motion_network(), network(D)], ids=["carries on", "paints"])
def test_a_rollout_is_what_predict_gives_on_the_same_frames(model):
    clip = moving(24)
    known = {step.number: step.rollout for step in watch(clip, weights=model, frames=6, leads=(1, 6)) if step.rollout}
    assert list(known) == [9, 14, 19]
    for number, rollout in known.items():
        forecast = predict(clip, weights=model, context=number + 1, frames=6, size="native")
        assert np.array_equal(np.stack(rollout.forecast), forecast.prediction)
        assert np.array_equal(rollout.last, clip[number])


def test_errors_are_those_that_predict_tells():
    clip, model = moving(20), motion_network()
    steps = list(watch(clip, weights=model, frames=5, leads=(1, 5)))
    forecast = predict(clip[:20], weights=model, context=10, frames=5)
    first, fifth = steps[10], steps[14]
    assert (list(first.error), list(fifth.error)) == ([1], [5])
    frame = forecast.prediction[4]
    assert fifth.error[5] == pytest.approx(float(np.square(frame - clip[14], dtype=np.float64).sum()))
    assert fifth.error_last_frame[5] == pytest.approx(float(np.square(clip[9] - clip[14], dtype=np.float64).sum()))
    continued = list(motion_continued(clip[None, :10], 5))[4][0]
    assert fifth.error_motion[5] == pytest.approx(float(np.square(continued - clip[14]).sum()), rel=1e-4)
    assert all(step.forecast is not None for step in steps[10:])


def test_a_rollout_leaves_no_trace():
    clip = moving(16)
    often, seldom = (list(watch(clip, weights=motion_network(), every=every, frames=5))[14].rollout for every in (1, 5))
    assert np.array_equal(np.stack(often.forecast), np.stack(seldom.forecast))


def test_a_stream_whose_size_changes_begins_anew():
    clip = moving(24)
    steps = list(watch([*clip, *clip[:, :, :48]], weights=motion_network(), frames=5))
    assert [step.number for step in steps if step.rollout] == [9, 14, 19, 34, 39, 44]
    assert all(step.forecast is None for step in steps[24:34])
    assert steps[-1].forecast.shape == (1, 48, 64)


def test_frames_of_many_kinds_are_the_same():
    clip = np.rint(255 * moving(12)).astype(np.uint8)
    kinds = [clip, clip[:, 0], clip / np.float32(255), np.repeat(clip[:, 0, :, :, None], 3, 3)]
    errors = [list(watch(kind, weights=motion_network(), frames=5))[10].error[1] for kind in kinds]
    assert errors[:3] == [errors[0]] * 3
    assert errors[3] == pytest.approx(3 * errors[0], rel=1e-3)
    holed = (clip / np.float32(255)).copy()
    holed[5, 0, 3, 4] = np.nan
    assert np.isfinite(list(watch(holed, weights=motion_network(), frames=5))[10].error[1])


@pytest.mark.parametrize("frame", [np.zeros((2, 3, 4, 5)), np.zeros((8, 8), np.int64), np.full((8, 8), 2.0)])
def test_a_frame_that_cannot_be_used_is_refused(frame):
    with pytest.raises(InputError, match="frame 0 must be"):
        next(watch([frame], weights=motion_network()))


@pytest.mark.parametrize(
    "wrong", [{"every": 0}, {"every": 11}, {"frames": 0}, {"leads": (0,)}, {"alarms_per_hour": 0}, {"fps": 0}]
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError):
        next(watch([], weights=motion_network(), **wrong))


def test_the_package_hands_it_out():
    assert vmrnn_cli.watch is watch


def resident():
    """Bytes that this process has of its own: libraries' pages come and go."""
    pages, shared = (int(field) for field in Path("/proc/self/statm").read_text().split()[1:3])
    return (pages - shared) * resource.getpagesize()


LONG = 100_000 if os.environ.get("VMRNN_SLOW_TESTS") == "1" else 400


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_memory_does_not_grow():
    """With VMRNN_SLOW_TESTS=1 over 100,000 frames, which takes an hour."""
    watching = Watch(Predictor(motion_network(), device="cpu"), frames=5)
    clip = np.ascontiguousarray(moving(24)[:, :, :32, :32])
    first = None
    for number, frame in enumerate(itertools.islice(itertools.cycle([*clip, *clip[::-1]]), LONG)):
        watching.see(frame)
        if number == min(1000, LONG // 2):
            first = resident()
    assert resident() < 1.02 * first + 2**20


def test_what_is_carried_has_one_size():
    carried, sizes = Carried(Predictor(motion_network(), device="cpu")), []
    for frame in moving(24):
        carried.give(frame)
        sizes.append(sum(tensor.nbytes for tensor in tensors(carried)))
    assert len(set(sizes[12:])) == 1


def tensors(thing, seen=None):
    """All tensors that hang on an object."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (torch.nn.Module, Predictor)):
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, (list, tuple, dict)) or hasattr(thing, "__iter__"):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from tensors(part, seen) if not isinstance(part, (str, bytes)) else ()
    elif hasattr(thing, "__dict__"):
        yield from tensors(vars(thing), seen)
