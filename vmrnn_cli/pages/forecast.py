"""The page of one forecast: truth, forecast and rivals as players in step, and how their errors grow.

Notation: C channels, H x W pixels; frames are float32 (C, H, W) in [0, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..rivals import RIVAL_NAMES, RIVALS
from . import charts, media, write

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame

STYLES = {"baseline_last_frame": "s1", "baseline_motion": "s2"}  # of rivals, as the style sheet calls them


class ForecastPage:
    """Takes the frames of a forecast in their order and keeps them encoded, then writes the page.

    forecast : in the making or finished
    peak : the value at the bright end of the colours
    """

    def __init__(self, forecast: Forecast, peak: float) -> None:
        self._forecast, self._film = forecast, media.Film(forecast.shape, peak=peak)
        self._given: list[str] = []
        self._truth: list[str] = []
        self._tracks = {"prediction": _track("Forecast", "ours")}
        self._rivals = {name: rival(forecast.context[None], forecast.frames) for name, rival in RIVALS.items()}
        self._tracks |= {name: _track(_title(RIVAL_NAMES[name]), STYLES[name]) for name in RIVALS}
        # What needs no frames of its own: the page repeats the last given one.
        self._repeated = "baseline_last_frame"

    def given(self, frame: Frame) -> None:
        """Take the next given frame."""
        self._given.append(self._film.encode(frame))

    def predicted(self, step: Step) -> None:
        """Take the next predicted frame."""
        frames = {"prediction": step.prediction, **{name: next(rival)[0] for name, rival in self._rivals.items()}}
        for name, frame in frames.items():
            if name != self._repeated:
                self._tracks[name]["frames"].append(self._film.encode(frame))
            if step.truth is not None:
                self._tracks[name]["errors"].append(media.error(frame, step.truth, self._film.peak))
        if step.truth is not None:
            self._truth.append(self._film.encode(step.truth))
        for name in self._forecast.panels:
            if name in step.extra:
                track = self._tracks.setdefault(name, _track(_title(name), "") | {"plain": True})
                track["frames"].append(media.Film(step.extra[name].shape).encode(step.extra[name]))

    def write(self, path: Path) -> None:
        """Write the page."""
        f = self._forecast
        name = Path(f.source).name if f.source else f.title or "forecast"
        clip = {
            "name": name, "given": self._given, "truth": self._truth, "tracks": list(self._tracks.values()),
            "ahead": f.frames, "fps": f.fps, "clock": f.has_clock, "look": self._film.look(),
        }  # fmt: skip
        content = {
            "name": name, "weights": f.title, "given": len(self._given), "frames": f.frames,
            "seconds": f"{f.frames / f.fps:.4g}" if f.has_clock else "", "known": len(self._truth),
            "chart": self._chart(), "scores": self._scores(), "scored": self._scored(),
            "clips": {"clips": [clip], "colours": media.colours()},
        }  # fmt: skip
        write(path, "forecast.html", content)

    def _chart(self) -> charts.Chart | None:
        if not self._truth:
            return None
        ahead = range(1, len(self._truth) + 1)
        series = [
            charts.Series(track["label"], ahead, track["errors"], track["css"])
            for track in self._tracks.values()
            if track["errors"]
        ]
        unit = "the highest value given" if self._film.gridded else "full brightness"
        return charts.lines(series, "frames ahead", f"error, % of {unit}", zero=True)

    def _scores(self) -> list[dict[str, Any]]:
        f = self._forecast
        rows = {"prediction": f.metrics, **f.baselines}
        return [
            {"label": self._tracks[name]["label"], "css": self._tracks[name]["css"], **means}
            for name, means in rows.items()
            if means is not None
        ]

    def _scored(self) -> str:
        f = self._forecast
        frames = f"over {f.score.frames} known frames"
        C, H, W = f.scored_on or f.shape
        return frames if f.shape == (C, H, W) else f"{frames} of the network's own picture, {W}×{H}{' gray' * (C == 1)}"


def last_errors(clip: NDArray[np.float32], given: int, peak: float) -> list[float | None]:
    """The errors of the last given frame repeated, in percent: (T, C, H, W) -> T - given numbers."""
    return [media.error(clip[given - 1], frame, peak) for frame in clip[given:]]


def _track(label: str, css: str) -> dict[str, Any]:
    return {"label": label, "css": css, "frames": [], "errors": []}


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]
