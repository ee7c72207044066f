"""A forecast as arrays: `.npz`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ValuesWriter

if TYPE_CHECKING:
    from ..forecast import Forecast, Step


class ArrayWriter(ValuesWriter):
    """`context`, `prediction`, `truth`, float32 (T, C, H, W) in the clip's own units, `fps`, and further pictures."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self._steps: list[Step] = []

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        yield
        clips = {"context": list(self.forecast.context), "prediction": [step.prediction for step in self._steps]}
        if known := [step.truth for step in self._steps if step.truth is not None]:
            clips["truth"] = known
        scale, offset = np.float32(self.forecast.divided_by), np.float32(self.forecast.offset)
        arrays: dict[str, Any] = {name: np.stack(clip) * scale + offset for name, clip in clips.items()}
        arrays |= {name: np.stack([step.extra[name] for step in self._steps]) for name in self._steps[0].extra}
        with path.open("wb") as file:  # as for a name numpy.savez adds ".npz" to all but lower case ones
            np.savez(file, fps=self.forecast.fps, **arrays)

    def predicted(self, index: int, step: Step) -> None:
        self._steps.append(step)
