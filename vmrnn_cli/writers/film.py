"""A forecast as a film: `.gif`, `.mp4` and `.webm`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as imageio

from .. import maps, render, video
from . import Writer

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame


class FilmWriter(Writer):
    """Panels side by side, drawn and encoded frame by frame."""

    is_film = True

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._comparison = (
            maps.film(forecast) if forecast.grid else render.film(layout=forecast.layout, **self.drawing())
        )
        self._poster: render.Canvas | None = None  # of halfway through the forecast

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
