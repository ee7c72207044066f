"""`vmrnn predict`: from clips to side-by-side forecasts."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupts
from ..errors import InputError
from ..text import one_line, printable
from . import options
from .options import CLIP, OUTPUT, option

if TYPE_CHECKING:
    from ..batch import Outcome
    from ..forecast import Forecast, Progress
    from ..ranks import Ranks


def _formats() -> list[str]:
    from ..writers import WRITERS

    return [suffix[1:] for suffix in WRITERS]


_SOURCE = typer.Argument(
    ...,
    metavar="SOURCE",
    help="Videos, GIFs, folders of numbered images, arrays (.npy, .npz), or grids (NetCDF, HDF5, Zarr; of one scan a "
    "file, the folder or a 'pattern*.nc').",
)
_OUT = option(
    OUTPUT,
    "A .gif, .mp4, .webm, .png (film strip), .npz, .html (page), or of grids .nc, .h5 or .zarr file, or a folder. "
    "(default: SOURCE_predicted.gif)",
    "-o",
    "--output",
    metavar="OUT",
)
_FORMAT = option(
    OUTPUT,
    "gif, mp4, webm, png, npz, html, nc, h5 or zarr, where -o names no file. (default: gif)",
    "--format",
    metavar="FORMAT",
    autocompletion=_formats,
)
_PANELS = option(
    OUTPUT,
    "Of context, truth, prediction, error, motion and weights, with commas. (default: what there is)",
    metavar="LIST",
)
_LAYOUTS = option(
    OUTPUT,
    "How a film shows its panels: row, column, grid or swipe; or which axis of an array is what: THWC, say.",
    "--layout",
    metavar="NAME",
)
_SIZE = option(
    CLIP,
    "Frame size; S is the shorter side. (default: the network's as trained, the picture's as the clip)",
    metavar="native|S|WxH",
)


_WHOLE = option(
    CLIP,
    "Draw what moves as one, in one place, not as the mean that is scored and fades. (default: of videos and images)",
    "--whole/--no-whole",
)


def predict(
    names: list[str] = _SOURCE,  # a Path would take an empty name for this folder
    output: str | None = _OUT,  # a Path would lose the slash of a folder's name
    form: str | None = _FORMAT,
    panels: str | None = _PANELS,
    layouts: list[str] | None = _LAYOUTS,  # of films and of arrays: no name is both
    poster: bool = option(OUTPUT, "Write a still of each film, too: OUT.png.", "--poster", default=False),
    overwrite: bool = options.OVERWRITE,
    skip_existing: bool = option(OUTPUT, "Leave out sources whose output is there.", "--skip-existing", default=False),
    frames: int | None = options.FRAMES,
    context: int | None = options.CONTEXT,
    start: float = option(CLIP, "Skip the beginning.", default=0.0, metavar="SECONDS"),
    from_end: bool = option(CLIP, "Predict past the clip's last frame.", "--from-end", default=False),
    force: bool = option(CLIP, "With --from-end, take a clip that is damaged or breaks off.", "--force", default=False),
    fps: float | None = option(CLIP, "Resample a video to this rate; for images and arrays, state it."),
    size: str | None = _SIZE,
    gray: bool = option(CLIP, "Draw the forecast gray, whatever the clip is.", "--gray", default=False),
    value_range: str | None = options.RANGE,
    missing: str | None = options.MISSING,
    variable: str | None = options.VARIABLE,
    select: list[str] | None = options.SELECT,
    gaps: str | None = options.GAPS,
    transform: str | None = options.TRANSFORM,
    match: bool | None = options.MATCH,
    whole: bool | None = _WHOLE,
    weights: str | None = options.WEIGHTS,
    scan: str = options.SCAN,
    device: str = options.DEVICE,
    dtype: str = options.DTYPE,
    threads: int | None = options.THREADS,
    as_json: bool = options.JSON,
    quiet: bool = options.QUIET,
    debug: bool = options.DEBUG,
) -> None:
    """Predict how clips go on, and show the forecast beside what really came. Under torchrun, processes share clips."""
    with interrupts.deferred():
        from .. import batch, render
        from ..readings import Declared

    layout, axes = render.split_layouts(layouts or [])
    declared = Declared.parse(
        axes, value_range, missing, variable=variable, select=select, gaps=gaps, transform=transform
    )
    _check_options(weights, overwrite, skip_existing)
    files = batch.find_files(names, output, form, skip_existing=skip_existing)  # of all processes, before any writes
    drawn = None if panels is None else [panel.strip() for panel in panels.split(",")]
    _check_before_loading(files, output, overwrite, drawn, layout, poster)

    with interrupts.deferred():
        from .. import devices
        from ..ranks import DAY, Ranks

    devices.set_threads(threads)
    ranks = Ranks(device, DAY)
    shown = ranks.rank == 0 and not (as_json or quiet)
    if shown and len(files) < len(names):
        print(f"skipping {len(names) - len(files)} of {len(names)}: their output is there", file=sys.stderr)
    outcomes = batch.forecast_files(
        files, declared=declared, weights=weights, start=start, panels=drawn, layout=layout, poster=poster,
        overwrite=overwrite, ranks=ranks, strict=debug or len(names) == ranks.world == 1,
        announce=options.announce if shown else lambda _: None, progress=functools.partial(_bar, shown),
        runs={"dtype": dtype, "scan_backend": scan}, frames=frames, context=context,
        from_end=from_end, force=force, fps=fps, size=size, gray=gray, match=match, whole=whole,
    )  # fmt: skip
    _tell_all(outcomes, ranks, as_json=as_json, quiet=quiet, alone=len(names) == 1)


def _check_options(weights: str | None, overwrite: bool, skip_existing: bool) -> None:
    if weights == "":
        raise InputError("--weights is empty", "name some, or leave it out")
    if overwrite and skip_existing:
        raise InputError("--overwrite and --skip-existing contradict each other", "leave one out")


def _tell_all(
    outcomes: Iterator[tuple[int, Outcome]], ranks: Ranks, *, as_json: bool, quiet: bool, alone: bool
) -> None:  # fmt: skip
    """Tell of each forecast as it is made, and of all together where programs ask for it."""
    # What --json tells of each forecast, or an error and its exit code.
    told = {n: _tell(outcome, silent=as_json or quiet, alone=ranks.world == 1) for n, outcome in outcomes}
    everyone = [result for _, result in sorted(pair for share in ranks.gather(told) for pair in share.items())]
    ranks.leave()
    _conclude(everyone, as_json and ranks.rank == 0, alone=alone)


def _check_before_loading(
    files: list[tuple[Path, Path]], output: str | None, overwrite: bool, panels: list[str] | None, layout: str | None,
    poster: bool,
) -> None:  # fmt: skip
    """Refuse what cannot be written or drawn before the weights are loaded."""
    from .. import batch, render, writers

    posters = [(source, target.with_suffix(".png")) for source, target in files] if poster else []
    batch.check_files([*files, *posters], output, overwrite)
    render.check_panels(panels)
    render.check_layout(layout, panels)
    for _, target in files:
        writers.check_film(target, layout, poster)


def _conclude(everyone: list[Any], as_json: bool, alone: bool) -> None:
    """Print all results for programs, if these want them, and leave with an error where there was one."""
    results = [result for result in everyone if isinstance(result, dict)]
    failures = [result for result in everyone if isinstance(result, tuple)]
    if as_json:
        together = {"forecasts": results, "failed": [line for line, _ in failures]}
        print(json.dumps(results[0] if alone and results else together))
    if failures:
        raise typer.Exit(1 if results or any(code == 1 for _, code in failures) else 2)


@contextlib.contextmanager
def _bar(shown: bool, frames: int, doing: str) -> Iterator[Progress | None]:
    """Yield the callback which advances a progress bar on stderr; a terminal only."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=frames)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tell(outcome: Outcome, *, silent: bool, alone: bool) -> dict[str, Any] | tuple[str, int]:
    """Print the outcome for people, if not told to be silent, and return it for programs."""
    forecast, source = outcome.forecast, outcome.source
    if forecast is None:
        print(f"error: {one_line(outcome.error)}", file=sys.stderr, flush=True)
        return outcome.error, outcome.exit_code
    result = _result(outcome, forecast)
    if not silent:
        for note in result["notes"]:
            print(f"warning: {printable(note)}", file=sys.stderr)
        if forecast.clipped_at is not None:
            highest, most = forecast.clipped_at * forecast.divided_by, forecast.divided_by
            what = f"given values go up to {highest:g}, in training up to {most:g}: the network sees them cut off there"
            print(f"warning: {printable(source)}: {what}", file=sys.stderr)
        print(_summary(source, forecast, result) if alone else _one_line(source, result), flush=True)
    return result


