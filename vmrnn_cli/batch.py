"""Forecasts of many clips, each into a file of its own. Processes that work together share them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import outputs, render, video
from .errors import VMRNNError, explained
from .forecast import Forecast, Progress
from .predictor import Predictor, assumed, fitting_weights, load_weights, open_forecast
from .ranks import Ranks
from .readings import Declared
from .writers import find_writer


class Loaded(NamedTuple):
    """A predictor, the name to show for its weights, what was assumed of them, and the seconds that loading took."""

    predictor: Predictor
    name: str
    note: str | None
    seconds: float


def load(weights: str, **options: Any) -> Loaded:
    """Load weights; the options are those of `Predictor`."""
    begin = time.perf_counter()
    model, name = load_weights(weights)
    predictor = Predictor(model, **options)
    return Loaded(predictor, name, assumed(weights, model), time.perf_counter() - begin)


@dataclass(frozen=True)
class Outcome:
    """What became of a clip: a forecast that was made and written, by which predictor, or an error in one line."""

    source: Path
    target: Path
    forecast: Forecast | None = None
    loaded: Loaded | None = None
    error: str = ""
    exit_code: int = 0


def forecast_files(
    files: Sequence[tuple[Path, Path]], load: Callable[[str], Loaded], *, declared: Declared, weights: str | None,
    start: float, panels: Sequence[str] | None, overwrite: bool, ranks: Ranks, strict: bool,
    progress: Callable[[int], AbstractContextManager[Progress | None]], **options: Any,
) -> Iterator[tuple[int, Outcome]]:  # fmt: skip
    """Forecast clips, each into a file, those whose turn is this rank's own; yield the number and outcome of each.

    `files` holds (source, target); `declared` is said of all sources. Without `weights`, each clip gets those that fit
    it; `load` is asked for each.
    `strict` raises what one clip runs into, instead of going on with the next. `progress`, given the number of frames
    ahead, yields the callback to be told of each. The options are those of `open_forecast` and `Forecast.save`.
    """
    if weights is not None and files:
        load(weights)  # bad weights fail once, not for each source
    for number in range(ranks.rank, len(files), ranks.world):
        source, target = files[number]
        try:
            clip = video.Source(source, declared)
            loaded = load(weights or fitting_weights(clip, start))
            options |= {"start": start, "title": loaded.name, "load_s": loaded.seconds}
            shown = tuple(panels or render.WITH_TRUTH)
            fit = functools.partial(find_writer(target).fit, panels=len(shown))
            with (
                open_forecast(loaded.predictor, clip, panels=shown, fit=fit, **options) as forecast,
                progress(forecast.frames) as told,
            ):
                outputs.make_folder(target.parent)
                forecast.save(target, panels=panels, overwrite=overwrite, progress=told)
            yield number, Outcome(source, target, forecast, loaded)
        except Exception as error:  # whatever one clip runs into, memory above all, must not end the batch
            known = explained(error)
            if known is None or strict:
                raise
            line = str(error if isinstance(error, VMRNNError) else f"{source}: {known}")
            yield number, Outcome(source, target, error=line, exit_code=known.exit_code)
