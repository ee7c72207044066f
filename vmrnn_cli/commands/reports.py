"""What commands that write a page of an evaluation share."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import interrupts
from ..errors import InputError

if TYPE_CHECKING:
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
