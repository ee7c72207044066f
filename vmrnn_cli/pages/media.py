"""Frames as a page holds them: WebP pictures in data URIs, which the page colours and compares itself.

Notation: T time, C channels, H x W pixels; frames are float32 (C, H, W) in [0, 1].
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from .. import maps, render
from ..frames import Frame, to_uint8
from ..grids.values import GridScale
from ..rivals import RIVAL_NAMES

# Of rivals: what they are called, and the style sheet's class for them.
RIVAL_LOOKS = {key: (name.capitalize(), f"s{place}") for place, (key, name) in enumerate(RIVAL_NAMES.items(), 1)}
_QUALITY = 88  # of WebP: what it loses is below what the error overlay shows
_SMALL = 64  # pixels: up to this shorter side every one counts, and nothing is lost


class Film:
    """Encodes the frames of one clip, all in the same way.

    frame_shape : (C, H, W); 1 channel is gray and 3 are colours, others are tiled and coloured by the page
    peak : the value at the bright end
    quality : of WebP, from 0 to 100, where pictures are large enough to lose anything
    most : pixels of the shorter side; larger frames are scaled down
    """

    def __init__(
        self, frame_shape: tuple[int, int, int], *, peak: float = 1.0, quality: int = _QUALITY, most: int | None = None
    ) -> None:
        C, H, W = frame_shape
        self.peak, self.gridded = peak, C not in (1, 3)
        self.rows, self.columns = render.mosaic(frame_shape)
        scale = min(1.0, (most or math.inf) / min(H, W)) if not self.gridded else 1.0
        self._tile = max(1, round(W * scale)), max(1, round(H * scale))
        self.size = self.columns * self._tile[0], self.rows * self._tile[1]  # width, height
        self.hard = self.gridded or min(self._tile) <= _SMALL
        self._options: dict[str, Any] = {"lossless": True} if self.hard else {"quality": quality}

    def encode(self, frame: Frame) -> str:
        """A frame (C, H, W) as a data URI; values outside [0, peak] are cut off."""
        levels = to_uint8(frame, self.peak)
        if self.gridded:  # as many channels as a film shows, side by side
            tiles = self.rows * self.columns
            levels = np.pad(levels[:tiles], ((0, max(0, tiles - len(levels))), (0, 0), (0, 0)))
            picture = Image.fromarray(rearrange(levels, "(rows columns) h w -> (rows h) (columns w)", rows=self.rows))
        else:
            channels = [Image.fromarray(channel) for channel in levels]
            picture = channels[0] if len(channels) == 1 else Image.merge("RGB", channels)
            if picture.size != self._tile:
                picture = picture.resize(self._tile, Image.Resampling.LANCZOS)
        return data_uri(picture.convert("RGB"), method=3, **self._options)

    def error(self, prediction: Frame, truth: Frame) -> float | None:
        """How far off a frame is, as `error` has it."""
        return error(prediction, truth, self.peak)

    def look(self) -> dict[str, Any]:
        """What the page's player wants to know of the pictures."""
        width, height = self.size
        look: dict[str, Any] = {"width": width, "height": height, "hard": self.hard, "gridded": self.gridded}
        return look | {"peak": self.peak, "errorPeak": self.peak * render.ERROR_SHARE}


class GridFilm(Film):
    """Encodes maps of a grid in the colours that its variable has, north up, without loss.

    units : of its values, for people
    """

    def __init__(
        self, scale: GridScale, own: Callable[[Frame], NDArray[np.float64]], given: NDArray[np.float32], *,
        upwards: bool = False, name: str = "", most: int | None = None,
    ) -> None:  # fmt: skip
        """Take the colours from given frames (T, C, H, W).

        scale : of the grid
        own : from frames to the data's own units, NaN where there are none
        upwards : whether the last row is the northernmost
        name : of the variable
        most : about how many places high or wide a map may be; of larger ones every second, third ... is shown
        """
        super().__init__(given.shape[1:])
        self.gridded = self.hard = True
        self.units, self._own, self._name = scale.units, own, name
        _, C, H, W = given.shape
        self.rows, self.columns = render.mosaic((4 if C == 3 else C, H, W))  # three slices are no colours
        step = math.ceil(min(H, W) / most) if most else 1
        self._places = slice(None), slice(None, None, -step if upwards else step), slice(None, None, step)
        _, height, width = given[0][self._places].shape
        self.size = self.columns * width, self.rows * height
        self._colours = maps.colours_for(scale, own(given))

    def encode(self, frame: Frame) -> str:
        levels = maps.levels_of(self._own(frame)[self._places], self._colours)
        tiles = self.rows * self.columns
        levels = np.pad(levels[:tiles], ((0, max(0, tiles - len(levels))), (0, 0), (0, 0)))
        picture = Image.fromarray(rearrange(levels, "(rows columns) h w -> (rows h) (columns w)", rows=self.rows))
        return data_uri(picture.convert("RGB"), method=3, lossless=True)

    def look(self) -> dict[str, Any]:
        (low, high), logarithmic = self._ends(), type(self._colours.norm).__name__ == "LogNorm"
        least, most = f"{low:.3g}", f"{high:.3g}{f' {self.units}' if self.units else ''}"
        share = render.ERROR_SHARE
        error = (
            f"×{(high / low) ** share:.3g}+" if logarithmic else f"{share * (high - low):.3g}+ {self.units}".rstrip()
        )
        stops, missing, under = self._stops()
        return super().look() | {
            "peak": 1.0, "errorPeak": share, "units": self.units, "named": self._name or "values",
            "map": {"stops": stops, "missing": missing, "under": under, "least": least, "most": most, "error": error},
        }  # fmt: skip

    def error(self, prediction: Frame, truth: Frame) -> float | None:
        """Root of the mean squared error in the data's own units, where the truth is known; None if nowhere."""
        known = np.isfinite(truth)
        if not known.any():
            return None
        difference = self._own(prediction)[known] - self._own(truth)[known]
        found = float(np.sqrt(np.nanmean(np.square(difference)))) if np.isfinite(difference).any() else None
        return None if found is None else float(f"{found:.4g}")

    def _ends(self) -> tuple[float, float]:
        return float(self._colours.norm.vmin or 0.0), float(self._colours.norm.vmax or 1.0)

    def _stops(self) -> tuple[list[list[int]], list[int], list[int]]:
        """Colours at equal distances along the scale, that of missing values, and that below the scale."""
        drawn = self._colours.map([*np.linspace(0, 1, 18), np.nan, -1.0], bytes=True)[:, :3].tolist()
        return drawn[:18], drawn[18], drawn[19]


def data_uri(picture: Image.Image, **options: Any) -> str:
    """A picture as WebP; the options are Pillow's."""
    file = io.BytesIO()
    picture.save(file, "webp", **options)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def track(label: str, css: str) -> dict[str, Any]:
    """What the page's player shows as one: frames, as many as it has of its own, and their errors."""
    return {"label": label, "css": css, "frames": [], "errors": []}


def colours() -> dict[str, list[list[int]]]:
    """The colour maps of films, as stops at equal distances."""
    return {"values": render.VALUE_COLOURS[::15].tolist(), "errors": render.ERROR_COLOURS[::15].tolist()}


def error(prediction: Frame, truth: Frame, peak: float = 1.0) -> float | None:
    """Root of the mean squared error where the truth is known, in percent of the brightest value; None if nowhere."""
    known = np.isfinite(truth)
    if not known.any():
        return None
    squared = np.square(prediction[known].astype(np.float64) - truth[known])
    return round(100 * float(np.sqrt(squared.mean())) / peak, 3)
