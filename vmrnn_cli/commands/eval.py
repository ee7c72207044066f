"""`vmrnn eval`: every metric, per frame ahead, beside the forecasts that cost nothing."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import interrupts
from ..errors import InputError
from ..text import for_plots, printable
from . import options
from .options import DATA, OUTPUT, option

if TYPE_CHECKING:
    from ..evaluate import Evaluation

_CLIPPED = "given values exceed {:g}, the highest in training: the network sees them cut off there"
_NAMES = {
    "mse": "MSE",
    "mae": "MAE",
    "ssim": "SSIM",
    "psnr": "PSNR dB",
    "sharpness": "sharpness, of the truth's",
    "ssim_published": "SSIM as published",
    "psnr_published": "PSNR as published",
    "lpips": "LPIPS (AlexNet)",
}
_LPIPS = option(OUTPUT, "Add the learned perceptual distance; needs vmrnn\\[lpips].", "--lpips", default=False)
_SAVE_WORST = option(
    OUTPUT, "Write the N worst forecasts as film strips, worst-1.png ...", default=0, metavar="N", min=0, max=1000
)


def evaluate(
    data: Path = option(DATA, "As for `vmrnn train`; also arrays of clips, (N,T,H,W) or (N,T,C,H,W).", default=...),
    dataset: str | None = options.DATASET,
    layout: str | None = options.LAYOUT,
    value_range: str | None = options.RANGE,
    missing: str | None = options.MISSING,
    split: str = option(DATA, "train, val, test or all.", default="test"),
    size: str | None = options.SIDE,
    limit: int | None = option(DATA, "Use only the first so many clips.", min=1),
    batch_size: int = option(DATA, "Clips at once.", default=16, min=1),
    context: int | None = options.CONTEXT,
    frames: int | None = options.FRAMES,
    weights: str | None = options.WEIGHTS,
    scan: str = options.SCAN,
    device: str = options.DEVICE,
    dtype: str = options.DTYPE,
    threads: int | None = options.THREADS,
    lpips: bool = _LPIPS,
    plot: Path | None = option(OUTPUT, "Draw quality against frames ahead into this .png.", metavar="FILE.png"),
    save_worst: int = _SAVE_WORST,
    out: Path = option(OUTPUT, "Folder for --save-worst.", default=Path()),
    overwrite: bool = options.OVERWRITE,
    as_json: bool = options.JSON,
    quiet: bool = options.QUIET,
    debug: bool = options.DEBUG,
) -> None:
    """Score weights on a data set, beside forecasts that cost nothing. Under torchrun, processes share the clips."""
    pictures = _check_before_loading(plot, [out / f"worst-{place + 1}.png" for place in range(save_worst)], overwrite)
    with interrupts.deferred():
        from .. import batch, devices, metrics
        from .. import evaluate as evaluation
        from .. import weights as known_weights
        from ..data import DataSource
        from ..frames import parse_side
        from ..ranks import DAY, Ranks

    if lpips:
        metrics.lpips_network()  # missing? say so before the data is read
    devices.set_threads(threads)
    source = DataSource(data, dataset, options.declared(layout, value_range, missing))
    wanted = known_weights.default_name(source.first_frame(split)) if weights is None else weights
    ranks = Ranks(device, DAY)
    shown = ranks.rank == 0 and not (as_json or quiet)
    loaded = batch.load(wanted, device=str(ranks.device), dtype=dtype, scan_backend=scan)
    config = loaded.predictor.model.config
    context = config.context if context is None else context
    frames = config.horizon if frames is None else frames
    clips = evaluation.open_clips(source, config, split, context, frames, parse_side(size), lpips=lpips)
    if shown:
        options.announce(clips, loaded)
    count = functools.partial(_count, min(len(clips), limit or len(clips)))
    result = evaluation.evaluate(
        loaded.predictor, clips, context=context, horizon=frames, batch_size=batch_size, limit=limit,
        names=(*evaluation.ALL, "lpips") if lpips else evaluation.ALL, keep_worst=save_worst, ranks=ranks,
        progress=count if shown and sys.stderr.isatty() else None,
    )  # fmt: skip
    ranks.leave()
    if ranks.rank:
        return  # every rank has the whole result, one tells it
    summary = {**result.summary(), "context": context, "horizon": frames, "weights": loaded.name, "data": str(data)}
    summary |= {"split": split, "frame_size": list(clips.clip_shape[:1:-1]), "notes": list(clips.notes)}
    summary |= {} if clips.divided_by is None else {"divided_by": clips.divided_by}
    _tell(summary, result.clipped if shown else 0, as_json)
    _draw(plot, summary, overwrite)
    _write_worst(result, pictures, loaded.name, overwrite)


def _check_before_loading(plot: Path | None, pictures: list[Path], overwrite: bool) -> list[Path]:
    """The pictures. Refuses files that cannot be written before the clips are forecast, which may take hours."""
    from .. import outputs

    if plot is not None:
        if plot.suffix.lower() != ".png":
            raise InputError(f"{plot} is no .png file", "end the name of --plot in .png")
        outputs.check_target(plot, overwrite)
        if plot.resolve() in [picture.resolve() for picture in pictures]:
            raise InputError(f"--plot and --save-worst would both write {plot}", "name another --plot")
    for picture in pictures:
        outputs.check_folder(picture.parent, "--out")
        if picture.parent.exists():  # else it is made with the first
            outputs.check_target(picture, overwrite)
    return pictures


def _count(total: int, done: int) -> None:
    print(f"\r{done}/{total} clips", end="" if done < total else "\n", file=sys.stderr)


def _tell(summary: dict[str, Any], clipped: int, as_json: bool) -> None:
    if clipped:
        print(f"warning: in {clipped} clips, {_CLIPPED.format(summary['divided_by'])}", file=sys.stderr)
    print(json.dumps(summary)) if as_json else _print_table(summary)


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .. import rivals

    forecasts = {"this network": summary, **{label: summary[key] for key, label in rivals.RIVAL_NAMES.items()}}
    name = printable(summary["weights"])
    table = Table(title=Text(f"{name}: {summary['clips']} clips, {summary['context']} -> {summary['horizon']}"))
    table.add_column("metric")
    for forecast in forecasts:
        table.add_column(forecast, justify="right")
    for key in summary["per_frame"]:
        label = _NAMES[key]
        table.add_row(label, *(_with_interval(scores, key) for scores in forecasts.values()))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for key, label in rivals.RIVAL_NAMES.items():
        print(f"MSE below that of {label} on {summary[key]['beaten_on']:.0%} of the clips")
    ahead = Table(title="MSE by frames ahead")
    for column in ("ahead", *forecasts):
        ahead.add_column(column, justify="right")
    curves = [scores["per_frame"]["mse"] for scores in forecasts.values()]
    digits = 1 if max(value or 0 for curve in curves for value in curve) >= 100 else 4
    for step, values in enumerate(zip(*curves, strict=True), 1):
        ahead.add_row(f"+{step}", *("–" if value is None else f"{value:.{digits}f}" for value in values))
    console.print(ahead)


def _with_interval(scores: dict[str, Any], key: str) -> str:
    if scores[key] is None:
        return "∞" if "psnr" in key else "–"
    digits = 4 if "ssim" in key or key == "lpips" or scores[key] < 1 else 2
    interval = scores["interval_95"][key]
    around = " ({:.{n}f} - {:.{n}f})".format(*interval, n=digits) if interval else ""  # none of a single clip
    return f"{scores[key]:.{digits}f}{around}"


def _draw(path: Path | None, summary: dict[str, Any], overwrite: bool) -> None:
    if path is None:
        return
    import math

    from matplotlib.figure import Figure

    from .. import rivals
    from ..outputs import atomic_path

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    ahead = range(1, summary["horizon"] + 1)
    for axis, key in zip(axes, ("mse", "ssim", "psnr"), strict=True):
        dashes = iter(("--", ":"))
        for label, scores, style in (
            (for_plots(summary["weights"]), summary, "-o"),
            *((label, summary[key], next(dashes)) for key, label in rivals.RIVAL_NAMES.items()),
        ):
            values = [math.nan if value is None else value for value in scores["per_frame"][key]]
            (line,) = axis.plot(ahead, values, style, label=label, markersize=3)
            edges = [pair or (math.nan, math.nan) for pair in scores["per_frame_interval_95"][key]]
            axis.fill_between(ahead, *zip(*edges, strict=True), color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set(xlabel="frames ahead", ylabel=_NAMES[key])
    axes[0].legend()
    figure.suptitle(
        f"{summary['clips']} clips, {summary['context']} -> {summary['horizon']}, with 95 % intervals", size="medium"
    )
    with atomic_path(path, overwrite) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        figure.savefig(temporary, dpi=120)


def _write_worst(result: Evaluation, pictures: list[Path], name: str, overwrite: bool) -> None:
    from .. import outputs

    for picture, scored in zip(pictures, result.worst, strict=False):  # fewer clips than wanted
        outputs.make_folder(picture.parent)
        scored.forecast(f"{name}, MSE {scored.mse:.4g}").save(picture, overwrite=overwrite)
