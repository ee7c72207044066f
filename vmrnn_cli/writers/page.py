"""A forecast as a page: `.html`, with truth, forecast and rivals as players in step, and how their errors grow.

Notation: C channels, H x W pixels; frames are float32 (C, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import maps, pages, render
from ..pages import charts, media
from ..rivals import RIVALS
from . import Writer

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame

_REPEATED = "baseline_last_frame"  # needs no frames of its own: the page repeats the last given one


def _film_of(forecast: Forecast, peak: float) -> media.Film:
    """What encodes its frames: those of grids in the colours of maps."""
    grid = forecast.grid
    if grid is None:
        return media.Film(forecast.shape, peak=peak)
    upwards = maps.place_of(grid).origin == "lower"
    name = maps.name_of(grid)
    return media.GridFilm(grid.scale, grid.values, forecast.context, upwards=upwards, name=name)


class PageWriter(Writer):
    """One HTML file that opens anywhere. It keeps the frames, encoded, until all have come."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._film = _film_of(forecast, self.drawing()["peak"])
        self._given: list[str] = []
        self._truth: list[str] = []
        self._rivals = {name: rival(forecast.context[None], forecast.frames) for name, rival in RIVALS.items()}
        self._tracks = {"prediction": media.track("Forecast", "ours")}
        self._tracks |= {name: media.track(*look) for name, look in media.RIVAL_LOOKS.items()}

    @classmethod
    def fit(cls, frame_shape: tuple[int, int, int], panels: int, layout: str | None = None) -> tuple[int, int] | None:
        return render.panel_size(frame_shape, 1)  # a swipe shows one alone, at its full size

    def given(self, index: int, frame: Frame) -> None:
        self._given.append(self._film.encode(frame))

    def predicted(self, index: int, step: Step) -> None:
        frames = {"prediction": step.prediction, **{name: next(rival)[0] for name, rival in self._rivals.items()}}
        for name, frame in frames.items():
            if name != _REPEATED:
                self._tracks[name]["frames"].append(self._film.encode(frame))
            if step.truth is not None:
                self._tracks[name]["errors"].append(self._film.error(frame, step.truth))
        if step.truth is not None:
            self._truth.append(self._film.encode(step.truth))
        for name in self.forecast.panels:
            if name in step.extra:
                track = self._tracks.setdefault(name, media.track(name.capitalize(), "") | {"plain": True})
                track["frames"].append(media.Film(step.extra[name].shape).encode(step.extra[name]))

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        f = self.forecast
        name = Path(f.source).name if f.source else f.title or "forecast"
        clip = {
            "name": name, "given": self._given, "truth": self._truth, "tracks": list(self._tracks.values()),
            "ahead": f.frames, "fps": f.fps, "clock": f.has_clock, "look": self._film.look(),
            **({} if f.grid is None else {"leads": f.grid.leads(f.frames), "times": f.grid.dates(f.frames)}),
        }  # fmt: skip
        content = {
            "name": name, "weights": f.title, "given": len(self._given), "frames": f.frames,
            "seconds": f"{f.frames / f.fps:.4g}" if f.has_clock else "", "known": len(self._truth),
            "valid": "" if f.grid is None else f.grid.in_words(f.frames),
            "chart": self._chart(), "scores": self._scores(), "scored": self._scored(),
            "clips": {"clips": [clip], "colours": media.colours()},
        }  # fmt: skip
        pages.write(path, "forecast.html", content)

    def _chart(self) -> charts.Chart | None:
        if not self._truth:
            return None
        ahead = range(1, len(self._truth) + 1)
        series = [
            charts.Series(track["label"], ahead, track["errors"], track["css"])
            for track in self._tracks.values()
            if track["errors"]
        ]
        unit = "% of the highest value given" if self._film.gridded else "% of full brightness"
        if isinstance(self._film, media.GridFilm):
            unit = self._film.units or "in its own units"
        return charts.lines(series, "frames ahead", f"error, {unit}", zero=True)

    def _scores(self) -> list[dict[str, Any]]:
        rows = {"prediction": self.forecast.metrics, **self.forecast.baselines}
        return [{**self._tracks[name], **means} for name, means in rows.items() if means is not None]

    def _scored(self) -> str:
        f = self.forecast
        frames = f"over {f.score.frames} known frames"
        C, H, W = f.scored_on or f.shape
        if f.shape != (C, H, W):
            frames += f" of the network's own picture, {W}×{H}{' gray' * (C == 1)}"
        return frames + ("; what moves is drawn whole, a mean is scored" if f.whole else "")
