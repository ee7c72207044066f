"""`vmrnn eval`: every metric, per frame ahead, beside the forecasts that cost nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupts
from ..errors import InputError
from . import DEBUG

if TYPE_CHECKING:
    from ..evaluate import Evaluation

_NAMES = {
    "mse": "MSE",
    "mae": "MAE",
    "ssim": "SSIM",
    "psnr": "PSNR dB",
    "ssim_published": "SSIM as published",
    "psnr_published": "PSNR as published",
    "lpips": "LPIPS (AlexNet)",
}


def evaluate(
    data: Path = typer.Option(..., help="As for `vmrnn train`; also arrays of clips, (N,T,H,W) or (N,T,C,H,W)."),
    weights: str | None = typer.Option(None, help="As for `vmrnn predict`. (default: bundled ones that fit the data)"),
    dataset: str | None = typer.Option(None, help="Force kth, moving-mnist, taxibj, grid, clips or folder."),
    split: str | None = typer.Option(None, help="train, val, test or all. (default: test where there is one)"),
    context: int | None = typer.Option(None, help="Frames in. (default: as trained)"),
    horizon: int | None = typer.Option(None, help="Frames out. (default: as trained)"),
    limit: int | None = typer.Option(None, help="Use only the first so many clips."),
    batch_size: int = typer.Option(16, help="Clips at once."),
    size: int | None = typer.Option(
        None, help="Side of the squares that clips from a folder are scaled and cut to. (default: the weights')"
    ),
    lpips: bool = typer.Option(False, "--lpips", help="Add the learned perceptual distance; needs vmrnn\\[lpips]."),
    plot: Path | None = typer.Option(None, help="Draw quality against horizon into this .png.", metavar="FILE.png"),
    save_worst: int = typer.Option(0, metavar="N", help="Write the N worst forecasts as film strips, worst-1.png ..."),
    out: Path = typer.Option(Path(), help="Folder for --save-worst."),
    scan: str = typer.Option("auto", help="auto, native, torch, reference, triton or mamba."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    dtype: str = typer.Option("auto", help="auto, float32 or bfloat16."),
    threads: int | None = typer.Option(None, help="CPU threads."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace existing outputs."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the table and errors, nothing else."),
    debug: bool = DEBUG,
) -> None:
    """Score weights on a data set, beside the last frame repeated and linear extrapolation.

    Under torchrun, processes share the clips, and the numbers stay the same.
    """
    with interrupts.deferred():
        from .. import data as datasets
        from .. import devices, metrics, outputs, predictor
        from .. import weights as known_weights
        from ..data.arrays import GridWindows
        from ..evaluate import ALL
        from ..evaluate import evaluate as score
        from ..ranks import DAY, Ranks

    if plot is not None:
        if plot.suffix.lower() != ".png":
            raise InputError(f"{plot} is no .png file", "end the name of --plot in .png")
        outputs.check_target(plot, overwrite)
    for number, what, least, most in (
        (limit, "--limit", 1, 2**31),
        (batch_size, "--batch-size", 1, 2**31),
        (save_worst, "--save-worst", 0, 1000),
        (size, "--size", 2, 2**16),
    ):
        if number is not None and not least <= number <= most:
            raise InputError(f"{what} is {number}", f"give a number from {least} to {most}")
    pictures = [out / f"worst-{place}.png" for place in range(1, save_worst + 1)]
    if plot is not None and plot.resolve() in [picture.resolve() for picture in pictures]:
        raise InputError(f"--plot and --save-worst would both write {plot}", "name another --plot")
    _check_pictures(pictures, overwrite)
    if lpips:
        metrics.lpips_network()  # missing? say so before the data is read
    devices.set_threads(threads)
    if weights is None:
        weights = known_weights.default_name(datasets.first_frame(data, dataset=dataset, split=split or "test"))
    model, name = predictor.load_weights(weights)
    ranks = Ranks(device, DAY)
    shown = ranks.rank == 0 and not (as_json or quiet)
    runner = predictor.Predictor(model, device=str(ranks.device), dtype=dtype, scan_backend=scan)
    context = model.config.context if context is None else context
    horizon = model.config.horizon if horizon is None else horizon
    clips = datasets.open_dataset(
        data, dataset=dataset, split=split or "test", context=context, horizon=horizon,
        size=size or min(model.config.image_size), channels=model.config.image_channels,
    )  # fmt: skip
    channels = clips.clip_shape[1]
    if channels != model.config.image_channels:
        raise InputError(
            f"{data} has {channels} channels, and the weights take {model.config.image_channels}",
            "give other weights with --weights",
        )
    if size is not None and clips.clip_shape[2:] != (size, size):
        raise InputError(f"{data} is taken as it is, whatever --size says", "leave out --size")
    if lpips:
        metrics.check_lpips_frames(clips.clip_shape[1:])
    total = min(len(clips), limit or len(clips))
    if shown:
        for line in (*clips.describe(), f"{name} on {runner.describe()}"):
            print(line, file=sys.stderr)
        if note := predictor.assumed(weights, model):
            print(f"warning: {note.replace('--frames', '--horizon')}", file=sys.stderr)
        if isinstance(clips, GridWindows) and 1 != clips.divided_by != model.config.divided_by != 1:
            print(f"warning: in training it was divided by {model.config.divided_by:g}", file=sys.stderr)

    def progress(done: int) -> None:
        if shown and sys.stderr.isatty():
            print(f"\r{done}/{total} clips", end="" if done < total else "\n", file=sys.stderr)

    result = score(
        runner, clips, context=context, horizon=horizon, batch_size=batch_size, limit=limit,
        names=(*ALL, "lpips") if lpips else ALL, keep_worst=save_worst, progress=progress, ranks=ranks,
    )  # fmt: skip
    ranks.leave()
    if ranks.rank:
        return  # every rank has the whole result, one tells it
    summary = {
        **result.summary(), "context": context, "horizon": horizon, "weights": name, "data": str(data),
        "split": split or "test", "frame_size": list(clips.clip_shape[:1:-1]),
    }  # fmt: skip
    if isinstance(clips, GridWindows):
        summary["divided_by"] = clips.scale
    if as_json:
        import json

        print(json.dumps(summary))
    else:
        _print_table(summary)
    if plot is not None:
        _draw(plot, summary, overwrite)
    _write_worst(result, context, pictures, name, overwrite)


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    forecasts = {
        "this network": summary,
        "last frame repeated": summary["baseline_last_frame"],
        "linear extrapolation": summary["baseline_linear"],
    }
    table = Table(title=f"{summary['weights']}: {summary['clips']} clips, {summary['context']} -> {summary['horizon']}")
    table.add_column("metric")
    for forecast in forecasts:
        table.add_column(forecast, justify="right")
    for key in summary["per_frame"]:
        label = _NAMES[key]
        table.add_row(label, *(_with_interval(scores, key) for scores in forecasts.values()))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
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


def _draw(path: Path, summary: dict[str, Any], overwrite: bool) -> None:
    import math

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from ..outputs import atomic_path

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    ahead = range(1, summary["horizon"] + 1)
    for axis, key in zip(axes, ("mse", "ssim", "psnr"), strict=True):
        for label, scores, style in (
            (summary["weights"], summary, "-o"),
            ("last frame", summary["baseline_last_frame"], "--"),
            ("linear", summary["baseline_linear"], ":"),
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
    with atomic_path(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def _check_pictures(pictures: list[Path], overwrite: bool) -> None:
    """Refuse files that cannot be written before the clips are forecast, which may take hours."""
    from .. import outputs

    for picture in pictures:
        outputs.check_folder(picture.parent, "--out")
        if picture.parent.exists():  # else it is made with the first
            outputs.check_target(picture, overwrite)


def _write_worst(result: Evaluation, context: int, pictures: list[Path], name: str, overwrite: bool) -> None:
    from .. import outputs, predictor

    for picture, (error, _, clip, prediction) in zip(pictures, result.worst, strict=False):  # fewer clips than wanted
        outputs.make_folder(picture.parent)
        predictor.write_forecast(
            picture, list(clip[:context]), map(predictor.Step, prediction, clip[context:]),
            fps=10, has_clock=False, frames=len(prediction), has_truth=True, title=f"{name}, MSE {error:.4g}",
            overwrite=overwrite,
        )  # fmt: skip
