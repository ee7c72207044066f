"""The page of a training run: curves, samples over time, and what the run was told to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from . import charts, media, write

_MOST_SAMPLES, _WIDEST, _QUALITY = 24, 1400, 75  # pixels, WebP's
# By the column of metrics.csv: what the chart is called, and whether its axis is logarithmic.
_CHARTS = {
    "loss": ("training loss", True),
    "lr": ("learning rate", False),
    "grad_norm": ("norm of the gradient", True),
    "clips_per_s": ("clips per second", False),
}


class RunPage:
    """Writes the page of a run from what lies in its folder, as often as it is told to.

    So a run that is resumed goes on in the page that it has.

    folder : of the run
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._encoded: dict[Path, str] = {}

    def write(self, path: Path, rows: Sequence[Mapping[str, str]], settings: Path) -> None:
        """Write the page.

        Args:
            path: where to.
            rows: of metrics.csv, at least one; the page tells of nothing beyond the last.
            settings: the file with the run's settings.
        """
        last = rows[-1]
        scored = [row for row in rows if row["eval_mse"]]
        content = {
            "name": self._folder.resolve().name, "last": last, "hours": _duration(float(last["seconds"])),
            "best": min(scored, key=lambda row: float(row["eval_mse"]), default=None),
            "curves": [*_evaluations(scored), *_steps(rows)], "samples": self._samples(int(last["step"])),
            "settings": settings.read_text("utf-8", "replace"),
        }  # fmt: skip
        write(path, "run.html", content)

    def _samples(self, step: int) -> list[tuple[str, str]]:
        """Names and data URIs of film strips, evenly spaced over the run, the first and the last among them."""
        found = sorted(self._folder.glob("samples/step-*.png"))
        found = [path for path in found if path.stem[5:].isdigit() and int(path.stem[5:]) <= step]
        most = min(len(found), _MOST_SAMPLES)
        chosen = [found[place * (len(found) - 1) // max(1, most - 1)] for place in range(most)]
        self._encoded = {path: self._encoded.get(path) or _encoded(path) for path in chosen}
        return [(f"step {int(path.stem[5:])}", address) for path, address in self._encoded.items()]


def _evaluations(scored: Sequence[Mapping[str, str]]) -> list[charts.Chart]:
    if not scored:
        return []
    clips = [int(row["clips"]) for row in scored]
    series = [
        charts.Series("network", clips, [float(row["eval_mse"]) for row in scored], "ours"),
        charts.Series("last frame repeated", clips, [float(row["eval_last_frame"]) for row in scored], "s1"),
    ]
    return [charts.lines(series, "clips seen", "MSE on evaluation clips", log=True)]


def _steps(rows: Sequence[Mapping[str, str]]) -> list[charts.Chart]:
    clips = [int(row["clips"]) for row in rows]
    drawn = []
    for column, (label, log) in _CHARTS.items():
        x, y = charts.thinned(clips, [float(row[column]) for row in rows])
        drawn.append(charts.lines([charts.Series(label, x, y, "ours")], "clips seen", label, log=log, zero=not log))
    return drawn


def _encoded(path: Path) -> str:
    with Image.open(path) as opened:
        picture: Any = opened.convert("RGB")
        picture.thumbnail((_WIDEST, _WIDEST), Image.Resampling.LANCZOS)
        return media.data_uri(picture, quality=_QUALITY)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
