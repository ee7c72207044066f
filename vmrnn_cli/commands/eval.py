"""`vmrnn eval`: every metric, per frame ahead, beside the forecasts that cost nothing."""

from __future__ import annotations

import json
import sys
import warnings
from collections import ChainMap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupts
from ..errors import InputError
from ..text import for_plots, printable
from . import options, reports
from .options import DATA, OUTPUT, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from ..batch import Loaded
    from ..data import ClipDataset, DataSource
    from ..evaluate import Evaluation
    from ..verification import Verification

_CLIPPED = "given values exceed {}: the network sees them cut off there"
_LPIPS = option(OUTPUT, "Add the learned perceptual distance; needs vmrnn\\[lpips].", "--lpips", default=False)
_THRESHOLDS = option(
    OUTPUT, "Add CSI, POD, FAR, bias, FSS, MAE and RMSE in the data's own units, of events that reach these.",
    metavar="V,V"
)  # fmt: skip
_SCALES = option(OUTPUT, "Of the fractions skill score, in places. (default: 4,16,64)", metavar="S,S")
_SAVE_WORST = option(
    OUTPUT, "Write the N worst forecasts as film strips, worst-1.png ...", default=0, metavar="N", min=0, max=1000
)

_WHOLE = option(
    options.MODEL, "Score what moves drawn as one, as `vmrnn predict` shows footage.", "--whole", default=False
)


def evaluate(
    given: typer.Context,
    data: Path = option(DATA, "As for `vmrnn train`, arrays of clips as (N,T,H,W) or so, or grids.", default=...),
    dataset: str | None = options.DATASET,
    layout: str | None = options.LAYOUT,
    value_range: str | None = options.RANGE,
    missing: str | None = options.MISSING,
    variable: str | None = options.VARIABLE,
    select: list[str] | None = options.SELECT,
    transform: str | None = options.TRANSFORM,
    match: bool | None = options.MATCH,
    whole: bool = _WHOLE,
    split: str = option(DATA, "train, val, test or all. (grids with coordinates: all)", default="test"),
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
    thresholds: str | None = _THRESHOLDS,
    scales: str | None = _SCALES,
    plot: Path | None = option(OUTPUT, "Draw quality against frames ahead into this .png.", metavar="FILE.png"),
    report: Path | None = options.REPORT,
    save_worst: int = _SAVE_WORST,
    out: Path = option(OUTPUT, "Folder for --save-worst.", default=Path()),
    overwrite: bool = options.OVERWRITE,
    as_json: bool = options.JSON,
    quiet: bool = options.QUIET,
    debug: bool = options.DEBUG,
) -> None:
    """Score weights on a data set, beside forecasts that cost nothing. Under torchrun, processes share the clips."""
    pictures = _check_before_loading(report, plot, out, save_worst, overwrite)
    with interrupts.deferred():
        from .. import batch
        from .. import evaluate as evaluation
        from ..ranks import DAY, Ranks

    source, side, verification = _open(given)
    ranks = Ranks(device, DAY)
    shown = ranks.rank == 0 and not (as_json or quiet)
    loaded = batch.load(_fitting(weights, source, split), device=str(ranks.device), dtype=dtype, scan_backend=scan)
    clips, context, frames = _clips(given, loaded, source, side)
    if shown:
        options.announce(clips, loaded)
    album = reports.album(report, clips, limit, context)
    result = evaluation.evaluate(
        loaded.predictor, clips, context=context, horizon=frames, batch_size=batch_size, limit=limit,
        names=(*evaluation.ALL, "lpips") if lpips else evaluation.ALL, keep_worst=save_worst, ranks=ranks, watch=album,
        progress=reports.counter(min(len(clips), limit or len(clips))) if shown else None, verification=verification,
        match=_are_matched(source, match), whole=whole,
    )  # fmt: skip
    played = ChainMap(*ranks.gather(album.clips if album else {}))
    ranks.leave()
    if ranks.rank:
        return  # every rank has the whole result, one tells it
    summary = result.summary() | _told_of(given, clips, context, frames, loaded.name, verification)
    _tell(summary, result.clipped if shown else 0, as_json)
    _write(given, summary, result, played, reports.facts(summary, clips, [loaded]), pictures)


