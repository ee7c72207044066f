"""Forecasts of many clips, each into a file of its own. Processes that work together share them.

Importing this takes no PyTorch: what cannot end well is refused before weights are loaded, which takes seconds.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import interrupts, outputs, render, video
from . import weights as known_weights
from .errors import InputError, VMRNNError, explained
from .grids.files import is_pattern
from .writers import WRITERS, find_writer

if TYPE_CHECKING:
    from .forecast import Forecast, Progress
    from .predictor import Predictor
    from .ranks import Ranks
    from .readings import Declared


def find_files(
    names: Sequence[str], output: str | None = None, form: str | None = None, *, skip_existing: bool = False
) -> list[tuple[Path, Path]]:
    """Each source and the file that its forecast goes to.

    Args:
        names: of the sources.
        output: a file, or a folder for files SOURCE_predicted; default this folder.
        form: the suffix of these files; default "gif".
        skip_existing: leave out sources whose output is there.

    Raises:
        InputError: a name or the format is unusable, or two sources would share an output.
    """
    if "" in names:
        raise InputError("the name of a source is empty", "name a clip")
    for name in names:
        addressed = re.match(r"\w+://", name) and not Path(name).exists()
        if addressed or re.fullmatch(r"-|/dev/(stdin|fd/\d+)|/proc/self/fd/\d+", name):
            raise InputError(f"{name}: neither addresses nor standard input are read", "save the clip as a file first")
    sources = [Path(name) for name in names]
    pairs = zip(sources, _targets(sources, output, form), strict=True)
    return [(source, target) for source, target in pairs if not (skip_existing and target.exists())]


def _targets(sources: list[Path], output: str | None, form: str | None) -> list[Path]:
    """One output file per source."""
    suffix = f".{(form or 'gif').lower().removeprefix('.')}"
    if suffix not in WRITERS:
        raise InputError(f"there is no format '{form}'", f"use {', '.join(s[1:] for s in WRITERS)}")
    if output is not None and output.lower() in ("", "-", *WRITERS):
        raise InputError(f"{output or '-o'} names no output", "give a file with a name, or a folder")
    folder = Path(output or "")
    is_store = folder.suffix.lower() == ".zarr"  # which is a folder, and a file to us
    is_folder = (
        output is None or output.endswith(("/", os.sep)) or not folder.suffix or (folder.is_dir() and not is_store)
    )
    if not is_folder:
        if len(sources) > 1:
            raise InputError(f"{output} is one file for {len(sources)} sources", "give a folder with -o")
        if form is not None and folder.suffix.lower() != suffix:
            raise InputError(f"{output} and --format {form} contradict each other", "leave --format out")
        return [folder]
    given = [(source, outputs.given_name(source)) for source in sources]
    names = [name if source.is_dir() and source.suffix != ".zarr" else _stem(name) for source, name in given]
    names = [
        outputs.given_name(source.parent.resolve()) if is_pattern(str(source)) else name
        for source, name in zip(sources, names, strict=True)
    ]
    targets = [folder / f"{name}_predicted{suffix}" for name in names]
    first: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        if first.setdefault(target, source) is not source:
            raise InputError(
                f"{first[target]} and {source} would both be written to {target}", "predict them apart, with -o"
            )
    return targets


def _stem(name: str) -> str:
    """A file's name without its suffix, or both of one that is packed: "rain.pgm.gz"."""
    return Path(name.removesuffix(".gz") if name.endswith((".pgm.gz", ".nc.gz")) else name).stem


def check_files(files: Sequence[tuple[Path, Path]], output: str | None, overwrite: bool) -> None:
    """Raise InputError for what `find_files` found, if no source is there or an output cannot be written."""
    sources = [source for source, _ in files]
    if sources and not any(source.exists() or is_pattern(str(source)) for source in sources):
        raise InputError(f"{sources[0]} does not exist", "check the path")
    for source, target in files:
        find_writer(target)
        if target.exists() and any(target.samefile(other) for other in sources if other.exists()):
            raise InputError(f"{target} is a source itself", "name another output")
        if target.suffix.lower() == ".png" and source.is_dir() and target.parent.resolve() == source.resolve():
            raise InputError(f"{target} would become a frame of {source}", "write it to another folder")
        if (
            target.suffix.lower() in (".nc", ".h5", ".zarr")
            and source.is_dir()
            and target.parent.resolve() == source.resolve()
        ):
            raise InputError(f"{target} would become a scan of {source}", "write it to another folder")
        if output is None or target == Path(output) or target.parent.exists():
            outputs.check_target(target, overwrite)
        else:  # it is made with the first output
            outputs.check_folder(target.parent, "-o")


