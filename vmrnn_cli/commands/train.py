"""`vmrnn train`: from a data set to weights that `vmrnn predict` takes."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupts
from ..errors import InputError
from ..outputs import given_name
from ..recipes import RECIPES, TrainConfig, make_config
from . import complete, options
from .options import DATA, option

if TYPE_CHECKING:
    import torch

    from ..train import Report, Trainer

RECIPE, RUN = "Recipe", "Run"


def train(
    data: Path | None = option(
        DATA,
        "KTH tree or zips, MNIST idx files, mnist_test_seq.npy, TaxiBJ dataset.npz, array, or folder of clips. "
        "(with --resume: the run's)",
    ),
    dataset: str | None = options.DATASET,
    layout: str | None = options.LAYOUT,
    value_range: str | None = options.RANGE,
    missing: str | None = options.MISSING,
    context: int | None = option(DATA, "Frames in. (default: the preset's)"),
    frames: int | None = option(DATA, "Frames out. (default: the preset's)"),
    size: str | None = options.SIDE,
    preset: str | None = option(
        RECIPE,
        f"A network and its recipe: {', '.join(RECIPES)}. (default: that of --init, else {TrainConfig.preset})",
        autocompletion=complete.presets,
    ),
    config: Path | None = option(RECIPE, "A TOML file of settings; options go over it.", metavar="FILE.toml"),
    init: str | None = option(
        RECIPE,
        "Weights to start from, or none. (default: of a folder of clips the bundled ones, else none)",
        metavar="WEIGHTS",
        autocompletion=complete.weights,
    ),
    batch_size: int | None = option(RECIPE, "Clips per step, of all machines together."),
    lr: float | None = option(RECIPE, "Learning rate."),
    seed: int | None = option(RECIPE, "Of weights, data order and augmentation."),
    dtype: str | None = option(RECIPE, "auto, float32 or bfloat16, of the matrix products."),
    memory: str | None = option(RECIPE, "normal, or low: recompute time steps in the backward pass."),
    epochs: int | None = option(RUN, "End after so many passes over the data."),
    steps: int | None = option(RUN, "End after so many steps."),
    max_time: str | None = option(
        RUN, "End after so much training in all, parts before included: 90s, 25m or 2h.", metavar="TIME"
    ),
    out: Path | None = option(RUN, "The run's folder. (default: runs/DATA-PRESET)", metavar="runs/NAME"),
    resume: bool = option(RUN, "Go on from the last checkpoint in the run's folder.", "--resume", default=False),
    checkpoint_every: int | None = option(RUN, "Steps between checkpoints."),
    eval_every: int | None = option(RUN, "Steps between evaluations."),
    device: str | None = option(RUN, "auto, cpu or cuda."),
    threads: int | None = option(RUN, "CPU threads."),
    workers: int | None = option(RUN, "Processes that prepare data."),
    tensorboard: bool = option(
        RUN, "Write event files for TensorBoard, too, into the run's folder.", "--tensorboard", default=False
    ),
    dry_run: bool = option(
        RUN, "Two steps of whole clips: memory, time per epoch, and what would be written.", "--dry-run", default=False
    ),
    quiet: bool = options.QUIET,
    debug: bool = options.DEBUG,
) -> None:
    """Train a VMRNN. Ctrl-C checkpoints and leaves, --resume goes on. Under torchrun: on all ranks and nodes."""
    with interrupts.deferred():
        from .. import devices
        from .. import train as training
        from .. import training_log as logs
        from ..frames import parse_side

    flags = {
        "data": None if data is None else str(data), "dataset": dataset, "layout": layout, "range": value_range,
        "missing": missing, "context": context, "horizon": frames,
        "size": parse_side(size), "preset": preset, "init": init, "batch_size": batch_size, "lr": lr, "seed": seed,
        "dtype": dtype, "memory": memory, "epochs": epochs, "steps": steps,
        "max_time": None if max_time is None else _seconds(max_time), "checkpoint_every": checkpoint_every,
        "eval_every": eval_every, "device": device, "workers": workers,
    }  # fmt: skip
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"  # torchrun started the processes anew
    settings, folder, resume = _settings(flags, config, out, resume, restarted)
    _check_folder(folder, fresh=not (resume or restarted or dry_run))
    if tensorboard:
        logs.summary_writer()  # missing? say so before the data is read
    devices.set_threads(threads)
    trainer = training.Trainer(settings, folder, resume=resume)
    shown = not quiet and trainer.ranks.rank == 0
    if shown:
        print(*trainer.describe(), sep="\n", file=sys.stderr)
    if dry_run:
        lines = trainer.dry_run()
        if trainer.ranks.rank == 0:
            print(*lines, sep="\n")
        return
    training.handle_signals(trainer)
    _run(trainer, tensorboard, shown)
    if trainer.stop:
        if trainer.ranks.rank == 0:
            again = f"vmrnn train --resume --out {shlex.quote(str(folder))}"
            print(f"stopped at step {trainer.progress.step}; go on with: {again}", file=sys.stderr)
        raise typer.Exit(130)
    if shown:
        print(
            f"done: {trainer.progress.step} steps, best MSE {trainer.progress.best:.2f}, weights in {folder / 'best'}"
        )


def _settings(
    flags: dict[str, Any], config: Path | None, out: Path | None, resume: bool, restarted: bool
) -> tuple[TrainConfig, Path, bool]:
    """What the run is to be, its folder, and whether it goes on from a checkpoint there."""
    from .. import train as training

    given = _read_toml(config) if config else {}
    if not resume:
        flags = flags | _initial(flags, given)
    settings = make_config(given, flags)
    if not settings.data and not (resume and out):
        raise InputError("there is no data", "name some with --data, or a run to go on with: --resume --out runs/NAME")
    folder = out or Path("runs") / f"{Path(given_name(Path(settings.data))).stem}-{settings.preset}"
    resume = resume or (restarted and training.has_state(folder))
    if resume and (folder / training.SETTINGS_NAME).exists():  # the run's own settings, under what is given now
        settings = make_config(given, flags, _read_toml(folder / training.SETTINGS_NAME))
    if not settings.data:
        raise InputError(f"{folder / training.SETTINGS_NAME} names no data", "name some with --data")
    return settings, folder, resume


def _initial(flags: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a fresh run begins with: a folder of clips with our own weights for footage, unless told otherwise."""
    from .. import weights
    from ..data import is_footage

    if flags["init"] == "none":
        usual = weights.default_name() if not (flags["preset"] or "preset" in given) else None
        return {"init": "", "preset": flags["preset"] or usual}
    told = any(flags[name] or name in given for name in ("init", "preset"))
    path, dataset = flags["data"] or given.get("data"), flags["dataset"] or given.get("dataset")
    return {} if told or not path or not is_footage(Path(path), dataset) else {"init": weights.default_name()}


