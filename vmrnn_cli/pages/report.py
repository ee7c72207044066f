"""Pages of an evaluation: what the scores are, where they come from, and the clips behind them.

Notation: B batch, T time, C channels, H x W pixels; clips are float32 (T, C, H, W) in [0, 1].
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import maps, metrics, score_text
from ..rivals import RIVAL_NAMES
from . import charts, media, number, write

if TYPE_CHECKING:
    from ..data import ClipDataset
    from ..evaluate import Clips, Evaluation, Scores

_MOST_CLIPS = 150  # that a page lets play, beside the best and the worst
_EXTREMES = 3
_SIDE, _QUALITY, _GIVEN = 128, 55, 4  # of pictures in a page that holds many clips: pixels, WebP's, frames before
_CURVES = ("mse", "ssim", "psnr", "sharpness")
_WEIGHTS_STYLES = ("ours", "s2", "s3", "s4", "s5")


class Album:
    """Keeps clips and forecasts of an evaluation, encoded, as they pass by: the `watch` of `evaluate`.

    Of many clips it keeps some evenly spaced, and the best and the worst of the first forecast.
    """

    def __init__(self, dataset: ClipDataset, total: int, context: int) -> None:
        self._dataset, self._context = dataset, context
        self._spaced = {index * total // min(total, _MOST_CLIPS) for index in range(min(total, _MOST_CLIPS))}
        self._extremes: list[tuple[float, int]] = []  # error and number, the best first
        self._settled = False
        self._label, self._css = "Forecast", "ours"
        self.clips: dict[int, dict[str, Any]] = {}

    def begin(self, label: str, place: int) -> None:
        """Take what comes from now on as forecasts of the weights at a place of a comparison."""
        self._settled = place > 0  # which clips are kept is decided by the first
        self._label, self._css = label, style(place)

    def __call__(self, numbers: Sequence[int], clips: Clips, prediction: Clips) -> None:
        """Look at a batch: numbers in the data set, (B, T, C, H, W), and (B, frames, C, H, W)."""
        for index, clip, forecast in zip(numbers, clips, prediction, strict=True):
            if self._wanted(index, float(np.square(forecast - clip[self._context :]).mean())):
                self._keep(index, clip, forecast)

    def _wanted(self, index: int, error: float) -> bool:
        if index in self._spaced or self._settled:
            return index in self._spaced or index in self.clips
        bisect.insort(self._extremes, (error, index))
        if len(self._extremes) > 2 * _EXTREMES:
            _, dropped = self._extremes.pop(_EXTREMES)
            self.clips.pop(dropped, None)
            return dropped != index
        return True

    def _keep(self, index: int, clip: Clips, forecast: Clips) -> None:
        film = self._film(index, clip)
        truth = clip[self._context :]
        kept = self.clips.get(index)
        if kept is None:
            kept = {
                "name": self._dataset.label(index), "look": film.look(), "ahead": len(truth), "fps": None,
                "clock": False, "given": [film.encode(f) for f in clip[max(0, self._context - _GIVEN) : self._context]],
                "truth": [film.encode(frame) for frame in truth],
                "tracks": [media.track(*media.RIVAL_LOOKS["baseline_last_frame"])],
            }  # fmt: skip
            if grid := self._dataset.map_of(index):
                kept["leads"] = grid.leads(len(truth))
                kept["times"] = grid.dates(len(truth))[max(0, self._context - _GIVEN) :]
            kept["tracks"][0]["errors"] = [film.error(clip[self._context - 1], frame) for frame in truth]
            self.clips[index] = kept
        track = media.track(self._label, self._css)
        track["frames"] = [film.encode(frame) for frame in forecast]
        track["errors"] = [film.error(p, t) for p, t in zip(forecast, truth, strict=True)]
        kept["tracks"].insert(-1, track)

    def _film(self, index: int, clip: Clips) -> media.Film:
        """What encodes the frames of a clip: those of grids in the colours of maps."""
        given, grid = clip[: self._context], self._dataset.map_of(index)
        if grid is None:
            peak = 1.0 if clip.shape[1] in (1, 3) else max(float(given.max()), 1e-3)
            return media.Film(clip.shape[1:], peak=peak, quality=_QUALITY, most=_SIDE)
        look: dict[str, Any] = {"upwards": maps.place_of(grid).origin == "lower", "name": maps.name_of(grid)}
        return media.GridFilm(grid.scale, self._dataset.own, given, most=_SIDE, **look)


def write_evaluation(
    path: Path, summary: Mapping[str, Any], result: Evaluation, album: Mapping[int, Any], facts: Mapping[str, str],
    command: str, notes: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write the page of an evaluation.

    Args:
        path: where to.
        summary: what `vmrnn eval --json` prints.
        result: what it is the summary of.
        album: the clips of an `Album`, of all ranks.
        facts: what was evaluated, by name.
        command: that makes it again.
        notes: what to beware of.
    """
    forecasts = [("Forecast", "ours", summary), *((*look, summary[key]) for key, look in media.RIVAL_LOOKS.items())]
    ours, last = _per_clip(result.model), _per_clip(result.baselines["baseline_last_frame"])
    order = sorted(album, key=lambda index: (ours[index], index))
    places = {index: place for place, index in enumerate(order)}
    points = [
        charts.Point(last[index], error, _said(album, index, ours, "last frame", last),
                     places.get(index))
        for index, error in enumerate(ours)
    ]  # fmt: skip
    content = {
        "name": f"{summary['weights']} on {Path(summary['data']).name}", "facts": facts, "command": command,
        "notes": notes, "summary": summary, "rivals": [(RIVAL_NAMES[key], summary[key]) for key in RIVAL_NAMES],
        "columns": [(label, css) for label, css, _ in forecasts],
        "rows": _rows([scores for _, _, scores in forecasts], list(summary["per_frame"])),
        "curves": _curves(forecasts, summary["horizon"]),
        "scatter": charts.scatter(points, "MSE of the last frame repeated", "MSE of the forecast"),
        **_clips(order, album, ours),
    }  # fmt: skip
    write(path, "evaluation.html", content)


