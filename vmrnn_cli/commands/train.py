"""`vmrnn train`: from a data set to weights that `vmrnn predict` takes."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .. import interrupts
from ..recipes import RECIPES, TrainConfig
from ..text import printable
from ..weights import registry
from . import options
from .options import DATA, option

if TYPE_CHECKING:
    import torch

    from ..train import Report, Trainer

    View = Callable[[Report], None]

RECIPE, RUN = "Recipe", "Run"
_DATA = option(
    DATA,
    "KTH tree or zips, MNIST idx files, mnist_test_seq.npy, TaxiBJ dataset.npz, array, grid (NetCDF, HDF5, Zarr), or "
    "folder of clips, grids or arrays. "
    "(with --resume: the run's)",
)
_PRESET = option(
    RECIPE,
    f"A network and its recipe: {', '.join(RECIPES)}. (default: that of --init, else {TrainConfig.preset})",
    autocompletion=lambda: list(RECIPES),
)
_INIT = option(
    RECIPE,
    "Weights to start from, or none. (default: of clips in a folder and of grids the bundled ones that fit, else none)",
    metavar="WEIGHTS",
    autocompletion=lambda: list(registry()),
)
_MAX_TIME = option(RUN, "End after so much training in all, parts before included: 90s, 25m or 2h.", metavar="TIME")
_TENSORBOARD = option(
    RUN, "Write event files for TensorBoard, too, into the run's folder.", "--tensorboard", default=False
)
_DRY_RUN = option(
    RUN, "Two steps of whole clips: memory, time per epoch, and what would be written.", "--dry-run", default=False
)


def train(
    given: typer.Context,
    data: Path | None = _DATA,
    dataset: str | None = options.DATASET,
    layout: str | None = options.LAYOUT,
    value_range: str | None = options.RANGE,
    missing: str | None = options.MISSING,
    variable: str | None = options.VARIABLE,
    select: list[str] | None = options.SELECT,
    transform: str | None = options.TRANSFORM,
    holdout: str | None = options.HOLDOUT,
    context: int | None = option(DATA, "Frames in. (default: the preset's)"),
    frames: int | None = option(DATA, "Frames out. (default: the preset's)"),
    size: str | None = options.SIDE,
    preset: str | None = _PRESET,
    config: Path | None = option(RECIPE, "A TOML file of settings; options go over it.", metavar="FILE.toml"),
    init: str | None = _INIT,
    batch_size: int | None = option(RECIPE, "Clips per step, of all machines together."),
    lr: float | None = option(RECIPE, "Learning rate."),
    seed: int | None = option(RECIPE, "Of weights, data order and augmentation."),
    dtype: str | None = option(RECIPE, "auto, float32 or bfloat16, of the matrix products."),
    memory: str | None = option(RECIPE, "normal, or low: recompute time steps in the backward pass."),
    epochs: int | None = option(RUN, "End after so many passes over the data."),
    steps: int | None = option(RUN, "End after so many steps."),
    max_time: str | None = _MAX_TIME,
    out: Path | None = option(RUN, "The run's folder. (default: runs/DATA-PRESET)", metavar="runs/NAME"),
    resume: bool = option(RUN, "Go on from the last checkpoint in the run's folder.", "--resume", default=False),
    checkpoint_every: int | None = option(RUN, "Steps between checkpoints."),
    eval_every: int | None = option(RUN, "Steps between evaluations."),
    device: str | None = option(RUN, "auto, cpu or cuda."),
    threads: int | None = option(RUN, "CPU threads."),
    workers: int | None = option(RUN, "Processes that prepare data."),
    tensorboard: bool = _TENSORBOARD,
    dry_run: bool = _DRY_RUN,
    quiet: bool = options.QUIET,
    debug: bool = options.DEBUG,
) -> None:
    """Train a VMRNN. Ctrl-C checkpoints and leaves, --resume goes on. Under torchrun: on all ranks and nodes."""
    with interrupts.deferred():
        from .. import devices, runs
        from .. import train as training
        from .. import training_log as logs

    settings, folder, resume = runs.plan(given.params, config, out, resume=resume, fresh=not dry_run)
    if tensorboard:
        logs.summary_writer()  # missing? say so before the data is read
    devices.set_threads(threads)
    trainer = training.Trainer(settings, folder, resume=resume)
    first = trainer.ranks.rank == 0  # which speaks for all
    if first and not quiet:
        options.announce(trainer)
    if dry_run:
        return _dry_run(trainer)
    training.handle_signals(trainer)
    _run(trainer, tensorboard, shown=first and not quiet)
    done = trainer.progress
    if trainer.stop:
        if first:
            again = f"vmrnn train --resume --out {shlex.quote(str(folder))}"
            print(f"stopped at step {done.step}; go on with: {printable(again)}", file=sys.stderr)
        raise typer.Exit(130)
    if first and not quiet:
        print(f"done: {done.step} steps, best MSE {done.best:.2f}, weights in {printable(folder / 'best')}")


def _dry_run(trainer: Trainer) -> None:
    """Say what the run would cost, after two steps that all ranks take."""
    lines = trainer.dry_run()
    if trainer.ranks.rank == 0:
        print(*map(printable, lines), sep="\n")


def _run(trainer: Trainer, tensorboard: bool, shown: bool) -> None:
    """Train to the end, and show and log every step."""
    from .. import training_log as logs

    kinds: list[type[logs.MetricsLog] | type[logs.PageLog] | type[logs.TensorBoardLog]] = []
    with contextlib.ExitStack() as stack:
        if trainer.ranks.rank == 0:
            stack.enter_context(trainer.folder())
            kinds = [logs.MetricsLog, logs.PageLog, *([logs.TensorBoardLog] if tensorboard else [])]
        written = [stack.enter_context(contextlib.closing(kind(trainer.out, trainer.progress.step))) for kind in kinds]
        show = stack.enter_context((_live_view if sys.stderr.isatty() else _log_view)(trainer)) if shown else None
        for report in trainer.fit():
            if show is not None:
                show(report)
            for log in written:
                log.add(report)
    trainer.ranks.leave()


def _line(report: Report, device: torch.device) -> str:
    from ..train import peak_gib

    p = report.progress
    line = f"step {p.step}  epoch {p.epoch}  loss {report.loss:.5f}  {report.clips_per_s:.1f} clips/s"
    left = p.seconds / report.share * (1 - report.share) if report.share else 0.0
    line += f"  {report.share:.0%} done, {left / 60:.0f} min left  {peak_gib(device):.1f} GiB"
    if report.evaluation is not None:
        last = report.evaluation["baseline_last_frame"]["mse"]
        line += f"  | MSE {report.evaluation['mse']:.2f}, last frame {last:.2f}"
    return line


@contextlib.contextmanager
def _log_view(trainer: Trainer) -> Iterator[View]:
    """A line at the first step, then every half minute and at each evaluation: for logs and pipes."""
    due = 0.0

    def show(report: Report) -> None:
        nonlocal due
        if report.evaluation is not None or time.monotonic() >= due:
            print(_line(report, trainer.device), file=sys.stderr, flush=True)
            due = time.monotonic() + 30

    yield show


@contextlib.contextmanager
def _live_view(trainer: Trainer) -> Iterator[View]:
    """A progress bar that stays at the foot of the terminal, evaluations above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=1.0)
        bar.update(task, completed=trainer.share())

        def show(report: Report) -> None:
            bar.update(task, completed=report.share, description=_line(report, trainer.device))
            if report.evaluation is not None:
                bar.console.print(_line(report, trainer.device))

        yield show
