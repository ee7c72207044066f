"""How good a forecast is, frame by frame, beside the two forecasts that cost nothing.

Notation: T time, C channels, H x W pixels; frames are float arrays (C, H, W) in [0, 1], a truth may lie above. What is
missing of a truth is NaN in it, and left out; where nothing is known, scores are NaN.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import interrupts, network
from .errors import InputError, VMRNNError
from .frames import Frame


def mse(prediction: Frame, truth: Frame) -> float:
    """Squared error summed over the pixels and channels of a frame, as papers on video prediction report it."""
    return _total(np.square(prediction.astype(np.float64) - truth))


def mae(prediction: Frame, truth: Frame) -> float:
    """Absolute error summed over the pixels and channels of a frame."""
    return _total(np.abs(prediction.astype(np.float64) - truth))


def _total(errors: NDArray[np.float64]) -> float:
    known = errors[~np.isnan(errors)] if np.isnan(errors).any() else errors
    return float(known.sum()) if known.size else math.nan


def _known_mean(values: NDArray[Any]) -> float:
    known = values[~np.isnan(values)] if np.isnan(values).any() else values
    return float(known.mean()) if known.size else math.nan


def psnr(prediction: Frame, truth: Frame) -> float:
    """Peak signal-to-noise ratio in dB for a data range of 1; infinite for equal frames."""
    error = mse(prediction, truth) / max(1, int(np.count_nonzero(~np.isnan(truth))))
    return 10 * math.log10(1 / error) if error > 0 else error if math.isnan(error) else math.inf


def sharpness(prediction: Frame, truth: Frame) -> float:
    """Mean slope of a frame over that of the true one: 1 as sharp, less blurred; infinite where the truth is flat."""
    missing = np.isnan(truth)
    slope, true_slope = (
        _known_mean(np.abs(np.diff(frame.astype(np.float64), axis=1))) + _known_mean(np.abs(np.diff(frame, axis=2)))
        for frame in (np.where(missing, np.float32(np.nan), prediction) if missing.any() else prediction, truth)
    )
    if math.isnan(slope):
        return math.nan
    return slope / true_slope if true_slope > 0 else 1.0 if slope == 0 else math.inf


def ssim(prediction: Frame, truth: Frame) -> float:
    """Structural similarity for a data range of 1, mean over channels; NaN for frames under 3 pixels high or wide.

    The window is scikit-image's 7 pixels, or as much as a smaller frame has room for.
    """
    return _ssim(prediction, truth, data_range=1.0)


def _ssim(prediction: Frame, truth: Frame, data_range: float) -> float:
    with interrupts.deferred():
        from skimage.metrics import structural_similarity  # takes a second to import, so not before it is needed

    side = min(7, *truth.shape[1:])
    if side < 3:
        return math.nan
    window = side - (side % 2 == 0)
    options = {"win_size": window, "data_range": data_range, "channel_axis": 0}
    missing = np.isnan(truth)
    if not missing.any():
        return float(structural_similarity(prediction, truth, **options))
    # Equal to the truth where that is missing, so that no window around is worse for it; and these are not counted.
    truth = np.where(missing, 0, truth)
    _, similarity = structural_similarity(np.where(missing, 0, prediction), truth, full=True, **options)
    return _known_mean(np.where(missing, np.nan, similarity))


def ssim_published(prediction: Frame, truth: Frame) -> float:
    """SSIM as the tables of this field have it: computed for a data range of 2, which scores higher."""
    return _ssim(prediction, truth, data_range=2.0)


def psnr_published(prediction: Frame, truth: Frame) -> float:
    """PSNR as many tables of this field have it: squared difference of uint8 images in uint8, which wraps around.

    Those end at 1, and so does the truth here.
    """
    known = ~np.isnan(truth)
    if not known.any():
        return math.nan
    difference = (prediction[known].clip(0, 1) * 255).astype(np.uint8) - (truth[known].clip(0, 1) * 255).astype(
        np.uint8
    )
    error = float(np.mean(difference**2))
    return 20 * math.log10(255) - 10 * math.log10(error) if error > 0 else math.inf


def lpips(prediction: Frame, truth: Frame) -> float:
    """Learned perceptual distance (Zhang et al., 2018) by AlexNet; 0 for equal frames. Gray is taken as RGB.

    Raises:
        InputError, VMRNNError: as `lpips_network` and `check_lpips_frames`.
    """
    import torch

    check_lpips_frames(truth.shape)
    truth = np.where(np.isnan(truth), prediction, truth)
    pair = torch.from_numpy(np.stack([prediction, truth])).clamp(0, 1)  # (2, C, H, W)
    pair = 2 * pair.expand(-1, 3, -1, -1) - 1
    with torch.inference_mode():
        return float(lpips_network()(pair[:1], pair[1:]))


def check_lpips_frames(shape: tuple[int, ...]) -> None:
    """Raise InputError unless frames of shape (C, H, W) are pictures, and large enough for AlexNet."""
    C, H, W = shape
    if C not in (1, 3):
        raise InputError(f"frames of {C} channels have no LPIPS", "leave out --lpips: it is for gray and RGB")
    if min(H, W) < 32:
        raise InputError(f"frames of {W}x{H} are too small for LPIPS", "leave out --lpips: it takes 32x32 and larger")


@functools.cache
def lpips_network() -> Any:
    """The network behind `lpips`, on the CPU; its weights are downloaded at the first use.

    Raises:
        InputError: torchmetrics or torchvision is not installed, or does not fit this PyTorch.
        VMRNNError: the weights cannot be had, or are not the published ones.
    """
    try:
        with interrupts.deferred():
            import torchvision  # noqa: F401 - torchmetrics imports it only later, and says less
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ModuleNotFoundError as error:
        raise InputError(f"--lpips lacks a package: {error}", "install them: pip install 'vmrnn[lpips]'") from None
    except (ImportError, RuntimeError) as error:  # the latter from a torchvision made for another PyTorch
        raise InputError(f"--lpips cannot load its packages: {error}") from None
    try:
        with _never_unpickle():
            return LearnedPerceptualImagePatchSimilarity(net_type="alex")
    except pickle.UnpicklingError as error:
        raise VMRNNError(
            "what was downloaded as AlexNet for LPIPS is no weights file",
            "remove it from TORCH_HOME, by default ~/.cache/torch, and try again",
        ) from error
    except (OSError, RuntimeError) as error:
        what = "the weights of AlexNet for LPIPS cannot be had"
        raise network.known_cause(what, error) or VMRNNError(f"{what}: {network.reason(error)}") from error


@contextlib.contextmanager
def _never_unpickle() -> Iterator[None]:
    """Make PyTorch refuse whatever is no plain weights: torchvision asks it to unpickle what was downloaded."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class Score:
    """Means of MSE, SSIM and PSNR over frames that come one at a time."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums = {"mse": 0.0, "ssim": 0.0, "psnr": 0.0}

    def add(self, prediction: Frame, truth: Frame) -> None:
        """Take in one frame, unless nothing of the truth is known."""
        if np.isnan(truth).all():
            return
        self.frames += 1
        for name, metric in (("mse", mse), ("ssim", ssim), ("psnr", psnr)):
            self._sums[name] += metric(prediction, truth)

    def means(self) -> dict[str, float | None] | None:
        """The means so far, None without a frame. A mean that is no finite number is None (PSNR of equal frames)."""
        if not self.frames:
            return None
        means = {name: total / self.frames for name, total in self._sums.items()}
        return {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