def write_comparison(
    path: Path, summary: Mapping[str, Any], scores: Mapping[str, Scores], album: Mapping[int, Any],
    facts: Mapping[str, str], command: str,
) -> None:  # fmt: skip
    """Write the page of a comparison of weights on the same clips.

    Args:
        path: where to.
        summary: what `vmrnn compare --json` prints.
        scores: what it is the summary of, by the name of the weights.
        album: the clips of an `Album`, of all ranks, with tracks of all weights.
        facts: what was compared, by name.
        command: that makes it again.
    """
    forecasts = [(label, style(place), found) for place, (label, found) in enumerate(summary["weights"].items())]
    forecasts.append((*media.RIVAL_LOOKS["baseline_last_frame"], summary["baseline_last_frame"]))
    labels, errors = list(scores), [_per_clip(each) for each in scores.values()]
    order = sorted(album, key=lambda index: (errors[0][index], index))
    places = {index: place for place, index in enumerate(order)}
    points = [
        charts.Point(errors[0][index], other[index], _said(album, index, errors[0], label, other), places.get(index),
                     style(place))
        for place, (label, other) in enumerate(zip(labels, errors, strict=True)) if place
        for index in range(len(other))
    ]  # fmt: skip
    names = list(summary["baseline_last_frame"]["per_frame"])
    other = labels[1] if len(labels) == 2 else "the others"
    pairs = summary["differences"]
    differing = [
        (metrics.NAMES[name], [(*score_text.difference(pair[name], name), score_text.verdict(pair[name], name))
                               for pair in pairs])
        for name in names
    ]  # fmt: skip
    content = {
        "name": " against ".join(labels), "facts": facts, "command": command,
        "columns": [(label, css) for label, css, _ in forecasts],
        "rows": _rows([found for _, _, found in forecasts], names),
        "differences": [{"of": pair["of"], "less": pair["less"], "share": pair["lower_mse_on"]} for pair in pairs],
        "differing": differing,
        "curves": _curves(forecasts, summary["horizon"]), "gaps": _gaps(pairs, summary["horizon"]),
        "scatter": charts.scatter(points, f"MSE of {labels[0]}", f"MSE of {other}"),
        **_clips(order, album, errors[0]),
    }  # fmt: skip
    write(path, "comparison.html", content)


def style(place: int) -> str:
    """The style sheet's class of the weights at a place of a comparison."""
    return _WEIGHTS_STYLES[place % len(_WEIGHTS_STYLES)]


def _clips(order: Sequence[int], album: Mapping[int, Any], errors: Sequence[float]) -> dict[str, Any]:
    """The clips from best to worst, the numbers that open them, and their names for a list."""
    middle = len(order) // 2
    count = min(_EXTREMES, max(1, len(order) // 3))
    groups = {
        "best": range(count), "median": range(middle - count // 2, middle - count // 2 + count),
        "worst": range(len(order) - 1, len(order) - 1 - count, -1),
    }  # fmt: skip
    picks = [
        (f"{name} {place}" if count > 1 else name, number)
        for name, numbers in groups.items()
        for place, number in enumerate(numbers, 1)
    ]
    names = [f"{album[index]['name']}: MSE {number(errors[index])}" for index in order]
    data = {"clips": [album[index] for index in order], "colours": media.colours()}
    return {"picks": picks, "names": names, "clips": data, "played": len(order), "scored": len(errors)}


def _per_clip(scores: Scores) -> list[float]:
    return np.mean(scores.values["mse"], axis=1).tolist()


def _said(album: Mapping[int, Any], index: int, ours: Sequence[float], name: str, other: Sequence[float]) -> str:
    clip = album[index]["name"] if index in album else f"clip {index}"
    return f"{clip}: MSE {number(ours[index])}, {name} {number(other[index])}"


def _rows(forecasts: list[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each metric: the mean and interval of each forecast, and which is best."""
    return [
        {
            "label": metrics.NAMES[name],
            "cells": [(score_text.mean(scores, name), score_text.interval(scores, name)) for scores in forecasts],
            "best": score_text.best(forecasts, name),
        }
        for name in names
    ]


def _curves(forecasts: Sequence[tuple[str, str, Mapping[str, Any]]], horizon: int) -> list[charts.Chart]:
    """Quality against horizon."""
    drawn = []
    for name in _CURVES:
        series = [
            charts.Series(label, range(1, horizon + 1), scores["per_frame"][name], css,
                          scores["per_frame_interval_95"][name])
            for label, css, scores in forecasts
        ]  # fmt: skip
        if any(value is not None for each in series for value in each.y):
            drawn.append(charts.lines(series, "frames ahead", metrics.NAMES[name], zero=name == "mse"))
    return drawn


def _gaps(differences: Sequence[Mapping[str, Any]], horizon: int) -> charts.Chart:
    """Differences of MSE against horizon."""
    ahead = range(1, horizon + 1)
    series = [
        charts.Series(f"{pair['of']} less {pair['less']}", ahead, pair["mse"]["per_frame"], style(place + 1),
                      pair["mse"]["per_frame_interval_95"])
        for place, pair in enumerate(differences)
    ]  # fmt: skip
    level = charts.Series("no difference", ahead, [0.0] * horizon, "s1")
    return charts.lines([*series, level], "frames ahead", "difference of MSE")
