"""Pictures of a gridded forecast: maps with a colour scale in the data's units, axes in its coordinates, valid times.

Notation: C slices (levels, members), H x W places. Frames are float32 (C, H, W) in [0, 1]; canvases are RGB, uint8
(height, width, 3). Both classes take the frames one by one, as those of `render` do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import interrupts, render
from .frames import Frame
from .grids.series import GridClip, date_text, span_text
from .grids.values import GridScale, standard_units
from .text import for_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes as PlotAxes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

    from .forecast import Forecast

_RAIN = ("dBZ", "mm/h", "mm", "mm/s")
_TEMPERATURE = ("K", "degC", "deg_C", "celsius", "degree_Celsius", "degrees_Celsius", "°C", "C")
_ICE = ("1", "%", "")
_MOST_SLICES = 3  # that are shown, one below the other
_DPI = 100
_WIDEST, _PANEL = 1900, 460  # pixels, of a canvas and the longer side of a panel
_MISSING, _DRY = "#c8ccd2", "white"
_GIVEN, _AHEAD = "#1f6fb2", "#b35c00"


class Colours(NamedTuple):
    """How values are shown: a colour map of matplotlib, and which values are at its ends."""

    map: Colormap
    norm: Normalize


def colours_for(scale: GridScale, given: NDArray[np.float64]) -> Colours:
    """The colours of a variable, by its units and the given scans: rain, temperature, shares, differences, others."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    units = standard_units(scale.units)
    known = given[~np.isnan(given)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if units in _RAIN:
        top = scale.high if units == "dBZ" else max(high, scale.low * 10)
        bottom = max(scale.low, 0.0) if scale.transform == "none" else max(scale.low, top / 1000)
        norm = LogNorm(bottom, top) if scale.transform == "dB" else Normalize(max(bottom, 0.02 * top), top)
        chosen, under = "viridis_r", _DRY
    elif low < 0 < high and max(-low, high) < 5 * min(-low, high):
        most = max(-low, high)
        norm, chosen, under = Normalize(-most, most), "RdBu_r", None
    elif units in _TEMPERATURE:
        norm, chosen, under = Normalize(low, high), "RdYlBu_r", None
    elif units in _ICE and low >= 0 and high <= (100 if units == "%" else 1):
        norm, chosen, under = Normalize(0, 100 if units == "%" else 1), "Blues_r", None
    else:
        norm, chosen, under = Normalize(low, high if high > low else low + 1), "viridis", None
    extremes = {"bad": _MISSING} | ({"under": under} if under else {})
    return Colours(colormaps[chosen].with_extremes(**extremes), norm)


def name_of(clip: GridClip) -> str:
    """What its variable is called, for people."""
    data = clip.series.like(clip.first)[1]
    return str(data.attrs.get("long_name", clip.series.axes.variable)).replace("_", " ")


def draw_values(values: NDArray[np.float64], colours: Colours, place: Place) -> NDArray[np.uint8]:
    """A map and nothing around it, north up: (H, W) in the data's own units -> (H, W, 3)."""
    drawn: NDArray[np.uint8] = colours.map(colours.norm(_drawable(values, colours)), bytes=True)[..., :3]
    return drawn[::-1] if place.origin == "lower" else drawn


class Place(NamedTuple):
    """Where a map lies: imshow's extent and origin, its aspect, and the names of its axes."""

    extent: tuple[float, float, float, float]
    origin: str
    aspect: float
    labels: tuple[str, str]


def place_of(clip: GridClip) -> Place:
    """From the coordinates: north, or the higher one, is up; where there are none, the first row is."""
    axes = clip.series.axes
    data = clip.series.like(clip.first)[1]
    _, H, W = clip.series.shape
    ends, labels, geographic = [], [], False
    for dim, count in ((axes.x, W), (axes.y, H)):
        coordinate = data.coords.get(dim)
        if coordinate is None or coordinate.ndim != 1 or coordinate.dtype.kind not in "iuf" or count < 2:
            ends.append((0.0, float(count - 1)))
            labels.append(f"{dim} (number)")
        else:
            values = np.asarray(coordinate.values, float)
            units = str(coordinate.attrs.get("units", ""))
            if units in ("m", "metre", "meter", "meters") and np.abs(values).max() >= 1e4:
                values, units = values / 1000, "km"
            ends.append((float(values[0]), float(values[-1])))
            geographic = geographic or units.startswith("degree")
            labels.append(f"{dim} ({units})" if units else dim)
    half = [(last - first) / max(1, count - 1) / 2 for (first, last), count in zip(ends, (W, H), strict=True)]
    (left, right), (first, last) = ((begin - h, end + h) for (begin, end), h in zip(ends, half, strict=True))
    upwards = last > first and "number" not in labels[1]
    bottom, top = (first, last) if upwards else (last, first)
    middle = math.cos(math.radians((first + last) / 2)) if geographic else 1.0
    extent = (left, right, bottom, top)
    return Place(extent, "lower" if upwards else "upper", 1 / max(middle, 0.05), (labels[0], labels[1]))


def film(forecast: Forecast) -> MapFilm:
    """What draws a grid's forecast as a film."""
    f = forecast
    return MapFilm(f.grid, f.context, f.frames, f.panels, f.title, layout=f.layout)


def strip(forecast: Forecast) -> MapStrip:
    """What draws a grid's forecast as one picture."""
    f = forecast
    return MapStrip(f.grid, f.context, f.frames, f.panels, f.title)


class _Maps:
    """What both pictures know: the series, its colours and place, and how a map is drawn."""

    def __init__(self, clip: GridClip, context: Frame, frames: int, panels: Sequence[str], title: str) -> None:
        """The series, its given frames (T, C, H, W), how many are predicted, what is shown, and what it is called."""
        self._clip, self._frames, self._panels, self._title = clip, frames, tuple(panels), title
        self._given, self._slices = len(context), min(len(context[0]), _MOST_SLICES)
        self._values = colours_for(clip.scale, clip.values(context))
        self._place = place_of(clip)
        self._last: Frame | None = None
        self._errors = self._error_colours(clip.values(context))

    def _error_colours(self, given: NDArray[np.float64]) -> Colours:
        """Of forecast minus truth: half of the range that is shown, the same for all frames."""
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        low, high = self._values.norm.vmin or 0.0, self._values.norm.vmax or 1.0
        if self._clip.scale.transform != "none":
            known = given[~np.isnan(given)]
            low, high = 0.0, float(np.quantile(known, 0.99)) if known.size else high
            high = high if high > low else 1.0
        most = render.ERROR_SHARE * (high - low)
        return Colours(colormaps["RdBu_r"].with_extremes(bad=_MISSING), Normalize(-most, most))

    def _when(self, position: int) -> str:
        return date_text(self._clip.time(position))

    def _ahead(self, index: int) -> str:
        lead = self._clip.lead(index + 1)
        return f"+{span_text(self._clip.series.seconds(lead), lead)}"

    def _slice_names(self) -> list[str]:
        names = [""]
        for dim, labels in self._clip.series.slices.items():
            names = [f"{name} {dim}={label}".strip() for name in names for label in labels]
        return names

    def _units(self) -> str:
        name, units = name_of(self._clip), self._clip.scale.units
        return for_plots(f"{name} ({units})" if units else name)

    def _picture(
        self, panel: str, prediction: Frame | None, truth: Frame | None, extra: Mapping[str, Frame], piece: int
    ) -> tuple[NDArray[Any] | None, Colours]:
        """What a panel shows of a slice: values, an error, or a picture; None for nothing."""
        own = self._clip.values
        if panel in extra:
            return np.moveaxis(extra[panel], 0, -1), self._values
        if panel == "context" and self._last is not None:
            return own(self._last)[piece], self._values
        if panel == "prediction" and prediction is not None:
            return own(prediction)[piece], self._values
        if panel == "truth" and truth is not None:
            return own(truth)[piece], self._values
        if panel == "error" and truth is not None and prediction is not None:
            return (own(prediction) - own(truth))[piece], self._errors
        return None, self._errors if panel == "error" else self._values

    def _show(self, axes: PlotAxes, picture: NDArray[Any], colours: Colours) -> Any:
        options: dict[str, Any] = {"extent": self._place.extent, "origin": self._place.origin}
        options |= {"aspect": self._place.aspect, "interpolation": "nearest"}
        if picture.ndim == 3:  # of colours
            return axes.imshow(picture.clip(0, 1), **options)
        return axes.imshow(_drawable(picture, colours), cmap=colours.map, norm=colours.norm, **options)

    def _figure(self, width: float, height: float) -> Figure:
        with interrupts.deferred():
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

        even = [2 * math.ceil(side / 2) / _DPI for side in (width, height)]
        figure = Figure(figsize=(even[0], even[1]), dpi=_DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        return figure

    def _panel_size(self) -> tuple[float, float]:
        """Width and height of a map, its longer side 1."""
        left, right, bottom, top = self._place.extent
        shape = abs(top - bottom) * self._place.aspect / max(abs(right - left), 1e-12)
        return (1.0, shape) if shape <= 1 else (1 / shape, 1.0)


class MapFilm(_Maps):
    """Draws one canvas per frame: maps side by side, when they are valid, and whether they were given or forecast.

    `layout` is a "row", a "column" or a "grid" of panels; None for a row, and a "swipe" is one, too.
    """

    def __init__(self, *arguments: Any, layout: str | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        count = len(self._panels)
        across = {"column": 1, "grid": math.ceil(math.sqrt(count))}.get(layout or "row", count)
        down = math.ceil(count / across) * self._slices
        width, height = (side * min(_PANEL, (_WIDEST - 160) / across) for side in self._panel_size())
        bars = 90 * len({panel == "error" for panel in self._panels})
        self._figure_now = self._figure(across * (width + 70) + bars, down * (height + 46) + 64)
        grid = self._figure_now.subplots(down, across, squeeze=False)
        self._artists: dict[tuple[str, int], tuple[PlotAxes, Any]] = {}
        names, used = self._slice_names(), []
        for place, panel in enumerate(self._panels):
            for piece in range(self._slices):
                axes = grid[place // across * self._slices + piece, place % across]
                blank = np.full(self._clip.series.shape[1:], np.nan)
                image = self._show(axes, blank, self._errors if panel == "error" else self._values)
                axes.set_xlabel(self._place.labels[0] if piece == self._slices - 1 else "", fontsize=8)
                axes.set_ylabel(self._place.labels[1] if place % across == 0 else "", fontsize=8)
                axes.tick_params(labelsize=7)
                axes.text(0.02, 0.98, names[piece], transform=axes.transAxes, va="top", fontsize=8)
                self._artists[panel, piece] = axes, image
                used.append(axes)
        for axes in set(grid.ravel()) - set(used):
            axes.set_visible(False)
        self._bars()
        self._heading = self._figure_now.suptitle(" ", fontsize=12, x=0.01, ha="left", family="monospace")
        if self._title:
            self._figure_now.text(0.995, 0.995, for_plots(self._title), ha="right", va="top", fontsize=8, color="0.4")
        self._figure_now.canvas.draw()
        self._figure_now.set_layout_engine("none")  # laid out once: maps shall not jump

    def _bars(self) -> None:
        of_values = [pair for (panel, _), pair in self._artists.items() if panel not in ("error", "motion", "weights")]
        of_errors = [pair for (panel, _), pair in self._artists.items() if panel == "error"]
        for pairs, label in ((of_values, self._units()), (of_errors, "forecast − truth")):
            if pairs:
                bar = self._figure_now.colorbar(
                    pairs[-1][1], ax=[axes for axes, _ in pairs], fraction=0.04, extend="both"
                )
                bar.set_label(label, fontsize=8)
                bar.ax.tick_params(labelsize=7)

    def context_frame(self, index: int, frame: Frame) -> render.Canvas:
        """Draw given frame number `index`, counted from 0: (C, H, W) in [0, 1] -> (height, width, 3)."""
        self._last = frame
        shown = {panel: frame for panel in self._panels if panel in ("truth", "context", "prediction")}
        titles = dict.fromkeys(shown, "given")
        for panel in self._panels:
            for piece in range(self._slices):
                self._put(
                    panel, piece, self._clip.values(frame)[piece] if panel in shown else None, titles.get(panel, panel)
                )
        return self._canvas(f"{self._when(index)}   given {index + 1}/{self._given}", _GIVEN)

    def predicted_frame(
        self, index: int, prediction: Frame, truth: Frame | None, extra: Mapping[str, Frame] | None = None
    ) -> render.Canvas:
        """Draw predicted frame number `index`, counted from 0; `extra` holds pictures by the names of their panels."""
        titles = {"prediction": f"forecast {self._ahead(index)}", "context": "last given"}
        for panel in self._panels:
            for piece in range(self._slices):
                picture, _ = self._picture(panel, prediction, truth, extra or {}, piece)
                missing = f"{panel}: not known" if picture is None else panel
                self._put(panel, piece, picture, titles.get(panel, missing))
        return self._canvas(f"{self._when(self._given + index)}   forecast {self._ahead(index)}", _AHEAD)

    def _put(self, panel: str, piece: int, picture: NDArray[Any] | None, title: str) -> None:
        axes, image = self._artists[panel, piece]
        image.set_visible(picture is not None)
        picture = np.full(self._clip.series.shape[1:], np.nan) if picture is None else picture
        colours = self._errors if panel == "error" else self._values
        image.set_data(picture if picture.ndim == 3 else _drawable(picture, colours))
        if piece == 0:
            axes.set_title(title, fontsize=9)

    def _canvas(self, heading: str, colour: str) -> render.Canvas:
        self._heading.set_text(heading)
        self._heading.set_color(colour)
        return _drawn(self._figure_now)


class MapStrip(_Maps):
    """Draws one picture of the whole: a row per panel, a column per time, of at most six times."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._rows = [panel for panel in self._panels if panel != "context"] or ["prediction"]
        self._columns = render.strip_columns(self._given, self._frames, most=7)
        width, height = (side * (_WIDEST - 200) / len(self._columns) for side in self._panel_size())
        rows = len(self._rows) * self._slices
        self._whole = self._figure(len(self._columns) * width + 200, rows * (height + 24) + 70)
        self._grid = self._whole.subplots(rows, len(self._columns), squeeze=False)
        names = self._slice_names()
        given = sum(position < self._given for position in self._columns)
        self._shown: dict[bool, Any] = {}
        for (row, column), axes in np.ndenumerate(self._grid):
            axes.set_xticks([])
            axes.set_yticks([])
            first = 0 if row < self._slices and self._rows[0] != "error" else given
            if column == first:
                axes.set_ylabel(f"{self._rows[row // self._slices]} {names[row % self._slices]}".strip(), fontsize=9)
            axes.set_visible(False)
        if self._title:
            self._whole.suptitle(for_plots(f"{self._title}: {self._units()}"), fontsize=10)

    @property
    def canvas(self) -> render.Canvas:
        """What has been drawn so far, (height, width, 3) uint8."""
        for is_error, image in self._shown.items():
            rows = [row for row, panel in enumerate(self._rows) if (panel == "error") == is_error]
            axes = [self._grid[row * self._slices + piece, -1] for row in rows for piece in range(self._slices)]
            bar = self._whole.colorbar(image, ax=axes, fraction=0.1, extend="both")
            bar.set_label("forecast − truth" if is_error else self._units(), fontsize=8)
            bar.ax.tick_params(labelsize=7)
        self._shown = {}
        return _drawn(self._whole)

    def context_frame(self, index: int, frame: Frame) -> None:
        """Take given frame number `index`, counted from 0."""
        self._last = frame
        if index in self._columns and self._rows[0] != "error":
            self._draw(index, 0, self._rows[0], self._clip.values(frame), _GIVEN, f"{self._when(index)}\ngiven")

    def predicted_frame(
        self, index: int, prediction: Frame, truth: Frame | None, extra: Mapping[str, Frame] | None = None
    ) -> None:
        """Take predicted frame number `index`, counted from 0."""
        position = self._given + index
        if position not in self._columns:
            return
        for row, panel in enumerate(self._rows):
            pictures = [self._picture(panel, prediction, truth, extra or {}, piece)[0] for piece in range(self._slices)]
            if pictures[0] is not None:
                self._draw(position, row, panel, pictures, _AHEAD, f"{self._when(position)}\n{self._ahead(index)}")

    def _draw(self, position: int, row: int, panel: str, pictures: Any, colour: str, title: str) -> None:
        column = self._columns.index(position)
        for piece in range(self._slices):
            axes = self._grid[row * self._slices + piece, column]
            axes.set_visible(True)
            image = self._show(axes, pictures[piece], self._errors if panel == "error" else self._values)
            if panel not in ("motion", "weights"):
                self._shown[panel == "error"] = image
        top = self._grid[row * self._slices, column]
        if row == 0 or not self._grid[0, column].get_visible():
            top.set_title(title, fontsize=8, color=colour)


def levels_of(values: NDArray[Any], colours: Colours) -> NDArray[np.uint8]:
    """Values of any shape as levels of a picture: 0 where there is none, 1 below the scale, and 2 to 255 along it."""
    flat = colours.norm(_drawable(values, colours).ravel())  # matplotlib's scales are for one dimension or two
    share = np.ma.filled(flat, np.nan).reshape(values.shape)
    along = 2 + np.rint(253 * np.nan_to_num(share).clip(0, 1))
    return np.where(np.isnan(values), 0, np.where(share < 0, 1, along)).astype(np.uint8)


def _drawable(picture: NDArray[Any], colours: Colours) -> NDArray[Any]:
    """Values that a logarithmic scale can place: nothing is below its low end, and not missing."""
    if type(colours.norm).__name__ != "LogNorm":
        return picture
    return np.maximum(picture, (colours.norm.vmin or 1.0) / 2)


def _drawn(figure: Figure) -> render.Canvas:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
