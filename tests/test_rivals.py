"""Forecasts that cost no training."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from moving import error, panning

from vmrnn_cli.rivals import RIVAL_NAMES, RIVALS


def test_every_rival_has_a_name() -> None:
    assert RIVALS.keys() == RIVAL_NAMES.keys()


def test_the_last_frame_is_repeated() -> None:
    given = np.random.default_rng(0).random((2, 4, 1, 8, 8), np.float32)
    forecast = list(itertools.islice(RIVALS["baseline_last_frame"](given, 3), 5))
    assert len(forecast) == 3
    assert all(np.array_equal(frame, given[:, -1]) for frame in forecast)


def test_motion_goes_on_and_stays_within_what_was_given() -> None:
    scene = panning((0.0, 1.5), 16, 64)  # (T, 1, 1, H, W)
    scene *= 1.3 / scene[:10].max()  # a grid that exceeds its divisor
    given, truth = scene[:10].transpose(0, 1).numpy(), scene[10:]
    forecast = torch.from_numpy(np.stack(list(RIVALS["baseline_motion"](given, 6))))
    assert error(forecast, truth) < 0.5 * error(scene[9].expand_as(truth), truth)
    assert 1 < float(forecast.max()) <= given.max() + 1e-6


def test_gradients_are_left_to_whoever_asks() -> None:
    forecast = RIVALS["baseline_motion"](np.zeros((1, 3, 1, 8, 8), np.float32), 3)
    next(forecast)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
