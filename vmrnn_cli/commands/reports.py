"""What commands that evaluate share: how far they are, the table of scores, and their page."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import interrupts
from ..errors import InputError
from ..text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ..batch import Loaded
    from ..data import ClipDataset
    from ..pages.report import Album


def check(report: Path | None, overwrite: bool, *others: Path | None) -> None:
    """Refuse a page that cannot be written, or that is one of the `others`, before hours of work."""
    from .. import outputs

    if report is None:
        return
    if report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{report} is no .html file", "end the name of --report in .html")
    if report.resolve() in [other.resolve() for other in others if other is not None]:
        raise InputError(f"two outputs would be written to {report}", "name another --report")
    outputs.check_target(report, overwrite)


def facts(summary: Mapping[str, Any], clips: ClipDataset, networks: Sequence[Loaded]) -> dict[str, str]:
    """What was evaluated, by name, of the summary that `--json` prints."""
    import torch

    _, C, H, W = clips.clip_shape
    said = {"data": summary["data"], "split": summary["split"], "what it is": " ".join(clips.describe())}
    said |= {"frames": f"{summary['context']} in, {summary['horizon']} out, {W}×{H}, {C} channel(s)"}
    if clips.divided_by not in (None, 1.0):
        said["divided by"] = f"{clips.divided_by:g}"
    for loaded in networks:
        model: Any = loaded.predictor.model
        parameters = sum(p.numel() for p in model.parameters())
        weights = "weights" if len(networks) == 1 else f"weights {loaded.name}"
        said[weights] = f"{loaded.name}{loaded.known_for}: VMRNN-{model.config.variant}, {parameters:,} parameters"
    said["computed on"] = networks[0].predictor.runs_on
    said["versions"] = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}"
    return said


def album(report: Path | None, clips: ClipDataset, limit: int | None, context: int) -> Album | None:
    """What keeps clips for the page, None where no page is wanted."""
    if report is None:
        return None
    with interrupts.deferred():
        from ..pages.report import Album

    return Album(clips, min(len(clips), limit or len(clips)), context)


def counter(total: int, of: str = "") -> Callable[[int], None] | None:
    """What counts clips on a line of a terminal, if there is one; `of` says of what."""

    def count(done: int) -> None:
        print(f"\r{of}{done}/{total} clips", end="" if done < total else "\n", file=sys.stderr)

    return count if sys.stderr.isatty() else None


def print_scores(summary: Mapping[str, Any], forecasts: Mapping[str, Mapping[str, Any]], of: str = "") -> Console:
    """Print a row for each metric and a column for each forecast, by name; returns where it was printed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .. import metrics, score_text

    table = Table(title=Text(f"{of}{summary['clips']} clips, {summary['context']} -> {summary['horizon']}"))
    table.add_column("metric")
    for label in forecasts:
        table.add_column(Text(printable(label)), justify="right")
    for name in next(iter(forecasts.values()))["per_frame"]:
        means = (score_text.mean_and_interval(scores, name) for scores in forecasts.values())
        table.add_row(metrics.NAMES[name], *means)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    return console
