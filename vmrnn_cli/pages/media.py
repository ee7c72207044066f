"""Frames as a page holds them: WebP pictures in data URIs, which the page colours and compares itself.

Notation: T time, C channels, H x W pixels; frames are float32 (C, H, W) in [0, 1].
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image

from .. import render
from ..frames import Frame, to_uint8
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

    def look(self) -> dict[str, Any]:
        """What the page's player wants to know of the pictures."""
        width, height = self.size
        look: dict[str, Any] = {"width": width, "height": height, "hard": self.hard, "gridded": self.gridded}
        return look | {"peak": self.peak, "errorPeak": self.peak * render.ERROR_SHARE}


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