def _clips(given: typer.Context, loaded: Loaded, source: DataSource, side: int | None) -> tuple[ClipDataset, int, int]:
    """The clips, and how many frames are given and forecast of each: as the network was trained, unless it is said."""
    from ..evaluate import open_clips

    said, config = given.params, loaded.predictor.model.config
    context, frames = (
        usual if said[name] is None else said[name]
        for name, usual in (("context", config.context), ("frames", config.horizon))
    )
    more = {"lpips": said["lpips"], "name": loaded.name}
    return open_clips(source, config, said["split"], context, frames, side, **more), context, frames


def _are_matched(source: DataSource, wanted: bool | None) -> bool:
    from ..grids.values import are_matched

    return are_matched(source.units, wanted)


def _open(given: typer.Context) -> tuple[DataSource, int | None, Verification | None]:
    """What the options name as data, and say of it; the side of its squares; and what scores it as forecasters do."""
    with interrupts.deferred():
        from .. import devices, metrics
        from ..data import DataSource
        from ..frames import parse_side
        from ..readings import Declared
        from ..verification import Verification

    said = given.params
    if said["lpips"]:
        metrics.lpips_network()  # missing? say so before the data is read
    verification = Verification.parse(said["thresholds"], said["scales"])
    devices.set_threads(said["threads"])
    side = parse_side(said["size"])
    of_grids = {name: said[name] for name in ("variable", "select", "transform")}
    declared = Declared.parse(said["layout"], said["value_range"], said["missing"], **of_grids)
    return DataSource(said["data"], said["dataset"], declared), side, verification


def _verified(verification: Verification | None, clips: ClipDataset, frames: int) -> dict[str, Any]:
    """The scores of forecasters, where thresholds were given."""
    if verification is None:
        return {}
    units = clips.units if isinstance(clips.units, str) else ""
    leads = [clips.lead(ahead) for ahead in range(1, frames + 1)]
    return {"verification": {**verification.summary(), "units": units, "leads": leads}}


def _check_before_loading(
    report: Path | None, plot: Path | None, out: Path, save_worst: int, overwrite: bool
) -> list[Path]:  # fmt: skip
    """The pictures. Refuses files that cannot be written before the clips are forecast, which may take hours."""
    from .. import outputs

    pictures = [out / f"worst-{place + 1}.png" for place in range(save_worst)]
    reports.check(report, overwrite, plot, *pictures)
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


def _fitting(weights: str | None, source: DataSource, split: str) -> str:
    """The weights that were named, else those that fit the clips."""
    from ..weights import check_units, default_name

    chosen = default_name(source.first_frame(split), source.units) if weights is None else weights
    check_units(chosen, source.units, source.has_range)
    return chosen


def _told_of(
    given: typer.Context, clips: ClipDataset, context: int, frames: int, weights: str, verification: Verification | None
) -> dict[str, Any]:
    """What a summary tells besides the usual scores."""
    divided = {} if clips.divided_by is None else {"divided_by": clips.divided_by}
    shape = {"context": context, "horizon": frames, "frame_size": list(clips.clip_shape[:1:-1])}
    told = {**shape, "weights": weights, "notes": list(clips.notes), **divided}
    told |= {"data": str(given.params["data"]), "split": given.params["split"], "whole": given.params["whole"]}
    return told | _verified(verification, clips, frames)


def _write(
    given: typer.Context, summary: dict[str, Any], result: Evaluation, played: Mapping[int, Any], facts: dict[str, str],
    pictures: list[Path],
) -> None:  # fmt: skip
    """Write what is asked for: a chart, a page, and the worst forecasts."""
    _draw(given.params["plot"], summary, given.params["overwrite"])
    _write_report(given, summary, result, played, facts)
    _write_worst(result, pictures, summary["weights"], given.params["overwrite"])


