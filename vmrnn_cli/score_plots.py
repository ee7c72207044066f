"""Charts of an evaluation: each score against lead time, and how much power a forecast keeps at which scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .rivals import GRID_RIVAL_NAMES, RIVAL_NAMES
from .text import for_plots
from .verification import ERRORS, EVENT_SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes as PlotAxes
    from matplotlib.figure import Figure

_STYLES = ("-o", "--", ":", "-.")


def names_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """What forecasts are called, by their names in `Verification.summary`."""
    return {"this_network": summary["weights"], **RIVAL_NAMES, **GRID_RIVAL_NAMES}


def draw_verification(summary: Mapping[str, Any], units: str) -> Figure:
    """All scores of `Verification.summary` against lead time, with intervals, and the spectra."""
    from matplotlib.figure import Figure

    found, names = summary["verification"], names_of(summary)
    thresholds = [f"{threshold:g}" for threshold in found["thresholds"]]
    rows, columns = len(thresholds) + 1, max(4 + len(found["scales"]), 4)
    figure = Figure(figsize=(3.1 * columns, 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_visible(False)
    forecasts = found["forecasts"]
    for place, (key, label) in enumerate(ERRORS.items()):
        curves = {name: table[key] for name, table in forecasts.items()}
        _curves(grid[0, place], curves, names, f"{label}{f' ({units})' if units else ''}", found["leads"])
    _spectra(grid[0, 3], found, names)
    for row, threshold in enumerate(thresholds, 1):
        at = {name: table["thresholds"][threshold] for name, table in forecasts.items()}
        said = f"at {threshold}{f' {units}' if units else ''}"
        for place, key in enumerate(("csi", "pod", "far", "frequency_bias")):
            curves = {name: table[key] for name, table in at.items()}
            _curves(grid[row, place], curves, names, f"{EVENT_SCORES[key]} {said}", found["leads"])
        for place, scale in enumerate(found["scales"], 4):
            curves = {name: table["fss"][f"{scale}"] for name, table in at.items()}
            _curves(grid[row, place], curves, names, f"FSS {said}, {scale} places", found["leads"])
    grid[0, 0].legend(fontsize=7)
    count = f"{summary['clips']} windows of {found['events']} event(s), {summary['context']} -> {summary['horizon']}"
    figure.suptitle(f"{count}, with 95 % intervals over events", size="medium")
    return figure


def _curves(
    axes: PlotAxes, curves: Mapping[str, Mapping[str, Any]], names: Mapping[str, str], label: str, leads: list[str]
) -> None:  # fmt: skip
    axes.set_visible(True)
    ahead = range(1, len(leads) + 1)
    for style, (name, scores) in zip(_STYLES, curves.items(), strict=False):
        values = [math.nan if value is None else value for value in scores["per_lead"]]
        (line,) = axes.plot(ahead, values, style, label=for_plots(names.get(name, name)), markersize=3)
        edges = [(math.nan, math.nan) if None in pair else pair for pair in scores.get("interval_95", [])]
        if edges:
            lower, upper = zip(*edges, strict=True)
            axes.fill_between(ahead, lower, upper, color=line.get_color(), alpha=0.15, linewidth=0)
    every = max(1, len(leads) // 4)
    axes.set_xticks(list(ahead)[every - 1 :: every], leads[every - 1 :: every], fontsize=7)
    axes.set_title(label, fontsize=9)
    axes.tick_params(axis="y", labelsize=7)


def _spectra(axes: PlotAxes, found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Of the last lead time, whose forecasts have lost most."""
    axes.set_visible(True)
    lengths = [1 / cycles for cycles in found["cycles_per_place"]]
    axes.plot(lengths, found["true_spectrum"][-1], "k-", linewidth=2, alpha=0.5, label="truth")
    for style, (name, table) in zip(_STYLES, found["forecasts"].items(), strict=False):
        axes.plot(lengths, table["spectrum"][-1], style, label=for_plots(names.get(name, name)), markersize=2)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.set_title(f"power at {found['leads'][-1]}, by wavelength in places", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6)
