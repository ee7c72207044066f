"""Score a model on a data set: every metric per frame ahead, beside the forecasts that cost nothing.

Notation: B batch, T time, C channels, H x W pixels. Clips are arrays (T, C, H, W) in [0, 1]; what exceeds the divisor
of gridded data lies above, and is scored as it is. Values that are missing are NaN, filled for the networks, and left
out of scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import metrics
from .config import NetworkConfig, VMRNNConfig
from .data import ClipDataset, DataSource
from .errors import InputError
from .forecast import Forecast, Step
from .matching import match_values
from .predictor import Predictor
from .ranks import Ranks
from .readings import fill
from .rivals import RIVALS, rivals_of_grids
from .verification import Verification
from .weights import learned

Clips = NDArray[np.float32]
Watch = Callable[[Sequence[int], Clips, Clips], None]
FAST = ("mse", "mae")
ALL = ("mse", "mae", "ssim", "psnr", "sharpness", "ssim_published", "psnr_published")


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

    def summary(self, groups: Sequence[int] | None = None, seed: int = 0) -> dict[str, Any]:
        """Mean of each metric, the same per frame ahead, and 95 % bootstrap intervals of these means.

        `groups` has a number for each clip: those of one group are drawn together. By default each is a group.
        What has no finite value is None: a mean PSNR if any frame was met exactly, the SSIM of frames too small for it.
        """
        table: dict[str, Any] = {"per_frame": {}, "interval_95": {}, "per_frame_interval_95": {}}
        for name, rows in self.values.items():
            values = np.array(rows)
            table[name], found = _means(values, range(len(values)) if groups is None else groups, seed)
            for kind, numbers in found.items():
                table[kind][name] = numbers
        return table

    def lower_than(self, other: Scores) -> float:
        """On which share of the clips the MSE is lower."""
        ours, theirs = (np.mean(each.values["mse"], 1) for each in (self, other))
        return float(np.mean(ours < theirs))


def _means(values: NDArray[np.float64], groups: Sequence[int], seed: int) -> tuple[float | None, dict[str, Any]]:
    """The mean of a metric, (clips, frames ahead); and by frames ahead, and the intervals of both."""
    owners = np.asarray(groups)
    return _mean(values), {
        "interval_95": _intervals(values.mean(1, keepdims=True), owners, seed)[0],
        "per_frame": [_mean(column) for column in values.T],
        "per_frame_interval_95": _intervals(values, owners, seed),
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    """NaN, of which frames have nothing that is known, is left out."""
    known = values[~np.isnan(values)]
    mean = float(known.mean()) if known.size else math.nan
    return mean if math.isfinite(mean) else None


def _intervals(
    values: NDArray[np.float64], groups: NDArray[np.int64], seed: int, draws: int = 1000
) -> list[list[float] | None]:
    """Of each column's mean over the rows (clips); groups of them are drawn anew, all columns of a row together.

    None for a column that is not finite, and for a single group.
    """
    found, owner = np.unique(groups, return_inverse=True)
    if len(found) == 1:
        return [None] * values.shape[1]
    finite = [bool(np.isfinite(column).all()) for column in values.T]
    sums = np.zeros((len(found), values.shape[1]))
    np.add.at(sums, owner, np.where(finite, values, 0))
    times = np.random.default_rng(seed).multinomial(len(found), np.full(len(found), 1 / len(found)), size=draws)
    means = times @ sums / (times @ np.bincount(owner))[:, None]  # (draws, columns)
    edges = np.percentile(means, [2.5, 97.5], axis=0).T  # (columns, 2)
    return [pair if known else None for pair, known in zip(edges.tolist(), finite, strict=True)]


class ScoredClip(NamedTuple):
    """A clip and its forecast, kept to be looked at.

    mse : mean over its frames
    number : of the clip in the data set
    clip : (T, C, H, W), the given and the true frames
    prediction : (horizon, C, H, W)
    """

    mse: float
    number: int
    clip: Clips
    prediction: Clips

    def forecast(self, title: str) -> Forecast:
        """The record of it."""
        frames = len(self.prediction)
        steps = tuple(map(Step, self.prediction, self.clip[-frames:]))
        return Forecast(self.clip[:-frames], frames, steps, has_truth=True, title=title)


@dataclass
class Evaluation:
    """Scores of the model and of the baselines over the same clips, and the group of each.

    clipped : in how many clips given frames exceed 1, where the network sees them cut off
    """

    model: Scores
    baselines: dict[str, Scores]
    clips: int
    worst: list[ScoredClip]  # the worst first
    groups: list[int]
    clipped: int = 0

    def summary(self) -> dict[str, Any]:
        """What `vmrnn eval --json` prints of it; of a baseline also on which share of the clips its MSE is higher."""
        baselines = {
            name: {**scores.summary(self.groups), "beaten_on": self.model.lower_than(scores)}
            for name, scores in self.baselines.items()
        }
        return {**self.model.summary(self.groups), **baselines, "clips": self.clips}


def evaluate(
    predictor: Predictor,
    dataset: ClipDataset,
    *,
    context: int,
    horizon: int,
    batch_size: int = 16,
    limit: int | None = None,
    spread: bool = False,
    names: Sequence[str] = ALL,
    keep_worst: int = 0,
    rivals: Sequence[str] | None = None,
    watch: Watch | None = None,
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    verification: Verification | None = None,
    match: bool = False,
    whole: bool = False,
) -> Evaluation:
    """Forecast and score the clips of a data set: the first `limit` of them or, with `spread`, as many evenly spaced.

    `rivals` are those of `rivals.RIVALS` to compare with, None for all. `watch` is shown each batch: the numbers of its
    clips in the data set, the clips and their forecasts. `progress` is called with the number of clips done so far. Of
    several `ranks`, each takes the batches whose turn is its own, and all return the whole: the same as a single
    process, as batches and their order are the same. `verification` gets all forecasts in the data's own units. With
    `match`, forecasts have the values of the last given frame again; with `whole`, what moves in them is one.
    """
    batch_size = batch_size if dataset.one_shape else 1
    rivals = tuple(RIVALS) if rivals is None else rivals
    rank, world = (ranks.rank, ranks.world) if ranks else (0, 1)
    total = min(len(dataset), limit or len(dataset))
    chosen = np.arange(total) * (len(dataset) if spread else total) // total
    groups = [dataset.group(number) for number in chosen.tolist()]
    done = Evaluation(Scores(), {name: Scores() for name in rivals}, 0, [], groups)
    for first in range(rank * batch_size, total, world * batch_size):
        numbers = chosen[first : first + batch_size].tolist()
        # (B, T, C, H, W)
        clips = np.stack([dataset.frames(number, np.random.default_rng((0, 0, number))) for number in numbers])
        clips = clips[:, : context + horizon]
        truth, clips = clips[:, context:], np.swapaxes(fill(np.swapaxes(clips, 0, 1)), 0, 1)  # the truth unfilled
        given = clips[:, :context]
        prediction = predictor.batch(given, horizon, whole=whole)
        if match:
            prediction = np.stack([
                [match_values(frame, last) for frame in clip]
                for clip, last in zip(prediction, given[:, -1], strict=True)
            ])  # fmt: skip
        done.model.add(prediction, truth, names)
        forecasts = {name: np.stack(list(RIVALS[name](given, horizon)), axis=1) for name in rivals}
        for name, forecast in forecasts.items():
            done.baselines[name].add(forecast, truth, names)
        if verification is not None:
            _verify(verification, dataset, numbers, given, {"this_network": prediction, **forecasts}, truth)
        done.clips += len(clips)
        done.clipped += int((given.max((1, 2, 3, 4)) > 1).sum())
        if keep_worst:
            errors = (np.nansum(np.square(prediction - truth), (1, 2, 3, 4)) / horizon).tolist()
            done.worst = _worst([*done.worst, *map(ScoredClip, errors, numbers, clips, prediction)], keep_worst)
        if watch is not None:
            watch(numbers, clips, prediction)
        if progress is not None:
            progress(min(total, first + (world - rank) * batch_size))  # as if the others were as far
    if ranks and verification is not None:
        verification.replace(ranks.gather(verification.tallies))
    return _merge(ranks.gather(done), batch_size, keep_worst) if ranks else done


def _verify(
    verification: Verification, dataset: ClipDataset, numbers: Sequence[int], given: Clips,
    forecasts: Mapping[str, Clips], truth: Clips,
) -> None:  # fmt: skip
    """Score a batch (B, L, C, H, W) in the data's own units, also that of the rivals which only grids have."""
    more = {name: rival for name, rival in rivals_of_grids().items() if name not in RIVALS and given.shape[2] == 1}
    made = {name: np.stack(list(rival(given, truth.shape[1])), axis=1) for name, rival in more.items()}
    for place, number in enumerate(numbers):
        own = {name: dataset.own(batch[place]) for name, batch in {**forecasts, **made}.items()}
        missing = np.isnan(truth[place])
        verification.add(dataset.group(number), own, np.where(missing, np.nan, dataset.own(truth[place])))