def _result(outcome: Outcome, forecast: Forecast) -> dict[str, Any]:
    import dataclasses

    assert outcome.loaded is not None
    predictor = outcome.loaded.predictor
    return {
        "source": str(outcome.source),
        "output": str(outcome.target),
        "device": str(predictor.device),
        "dtype": str(predictor.dtype).removeprefix("torch."),
        "scan_backend": predictor.scan_backend,
        "weights": outcome.loaded.name,
        "context": len(forecast.context),
        "frames": forecast.frames,
        "frame_size": list((forecast.scored_on or forecast.shape)[:0:-1]),
        "picture_size": list(forecast.shape[:0:-1]),
        "whole": forecast.whole,
        "fps": forecast.fps,
        "divided_by": forecast.divided_by,
        "notes": forecast.notes,
        "known_frames": forecast.score.frames,
        "timing": dataclasses.asdict(forecast.timing),
        "metrics": forecast.metrics,
        **forecast.baselines,
        **({} if forecast.grid is None else {"grid": forecast.grid.told(forecast.frames)}),
    }


def _summary(source: Path, forecast: Forecast, result: dict[str, Any]) -> str:
    from .. import rivals

    def row(label: str, means: dict[str, float | None]) -> str:
        mse, ssim, psnr = (means[key] for key in ("mse", "ssim", "psnr"))
        digits = 4 if mse and mse < 1 else 2
        return "  ".join(
            (f"  {label:<20}", _number(mse, f"10.{digits}f"), _number(ssim, "7.4f"), _number(psnr, "7.2f", "∞"))
        )  # fmt: skip

    timing = forecast.timing
    speed = timing.steps / timing.predict_s if timing.predict_s else 0.0
    lines = [
        f"{printable(source)}: {result['context']} frames given, {result['frames']} predicted ({speed:.1f} steps/s)"
    ]
    if result["metrics"] is not None:
        known = forecast.score.frames
        lines += [
            f"  {f'over {known} known frames':<20}  {'MSE':>10}  {'SSIM':>7}  {'PSNR dB':>7}",
            row("this forecast", result["metrics"]),
            *(row(label, result[key]) for key, label in rivals.RIVAL_NAMES.items()),
        ]
        divided = "" if forecast.divided_by == 1 else f", values divided by {forecast.divided_by:g}"
        C, H, W = forecast.scored_on or forecast.shape
        own = "" if forecast.shape == (C, H, W) else f" of the network's picture, {W}x{H}{' gray' if C == 1 else ''}"
        drawn = "; what moves is drawn whole, a mean is scored" if forecast.whole else ""
        lines.append(f"  (MSE is summed over a frame{own} in [0, 1]{divided}{drawn})")
    if forecast.grid is not None:
        lines.append(f"  {printable(forecast.grid.in_words(forecast.frames))}")
    return "\n".join([*lines, f"  wrote {printable(result['output'])}"])


def _one_line(source: Path, result: dict[str, Any]) -> str:
    """The summary where several processes print theirs."""
    line = f"{printable(source)}: {result['context']} frames given, {result['frames']} predicted"
    if result["metrics"] is not None:
        mse, last, moved = (
            _number(result[key]["mse"], "1.2f") for key in ("metrics", "baseline_last_frame", "baseline_motion")
        )
        line += f", MSE {mse}, last frame {last}, motion continued {moved}"
    return f"{line}, wrote {printable(result['output'])}"


def _number(value: float | None, form: str, none: str = "–") -> str:
    return format(value, form) if value is not None else none.rjust(int(form.split(".")[0]))
