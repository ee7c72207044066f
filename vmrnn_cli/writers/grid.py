"""A forecast of a grid as a grid: `.nc`, `.h5` and `.zarr`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..errors import InputError
from ..grids.record import dataset_of, write_dataset
from . import ValuesWriter

if TYPE_CHECKING:
    from ..forecast import Forecast, Step
    from ..frames import Frame


class GridWriter(ValuesWriter):
    """The forecast in the data's own units, with all that stood around the given scans, and its valid times."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        if forecast.grid is None:
            raise InputError(
                f"{forecast.source or 'the clip'} is no grid, and has no coordinates to write",
                "write .npz, or give NetCDF, HDF5 or Zarr",
            )
        self._frames: list[Frame] = []

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        clip = self.forecast.grid
        assert clip is not None
        values = clip.values(np.stack(self._frames))
        write_dataset(dataset_of(clip, values, self.forecast.title, __version__), clip.series.axes.variable, path)

    def predicted(self, index: int, step: Step) -> None:
        self._frames.append(step.prediction)
