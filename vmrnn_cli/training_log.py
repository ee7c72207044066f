"""What a training run leaves to read: metrics.csv, a line per step, curves.png, and event files for TensorBoard."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .outputs import atomic_path

if TYPE_CHECKING:
    from .train import Report

_COLUMNS = (
    "step", "epoch", "clips", "seconds", "lr", "loss", "grad_norm", "clips_per_s", "eval_mse", "eval_last_frame"
)  # fmt: skip


class MetricsLog:
    """metrics.csv, a line per step as it happens, and curves.png at every evaluation.

    Lines beyond `step`, where the run goes on, are dropped: they will come again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path, self._curves = folder / "metrics.csv", folder / "curves.png"
        rows = [row for row in _read_metrics(self._path) if int(row["step"]) <= step]
        with atomic_path(self._path, overwrite=True) as temporary, temporary.open("w", newline="") as file:
            csv.DictWriter(file, _COLUMNS).writeheader()
            csv.DictWriter(file, _COLUMNS).writerows(rows)
        self._file = self._path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, _COLUMNS)

    def add(self, report: Report) -> None:
        """Write what a step tells."""
        p, scores = report.progress, report.evaluation
        values = (
            p.step, p.epoch, p.clips, f"{p.seconds:.1f}", f"{report.lr:.5g}", f"{report.loss:.8f}",
            f"{report.grad_norm:.4f}", f"{report.clips_per_s:.2f}",
            "" if scores is None else f"{scores['mse']:.4f}",
            "" if scores is None else f"{scores['baseline_last_frame']['mse']:.4f}",
        )  # fmt: skip
        self._writer.writerow(dict(zip(_COLUMNS, values, strict=True)))
        self._file.flush()
        if scores is not None:
            _draw_curves(self._curves, _read_metrics(self._path))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def summary_writer() -> Any:
    """PyTorch's `SummaryWriter`, a class.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise InputError(
            f"--tensorboard needs the package tensorboard ({error})", "install it: pip install 'vmrnn[tensorboard]'"
        ) from None
    return SummaryWriter


class TensorBoardLog:
    """Event files in the run folder. What was written beyond `step`, where the run goes on, is hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer = summary_writer()(str(folder), purge_step=step + 1)

    def add(self, report: Report) -> None:
        """Write what a step tells."""
        values = {
            "train/loss": report.loss,
            "train/lr": report.lr,
            "train/grad_norm": report.grad_norm,
            "train/clips_per_s": report.clips_per_s,
        }
        if report.evaluation is not None:
            values["eval/mse"] = report.evaluation["mse"]
            values["eval/mse_last_frame"] = report.evaluation["baseline_last_frame"]["mse"]
        for name, value in values.items():
            self._writer.add_scalar(name, value, report.progress.step)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()


def _read_metrics(path: Path) -> list[dict[str, str]]:
    """The good lines of a metrics file: a killed run may have left half a line, and a bad disk anything."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8", "replace").splitlines()
    rows = (dict(zip(_COLUMNS, line.split(","), strict=False)) for line in lines)
    return [row for row in rows if len(row) == len(_COLUMNS) and _is_good(row)]


def _is_good(row: dict[str, str]) -> bool:
    """Whether all values are numbers; those of an evaluation may be missing."""
    try:
        return all(
            math.isfinite(float(value)) for name, value in row.items() if value or not name.startswith("eval_")
        ) and (int(row["step"]) >= 0 and int(row["clips"]) >= 0)
    except ValueError:
        return False


def _draw_curves(path: Path, rows: list[dict[str, str]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([int(row["clips"]) for row in rows], [float(row["loss"]) for row in rows])
    left.set(xlabel="clips seen", ylabel="training loss", yscale="log")
    scored = [row for row in rows if row["eval_mse"]]
    if scored:
        clips = [int(row["clips"]) for row in scored]
        right.plot(clips, [float(row["eval_mse"]) for row in scored], marker=".", label="network")
        right.plot(clips, [float(row["eval_last_frame"]) for row in scored], "--", label="last frame repeated")
        right.legend()
    right.set(xlabel="clips seen", ylabel="MSE per frame, evaluation clips")
    with atomic_path(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120)
