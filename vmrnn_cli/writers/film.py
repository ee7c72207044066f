"""A forecast as a film: `.gif`, `.mp4` and `.webm`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .. import render, video
from . import Writer

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame


class FilmWriter(Writer):
    """Panels side by side, drawn and encoded frame by frame."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._comparison = render.Comparison(**self.drawing())

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        with video.encode(path, self.forecast.fps) as self._encoder:
            yield

    def given(self, index: int, frame: Frame) -> None:
        self._encoder.write(self._comparison.context_frame(index, frame))

    def predicted(self, index: int, step: Step) -> None:
        self._encoder.write(self._comparison.predicted_frame(index, *step))