class Loaded(NamedTuple):
    """A predictor, the name to show for its weights, what they are known for, what was assumed, and how long it took.

    seconds : of loading
    """

    predictor: Predictor
    name: str
    known_for: str
    note: str | None
    seconds: float

    def describe(self) -> list[str]:
        """What runs where, and a warning of what was assumed."""
        warnings = [f"warning: {self.note}"] if self.note else []
        return [f"{self.name}{self.known_for} on {self.predictor.runs_on}", *warnings]


def load(weights: str, **options: Any) -> Loaded:
    """Load weights; the options are those of `Predictor`."""
    with interrupts.deferred():
        from . import predictor

    begin = time.perf_counter()
    model, name = predictor.load_weights(weights)
    # What weights of ours were trained on: people should not expect more of them.
    entry = known_weights.registry().get(weights)
    known_for = f" ({entry['data']})" if entry else ""
    made = predictor.Predictor(model, **options)
    return Loaded(made, name, known_for, predictor.assumed(weights, model), time.perf_counter() - begin)


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
    files: Sequence[tuple[Path, Path]], *, declared: Declared, weights: str | None, start: float,
    panels: Sequence[str] | None, layout: str | None = None, poster: bool = False, overwrite: bool, ranks: Ranks,
    strict: bool, announce: Callable[[Loaded], None],
    progress: Callable[[int, str], AbstractContextManager[Progress | None]], runs: dict[str, Any], **options: Any,
) -> Iterator[tuple[int, Outcome]]:  # fmt: skip
    """Forecast clips, each into a file, those whose turn is this rank's own; yield the number and outcome of each.

    `files` holds (source, target); `declared` is said of all sources. Without `weights`, each clip gets those that fit
    it; each are loaded once, as `runs` says to `Predictor`, and announced. `strict` raises what one clip runs into,
    instead of going on with the next. `progress`, given the number of frames ahead and what is done with them, yields
    the callback to be told of each. The options are those of `open_forecast` and `Forecast.save`.
    """
    with interrupts.deferred():
        from .predictor import fitting_weights, open_forecast

    @functools.cache
    def loaded_once(name: str) -> Loaded:
        loaded = load(name, device=str(ranks.device), **runs)
        announce(loaded)
        return loaded

    if weights is not None and files:
        loaded_once(weights)  # bad weights fail once, not for each source
    for number in range(ranks.rank, len(files), ranks.world):
        source, target = files[number]
        try:
            clip = video.Source(source, declared)
            chosen = weights or fitting_weights(clip, start)
            known_weights.check_units(chosen, clip.units, clip.has_range)
            loaded = loaded_once(chosen)
            options |= {"start": start, "title": loaded.name, "load_s": loaded.seconds}
            shown = tuple(panels or render.WITH_TRUTH)
            fit = functools.partial(find_writer(target).fit, panels=len(shown), layout=layout)
            with ExitStack() as stack:
                with progress(0, "reading") as told:
                    forecast = stack.enter_context(
                        open_forecast(loaded.predictor, clip, panels=shown, fit=fit, reading=told, **options)
                    )
                told = stack.enter_context(progress(forecast.frames, "predicting"))
                outputs.make_folder(target.parent)
                still = target.with_suffix(".png") if poster else None
                forecast.save(
                    target, panels=panels, overwrite=overwrite, progress=told, layout=layout, poster=still
                )  # fmt: skip
            yield number, Outcome(source, target, forecast, loaded)
        except Exception as error:  # whatever one clip runs into, memory above all, must not end the batch
            known = explained(error)
            if known is None or strict:
                raise
            line = str(error if isinstance(error, VMRNNError) else f"{source}: {known}")
            yield number, Outcome(source, target, error=line, exit_code=known.exit_code)
