"""Score a model on a data set: every metric per frame ahead, beside the forecasts that cost nothing.

Notation: B batch, T time, C channels, H x W pixels. Clips are arrays (T, C, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from . import metrics
from .predictor import Predictor

Clips = NDArray[np.float32]
FAST = ("mse", "mae")
ALL = ("mse", "mae", "ssim", "psnr", "ssim_published", "psnr_published")


def last_frame(context: Clips, horizon: int) -> Clips:
    """The last given frame repeated: (B, T, C, H, W) -> (B, horizon, C, H, W)."""
    return np.repeat(context[:, -1:], horizon, axis=1)


def linear_extrapolation(context: Clips, horizon: int) -> Clips:
    """The change between the last two given frames continued, within [0, 1]; one given frame is repeated."""
    if context.shape[1] < 2:
        return last_frame(context, horizon)
    ahead = np.arange(1, horizon + 1, dtype=np.float32)[None, :, None, None, None]
    return np.clip(context[:, -1:] + ahead * (context[:, -1:] - context[:, -2:-1]), 0, 1)


BASELINES: dict[str, Callable[[Clips, int], Clips]] = {
    "baseline_last_frame": last_frame,
    "baseline_linear": linear_extrapolation,
}


@dataclass
class Scores:
    """One forecast's metrics: name -> values (clips, frames ahead)."""

    values: dict[str, list[list[float]]] = field(default_factory=dict)

    def add(self, prediction: Clips, truth: Clips, names: Sequence[str]) -> None:
        """Take in a batch (B, T, C, H, W)."""
        for name in names:
            metric = getattr(metrics, name)
            rows = self.values.setdefault(name, [])
            rows += [[metric(p, t) for p, t in zip(*clip, strict=True)] for clip in zip(prediction, truth, strict=True)]

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """Mean of each metric, the same per frame ahead, and a 95 % bootstrap interval of the mean over clips."""
        table: dict[str, Any] = {"per_frame": {}, "interval_95": {}}
        for name, rows in self.values.items():
            values = np.array(rows)
            values[~np.isfinite(values)] = np.nan  # PSNR of equal frames has no finite value and joins no mean
            table[name] = _mean(values)
            table["per_frame"][name] = [_mean(column) for column in values.T]
            table["interval_95"][name] = _interval(values, seed)
        return table


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def _interval(values: NDArray[np.float64], seed: int, draws: int = 1000) -> list[float] | None:
    per_clip = [mean for mean in map(_mean, values) if mean is not None]
    if not per_clip:
        return None
    picks = np.random.default_rng(seed).integers(len(per_clip), size=(draws, len(per_clip)))
    return [float(edge) for edge in np.percentile(np.array(per_clip)[picks].mean(1), [2.5, 97.5])]


@dataclass
class Evaluation:
    """Scores of the model and of the baselines over the same clips."""

    model: Scores
    baselines: dict[str, Scores]
    clips: int
    worst: list[tuple[float, Clips, Clips]]  # MSE, clip (T, C, H, W), prediction; the worst first

    def summary(self) -> dict[str, Any]:
        """What `vmrnn eval --json` prints of it."""
        baselines = {name: scores.summary() for name, scores in self.baselines.items()}
        return {**self.model.summary(), **baselines, "clips": self.clips}


def evaluate(
    predictor: Predictor,
    batches: Iterable[Clips],
    *,
    context: int,
    horizon: int,
    names: Sequence[str] = ALL,
    keep_worst: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Forecast each clip of each batch (B, context + horizon, C, H, W) in [0, 1] and score it.

    `progress` is called with the number of clips done so far.
    """
    done = Evaluation(Scores(), {name: Scores() for name in BASELINES}, 0, [])
    for clips in batches:
        given, truth = clips[:, :context], clips[:, context : context + horizon]
        prediction = predictor.batch(given, horizon)
        done.model.add(prediction, truth, names)
        for name, baseline in BASELINES.items():
            done.baselines[name].add(baseline(given, horizon), truth, names)
        done.clips += len(clips)
        if keep_worst:
            new = np.square(prediction - truth).sum((1, 2, 3, 4)) / horizon
            ranked = [*done.worst, *((float(e), c, p) for e, c, p in zip(new, clips, prediction, strict=True))]
            done.worst = sorted(ranked, key=lambda entry: -entry[0])[:keep_worst]
        if progress is not None:
            progress(done.clips)
    return done


def as_float_batches(batches: Iterable[NDArray[Any] | torch.Tensor], limit: int | None = None) -> Iterator[Clips]:
    """uint8 or float batches as float32 in [0, 1], at most `limit` clips of them."""
    left = limit
    for batch in batches:
        clips = np.asarray(batch)
        clips = clips[:left] if left is not None else clips
        if not len(clips):
            return
        yield clips.astype(np.float32) / np.float32(255 if clips.dtype == np.uint8 else 1)
        left = left - len(clips) if left is not None else None