def _run(trainer: Trainer, tensorboard: bool, shown: bool) -> None:
    """Train to the end, and show and log every step."""
    from .. import training_log as logs

    view = _LiveView(trainer) if shown and sys.stderr.isatty() else _LogView(trainer, shown=shown)
    kinds: list[type[logs.MetricsLog] | type[logs.TensorBoardLog]] = []
    if trainer.ranks.rank == 0:
        trainer.prepare_folder()
        kinds = [logs.MetricsLog, logs.TensorBoardLog] if tensorboard else [logs.MetricsLog]
    with contextlib.ExitStack() as stack:
        written = [stack.enter_context(contextlib.closing(kind(trainer.out, trainer.progress.step))) for kind in kinds]
        stack.enter_context(view)
        for report in trainer.fit():
            view.show(report)
            for log in written:
                log.add(report)
    trainer.ranks.leave()


def _check_folder(folder: Path, *, fresh: bool) -> None:
    """Refuse a folder that cannot be written, or that holds a run where a fresh one is to begin."""
    from .. import outputs
    from ..train import has_state

    outputs.check_folder(folder, "--out")
    if not (fresh and folder.exists()):
        return
    if has_state(folder):
        raise InputError(f"{folder} already holds a run", "pass --resume to go on with it, or another --out")
    # What a run leaves that ended before its first checkpoint.
    started = re.compile(r"config\.toml|metrics\.csv|curves\.png|samples|events\.out\..*|\.vmrnn-.*")
    other = [path.name for path in folder.iterdir() if not started.fullmatch(path.name)]
    if other:
        raise InputError(f"{folder} is not empty: it holds {min(other)}", "name another --out")


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"'{text}' is no time", "write it as 90s, 25m or 2h")
    return seconds


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}", "write key = value lines") from None


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


class _LogView:
    """A line at the first steps, then every half minute and at each evaluation: for logs and pipes."""

    def __init__(self, trainer: Trainer, *, shown: bool) -> None:
        self._device, self._shown, self._next = trainer.device, shown, 0.0

    def __enter__(self) -> _LogView:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, report: Report) -> None:
        if self._shown and (report.evaluation is not None or time.monotonic() >= self._next):
            print(_line(report, self._device), file=sys.stderr, flush=True)
            self._next = time.monotonic() + 30


class _LiveView:
    """A progress bar that stays at the foot of the terminal, evaluations above it."""

    def __init__(self, trainer: Trainer) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._device = trainer.device
        console = Console(stderr=True)
        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn(), console=console)
        self._task = self._bar.add_task("starting", total=1.0)
        self._bar.update(self._task, completed=trainer.share())

    def __enter__(self) -> _LiveView:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, report: Report) -> None:
        self._bar.update(self._task, completed=report.share, description=_line(report, self._device))
        if report.evaluation is not None:
            self._bar.console.print(_line(report, self._device))