def compared(scores: Mapping[str, Scores], groups: Sequence[int]) -> list[dict[str, Any]]:
    """Each forecast against each before it, over the same clips.

    Returns:
        For each pair `of` and `less` (the names), `lower_mse_on` (the share of clips where the former's MSE is lower),
        and by metric what `_difference` returns.
    """
    found = []
    for (less, theirs), (of, ours) in itertools.combinations(scores.items(), 2):
        by_metric = {name: _difference(ours.values[name], theirs.values[name], groups) for name in ours.values}
        found.append({"of": of, "less": less, "lower_mse_on": ours.lower_than(theirs), **by_metric})
    return found


def _difference(
    ours: list[list[float]], theirs: list[list[float]], groups: Sequence[int], seed: int = 0
) -> dict[str, Any]:
    """The mean `difference` of a metric, (clips, frames ahead) each, and its 95 % bootstrap interval; also per frame.

    Clips are drawn in pairs, and those of one group together: what both find hard does not widen an interval. None is
    what is not finite, as in `Scores.summary`.
    """
    one, other = np.array(ours), np.array(theirs)
    with np.errstate(invalid="ignore"):
        values = one - other
    values[np.isinf(one) & np.isinf(other)] = math.inf  # of two frames met exactly, PSNRs differ by no number
    mean, found = _means(values, groups, seed)
    return {"difference": mean, **found}


