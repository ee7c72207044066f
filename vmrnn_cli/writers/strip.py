"""A forecast as a film strip: `.png`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as imageio

from .. import maps, render
from . import Writer

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame


class StripWriter(Writer):
    """One picture of the whole clip."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._strip = maps.strip(forecast) if forecast.grid else render.FilmStrip(**self.drawing())

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        imageio.imwrite(path, self._strip.canvas, extension=".png")

    def given(self, index: int, frame: Frame) -> None:
        self._strip.context_frame(index, frame)

    def predicted(self, index: int, step: Step) -> None:
        self._strip.predicted_frame(index, *step)
