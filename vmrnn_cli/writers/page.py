"""A forecast as a page: `.html`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .. import render
from ..pages.forecast import ForecastPage
from . import Writer

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame


class PageWriter(Writer):
    """One HTML file that opens anywhere: players in step, and how the errors grow."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._page = ForecastPage(forecast, self.drawing()["peak"])

    @classmethod
    def fit(cls, frame_shape: tuple[int, int, int], panels: int, layout: str | None = None) -> tuple[int, int] | None:
        return render.panel_size(frame_shape, 1)  # a swipe shows one alone, at its full size

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        self._page.write(path)

    def given(self, index: int, frame: Frame) -> None:
        self._page.given(frame)

    def predicted(self, index: int, step: Step) -> None:
        self._page.predicted(step)