def _write_report(
    given: typer.Context, summary: dict[str, Any], result: Evaluation, played: Mapping[int, Any], facts: dict[str, str]
) -> None:  # fmt: skip
    if given.params["report"] is None:
        return
    from ..outputs import atomic_path
    from ..pages.report import write_evaluation

    notes = [_clipped(result.clipped, summary)] if result.clipped else []
    with atomic_path(given.params["report"], given.params["overwrite"]) as path:
        write_evaluation(path, summary, result, played, facts, options.typed(given), notes)


def _clipped(clips: int, summary: dict[str, Any]) -> str:
    limit = f"{summary['divided_by']:g}, the highest in training" if "divided_by" in summary else "the range"
    return f"warning: in {clips} clips, {_CLIPPED.format(limit)}"


def _tell(summary: dict[str, Any], clipped: int, as_json: bool) -> None:
    if clipped:
        print(_clipped(clipped, summary), file=sys.stderr)
    print(json.dumps(summary)) if as_json else _print_table(summary)


def _print_table(summary: dict[str, Any]) -> None:
    from rich.table import Table

    from .. import rivals

    forecasts = {"this network": summary, **{label: summary[key] for key, label in rivals.RIVAL_NAMES.items()}}
    console = reports.print_scores(
        summary, forecasts, of=f"{printable(summary['weights'])}{', drawn whole' * summary['whole']}: "
    )
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
    if "verification" in summary:
        _print_verification(summary, console)


def _print_verification(summary: dict[str, Any], console: Any) -> None:
    """CSI by lead time and threshold, then all scores at the last lead time with their intervals."""
    from rich.table import Table

    from .. import score_plots, verification

    found, names = summary["verification"], score_plots.names_of(summary)
    forecasts, units = found["forecasts"], f" {found['units']}" if found["units"] else ""
    for threshold in map("{:g}".format, found["thresholds"]):
        table = Table(title=f"CSI at {threshold}{printable(units)}")
        for column in ("ahead", *(printable(names[name]) for name in forecasts)):
            table.add_column(column, justify="right")
        for step, lead in enumerate(found["leads"]):
            values = (scores["thresholds"][threshold]["csi"]["per_lead"][step] for scores in forecasts.values())
            table.add_row(lead, *("–" if value is None else f"{value:.3f}" for value in values))
        console.print(table)
    table = Table(title=f"At {found['leads'][-1]}, {found['events']} event(s), or stretches of one")
    for column in ("score", *(printable(names[name]) for name in forecasts)):
        table.add_column(column, justify="right")
    for label, entries in verification.rows_of(found):
        table.add_row(printable(label), *(_last(entry) for entry in entries))
    console.print(table)


def _last(entry: dict[str, Any]) -> str:
    """A score at the last lead time, with its interval where there is one."""
    value, around = entry["per_lead"][-1], entry.get("interval_95", [[None, None]])[-1]
    if value is None:
        return "–"
    return f"{value:.3g}" if None in around else f"{value:.3g} ({around[0]:.3g} - {around[1]:.3g})"


def _draw(path: Path | None, summary: dict[str, Any], overwrite: bool) -> None:
    if path is None:
        return
    from ..outputs import atomic_path

    if "verification" in summary:
        from ..score_plots import draw_verification

        figure = draw_verification(summary, for_plots(summary["verification"]["units"]))
    else:
        figure = _quality(summary)
    with atomic_path(path, overwrite) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        figure.savefig(temporary, dpi=120)


def _quality(summary: dict[str, Any]) -> Figure:
    """MSE, SSIM and PSNR against frames ahead."""
    import math

    from matplotlib.figure import Figure

    from .. import metrics, rivals

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
        axis.set(xlabel="frames ahead", ylabel=metrics.NAMES[key])
    axes[0].legend()
    figure.suptitle(
        f"{summary['clips']} clips, {summary['context']} -> {summary['horizon']}, with 95 % intervals", size="medium"
    )
    return figure


def _write_worst(result: Evaluation, pictures: list[Path], name: str, overwrite: bool) -> None:
    from .. import outputs

    for picture, scored in zip(pictures, result.worst, strict=False):  # fewer clips than wanted
        outputs.make_folder(picture.parent)
        scored.forecast(f"{name}, MSE {scored.mse:.4g}").save(picture, overwrite=overwrite)
