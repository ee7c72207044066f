"""What a forecast is written as: a class for each kind of file, in a module here, found by the suffix in one table."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import render
from ..errors import InputError

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame

# By suffix, the module here and its class.
WRITERS = {
    ".gif": ("film", "FilmWriter"),
    ".mp4": ("film", "FilmWriter"),
    ".webm": ("film", "FilmWriter"),
    ".png": ("strip", "StripWriter"),
    ".npz": ("array", "ArrayWriter"),
    ".html": ("page", "PageWriter"),
    ".nc": ("grid", "GridWriter"),
    ".h5": ("grid", "GridWriter"),
    ".zarr": ("grid", "GridWriter"),
}


class Writer(ABC):
    """Writes one forecast, while `file` is open: it is told of the given frames in their order, then of the steps.

    is_film : whether it has a layout, and a poster
    """

    is_film = False

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

    def write_poster(self, path: Path) -> None:
        """Write the picture that stands for a film, a PNG, once all steps have come."""
        raise NotImplementedError

    @classmethod
    def fit(cls, frame_shape: tuple[int, int, int], panels: int, layout: str | None = None) -> tuple[int, int] | None:
        """The size (H, W) of frames (C, H, W) that pictures with so many panels have room for; None for any."""
        return render.panel_size(frame_shape, panels, layout)

    def drawing(self) -> dict[str, Any]:
        """What `render` wants to know of the forecast."""
        f = self.forecast
        # One channel is gray, three are colours; anything else is gridded data, far below 1 or above it.
        peak = 1.0 if f.shape[0] in (1, 3) else max(float(f.context.max()), 1e-3)
        look = {"fps": f.fps if f.has_clock else None, "panels": f.panels, "title": f.title, "peak": peak}
        return {"frame_shape": f.shape, "context": len(f.context), "frames": f.frames, **look}


class ValuesWriter(Writer):
    """Writes values and draws no pictures: frames may have any size."""

    @classmethod
    def fit(cls, frame_shape: tuple[int, int, int], panels: int, layout: str | None = None) -> tuple[int, int] | None:
        return None


def check_film(path: str | Path, layout: str | None, poster: bool) -> None:
    """Raise InputError if something that only films have is wanted of another file."""
    if not (layout or poster) or find_writer(path).is_film:
        return
    films = ", ".join(suffix for suffix in WRITERS if find_writer(f"a{suffix}").is_film)
    for wanted, what in ((layout, "layout"), (poster, "poster")):
        if wanted:
            raise InputError(f"{path} has no {what}: it is no film", f"leave it out, or write one of {films}")


def find_writer(path: str | Path) -> type[Writer]:
    """The writer for a file's suffix. Raises InputError for an unknown one."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise InputError(f"cannot tell the format of {path}", f"end its name in one of {', '.join(WRITERS)}")
    module, name = WRITERS[suffix]
    return getattr(importlib.import_module(f".{module}", __name__), name)
