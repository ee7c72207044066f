"""Metrics in their right and their published conventions."""

from __future__ import annotations

import math
import os
import pickle
import sys
import types

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vmrnn_cli import metrics
from vmrnn_cli.errors import InputError, VMRNNError


def frames(channels=1, side=24, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((channels, side, side)).astype(np.float32)
    return np.clip(truth + 0.1 * rng.standard_normal(truth.shape), 0, 1).astype(np.float32), truth


def test_mse_and_mae_are_sums_over_a_frame():
    a, b = np.zeros((2, 3, 4), np.float32), np.full((2, 3, 4), 0.5, np.float32)
    assert metrics.mse(a, b) == pytest.approx(24 * 0.25)
    assert metrics.mae(a, b) == pytest.approx(24 * 0.5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_psnr_and_ssim_are_those_of_everybody(channels):
    a, b = frames(channels)
    assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), rel=1e-5)
    assert metrics.ssim(a, b) == pytest.approx(structural_similarity(a, b, data_range=1, channel_axis=0))


def test_published_conventions_are_kept_apart():
    a, b = frames()
    assert metrics.ssim_published(a, b) == pytest.approx(structural_similarity(a, b, data_range=2, channel_axis=0))
    assert metrics.ssim_published(a, b) > metrics.ssim(a, b)
    # 10 - 250 is 16 in uint8, and 16 squared is 0: the published PSNR does not see the largest errors.
    dark, bright = np.full((1, 8, 8), 10 / 255, np.float32), np.full((1, 8, 8), 250.2 / 255, np.float32)
    assert metrics.psnr_published(dark, bright) == math.inf
    assert metrics.psnr(dark, bright) < 1
    small = b + np.float32(3.2 / 255)
    assert metrics.psnr_published(small, b) == pytest.approx(20 * math.log10(255 / 3), abs=1)


def test_a_truth_above_one_is_missed_by_as_much():
    guess, truth = np.full((1, 8, 8), 1, np.float32), np.full((1, 8, 8), 1.5, np.float32)
    assert (metrics.mse(guess, truth), metrics.mae(guess, truth)) == (16, 32)
    assert metrics.psnr_published(guess, truth) == math.inf  # of uint8 images, which end at 1


def test_small_and_equal_frames():
    a, b = frames(side=5)
    assert 0 < metrics.ssim(a, b) < 1
    assert math.isnan(metrics.ssim(a[:, :2], b[:, :2]))
    assert metrics.psnr(a, a) == math.inf
    score = metrics.Score()
    assert score.means() is None
    score.add(a, a)
    assert score.means() == {"mse": 0.0, "ssim": pytest.approx(1.0), "psnr": None}


@pytest.mark.parametrize(
    ("failure", "says"),
    [(OSError("no route to host\nmore"), "no route to host"), (pickle.UnpicklingError("code"), "no weights file")],
)
def test_lpips_weights_are_never_unpickled(monkeypatch, failure, says):
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(variable, raising=False)

    def load(net_type):
        assert (net_type, os.environ[variable]) == ("alex", "1")
        raise failure

    for name in ("torchvision", "torchmetrics", "torchmetrics.image", "torchmetrics.image.lpip"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchmetrics.image.lpip"].LearnedPerceptualImagePatchSimilarity = load
    with pytest.raises(VMRNNError, match=says) as caught:
        metrics.lpips_network()
    assert "\n" not in str(caught.value)
    assert variable not in os.environ


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 31, 64)])
def test_frames_that_have_no_lpips(shape):
    with pytest.raises(InputError, match="LPIPS"):
        metrics.check_lpips_frames(shape)


def test_sharpness_is_that_of_the_truth_at_1_and_falls_with_blur():
    truth = np.random.default_rng(0).random((1, 16, 16), np.float32)
    assert metrics.sharpness(truth, truth) == 1
    blurred = (truth + np.roll(truth, 1, 1) + np.roll(truth, 1, 2)) / 3
    assert 0.3 < metrics.sharpness(blurred, truth) < 0.9
    assert metrics.sharpness(2 * truth, truth) == pytest.approx(2)
    flat = np.zeros_like(truth)
    assert metrics.sharpness(flat, flat) == 1
    assert metrics.sharpness(truth, flat) == math.inf


def test_what_is_missing_of_the_truth_is_left_out():
    random = np.random.default_rng(0)
    truth, prediction = random.random((2, 1, 16, 16)).astype(np.float32)
    gaps = truth.copy()
    gaps[0, :8, :4] = np.nan
    known = ~np.isnan(gaps)
    error = prediction[known].astype(np.float64) - truth[known]
    assert metrics.mse(prediction, gaps) == pytest.approx(np.square(error).sum())
    assert metrics.mae(prediction, gaps) == pytest.approx(np.abs(error).sum())
    assert metrics.psnr(prediction, gaps) == pytest.approx(-10 * np.log10(np.square(error).mean()))
    wild = np.where(known, prediction, np.float32(7))  # what stands where nothing is known changes no score
    for name in ("mse", "mae", "psnr", "ssim", "sharpness", "ssim_published", "psnr_published"):
        metric = getattr(metrics, name)
        assert np.isfinite(metric(prediction, gaps))
        assert metric(wild, gaps) == metric(prediction, gaps) != metric(prediction, truth)
        assert np.isnan(metric(prediction, np.full_like(truth, np.nan)))
    assert metrics.ssim(np.nan_to_num(gaps), gaps) == pytest.approx(1)
    score = metrics.Score()
    score.add(prediction, np.full_like(truth, np.nan))
    assert score.means() is None
    score.add(prediction, gaps)
    assert score.means()["mse"] == metrics.mse(prediction, gaps)
