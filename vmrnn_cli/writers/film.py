"""A forecast as a film: `.gif`, `.mp4` and `.webm`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as imageio

from .. import interrupts, render, video
from . import Writer

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame


class FilmWriter(Writer):
    """Panels side by side, drawn and encoded frame by frame."""

    is_film = True

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._comparison = self._pictures()
        self._poster: render.Canvas | None = None  # of halfway through the forecast

    def _pictures(self) -> Any:
        f = self.forecast
        if f.grid is None:
            return render.film(layout=f.layout, **self.drawing())
        with interrupts.deferred():
            from .. import maps  # matplotlib, which takes a second to import

        return maps.MapFilm(f.grid, f.context, f.frames, f.panels, f.title, layout=f.layout)

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        with video.encode(path, self.forecast.fps) as self._encoder:
            yield

    def given(self, index: int, frame: Frame) -> None:
        self._encoder.write(self._comparison.context_frame(index, frame))

    def predicted(self, index: int, step: Step) -> None:
        canvas = self._comparison.predicted_frame(index, *step)
        if index == (self.forecast.frames - 1) // 2:
            self._poster = canvas
        self._encoder.write(canvas)

    def write_poster(self, path: Path) -> None:
        assert self._poster is not None
        imageio.imwrite(path, self._poster, extension=".png")