def open_clips(
    source: DataSource, config: NetworkConfig, split: str, context: int, frames: int, side: int | None = None,
    *, lpips: bool = False, name: str = "",
) -> ClipDataset:  # fmt: skip
    """The clips to score. Refuses those that the weights or the options do not fit."""
    clips = source.clips(
        split, context=context, horizon=frames, size=side or min(config.image_size), channels=config.image_channels,
        divided_by=config.divided_by, learned=learned(config, name, source.units, source.has_range),
    )  # fmt: skip
    _, C, H, W = clips.clip_shape
    if isinstance(config, VMRNNConfig) and config.image_channels != C:  # others take any
        wanted = f"the weights take {config.image_channels}"
        raise InputError(f"{source.path} has {C} channels, and {wanted}", "give other weights with --weights")
    if side not in (None, H) or side not in (None, W):
        raise InputError(f"{source.path} is taken as it is, whatever --size says", "leave out --size")
    if lpips:
        metrics.check_lpips_frames((C, H, W))
    return clips


def _worst(clips: Iterable[ScoredClip], count: int) -> list[ScoredClip]:
    return sorted(clips, key=lambda clip: (-clip.mse, clip.number))[:count]


def _merge(parts: list[Evaluation], batch_size: int, keep_worst: int) -> Evaluation:
    """The evaluations of all ranks as one, in the order of the clips: batch b was done by rank b % world."""
    clips = sum(part.clips for part in parts)
    owners = [number // batch_size % len(parts) for number in range(clips)]

    def merge(shares: list[Scores]) -> Scores:
        values = {}
        for name in shares[0].values:
            rows = [iter(share.values.get(name, [])) for share in shares]
            values[name] = [next(rows[owner]) for owner in owners]
        return Scores(values)

    return Evaluation(
        merge([part.model for part in parts]),
        {name: merge([part.baselines[name] for part in parts]) for name in parts[0].baselines},
        clips,
        _worst([clip for part in parts for clip in part.worst], keep_worst),
        parts[0].groups,
        sum(part.clipped for part in parts),
    )
