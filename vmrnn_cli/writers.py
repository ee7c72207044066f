"""What a forecast is written as: a class for each kind of file, found by the suffix in one table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as imageio
import numpy as np

from . import interrupts, render, video
from .errors import InputError

if TYPE_CHECKING:
    from .forecast import Forecast, Step
    from .frames import Frame


class Writer(ABC):
    """Writes one forecast, while `file` is open: it is told of the given frames in their order, then of the steps."""

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast

    @abstractmethod
    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        """Write to `path`, which is whole when the block ends. Raises OSError, or VMRNNError if the encoder failed."""

    def given(self, index: int, frame: Frame) -> None:  # noqa: B027 - the forecast has them, too
        """Take given frame number `index`, counted from 0: (C, H, W)."""

    @abstractmethod
    def predicted(self, index: int, step: Step) -> None:
        """Take predicted frame number `index`, counted from 0."""

    @classmethod
    def fit(cls, frame_shape: tuple[int, int, int], panels: int) -> tuple[int, int] | None:
        """The size (H, W) of frames (C, H, W) that pictures with so many panels have room for; None for any."""
        return render.panel_size(frame_shape, panels)

    def drawing(self) -> dict[str, Any]:
        """What `render` wants to know of the forecast."""
        f = self.forecast
        # One channel is gray, three are colours; anything else is gridded data, far below 1 or above it.
        peak = 1.0 if f.shape[0] in (1, 3) else max(float(f.context.max()), 1e-3)
        look = {"fps": f.fps if f.has_clock else None, "panels": f.panels, "title": f.title, "peak": peak}
        return {"frame_shape": f.shape, "context": len(f.context), "frames": f.frames, **look}


class ArrayWriter(Writer):
    """`context`, `prediction`, `truth`, float32 (T, C, H, W) in the clip's own units, `fps`, and further pictures."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._steps: list[Step] = []

    @classmethod
    def fit(cls, frame_shape: tuple[int, int, int], panels: int) -> tuple[int, int] | None:
        return None

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        clips = {"context": list(self.forecast.context), "prediction": [step.prediction for step in self._steps]}
        if known := [step.truth for step in self._steps if step.truth is not None]:
            clips["truth"] = known
        arrays: dict[str, Any] = {
            name: np.stack(clip) * np.float32(self.forecast.divided_by) for name, clip in clips.items()
        }
        arrays |= {name: np.stack([step.extra[name] for step in self._steps]) for name in self._steps[0].extra}
        with path.open("wb") as file:  # as for a name numpy.savez adds ".npz" to all but lower case ones
            np.savez(file, fps=self.forecast.fps, **arrays)

    def predicted(self, index: int, step: Step) -> None:
        self._steps.append(step)


class StripWriter(Writer):
    """One picture of the whole clip."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._strip = render.FilmStrip(**self.drawing())

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        imageio.imwrite(path, self._strip.canvas, extension=".png")

    def given(self, index: int, frame: Frame) -> None:
        self._strip.context_frame(index, frame)

    def predicted(self, index: int, step: Step) -> None:
        self._strip.predicted_frame(index, *step)


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


class PageWriter(Writer):
    """One HTML file that opens anywhere: players in step, and how the errors grow."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        with interrupts.deferred():
            from .pages.forecast import ForecastPage  # only who asks for a page needs what makes it

        self._page = ForecastPage(forecast, self.drawing()["peak"])

    @classmethod
    def fit(cls, frame_shape: tuple[int, int, int], panels: int) -> tuple[int, int] | None:
        return render.panel_size(frame_shape, 2)  # as many as stand beside each other on a wide screen

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        self._page.write(path)

    def given(self, index: int, frame: Frame) -> None:
        self._page.given(frame)

    def predicted(self, index: int, step: Step) -> None:
        self._page.predicted(step)


WRITERS: dict[str, type[Writer]] = {
    ".gif": FilmWriter,
    ".mp4": FilmWriter,
    ".webm": FilmWriter,
    ".png": StripWriter,
    ".npz": ArrayWriter,
    ".html": PageWriter,
}


def find_writer(path: str | Path) -> type[Writer]:
    """The writer for a file's suffix. Raises InputError for an unknown one."""
    writer = WRITERS.get(Path(path).suffix.lower())
    if writer is None:
        raise InputError(f"cannot tell the format of {path}", f"end its name in one of {', '.join(WRITERS)}")
    return writer
