"""A film of each event of a stream: the picture, its forecast and where it surprised, from before it until after it.

Notation: H x W pixels of a picture, uint8 (H, W, 3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from . import outputs
from .errors import InputError
from .frames import Frame, to_uint8
from .render import ERROR_COLOURS
from .surprise import Grid
from .video import VideoWriter, write_video
from .watching import Watched

Picture = NDArray[np.uint8]

_LONGEST = 60.0  # seconds of an event that are shown
_HOTTEST = 16.0  # times what is usual, at the bright end of the colours
_SHORT_SIDE = 192  # pixels of a panel, at least
_CAPTION, _GAP = 22, 8
_BACKGROUND, _TEXT, _ALARM = (15, 18, 24), (232, 235, 240), (255, 176, 60)


class Panels(NamedTuple):
    """What is shown of one frame; None where there is nothing yet."""

    picture: Picture
    forecast: Picture | None
    heat: Picture | None
    caption: str
    alarm: bool


Paint = Callable[[Frame], Picture]  # (C, H, W) in [0, 1] -> (H, W, 3)


def paint_gray(frame: Frame) -> Picture:
    """What is forecast of pictures, as they are seen by the network."""
    return np.broadcast_to(to_uint8(frame[:3]), (3, *frame.shape[1:])).transpose(1, 2, 0)


def panels(step: Watched, picture: Picture, alarm: bool, paint: Paint = paint_gray) -> Panels:
    """The panels of a frame, `alarm` while an event lasts; `paint` colours its forecast."""
    surprise = "" if step.surprise is None else f"  surprise {step.surprise:.1f} of {step.alarm:.1f}"
    forecast = None if step.forecast is None else paint(step.forecast)
    heat = None if step.heat is None else heat_colours(step.heat)
    return Panels(picture, forecast, heat, f"{step.time:.2f} s{surprise}", alarm)


def heat_colours(heat: Grid) -> Picture:
    """Where a frame surprises, (h, w) -> (h, w, 3): black up to what is usual, then by the logarithm."""
    share = np.log(np.maximum(heat, 1)) / np.log(_HOTTEST)
    return ERROR_COLOURS[(255 * share.clip(0, 1)).astype(np.uint8)]


def draw(shown: Panels, size: tuple[int, int]) -> Picture:
    """The panels side by side, each (height, width) large, with a caption."""
    height, width = size
    canvas = Image.new("RGB", (3 * width + 2 * _GAP, height + _CAPTION), _BACKGROUND)
    for number, picture in enumerate((shown.picture, shown.forecast, shown.heat)):
        if picture is not None:
            scaled = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BILINEAR)
            canvas.paste(scaled, (number * (width + _GAP), _CAPTION))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    pen.text((4, 4), shown.caption, _ALARM if shown.alarm else _TEXT, font)
    for number, name in ((1, "forecast"), (2, "surprise")):
        pen.text((number * (width + _GAP) + (120 if number == 1 else 0) + 4, 4), name, _TEXT, font)
    if shown.alarm:
        pen.rectangle((0, _CAPTION, width - 1, height + _CAPTION - 1), outline=_ALARM, width=2)
    return np.array(canvas)


class EventFilms:
    """Writes a film of each event into a folder; each is there once it is whole.

    Args:
        folder: made if need be.
        fps: frames per second.
        margin: seconds that are shown before and after an event.
        overwrite: whether films that are there may be replaced.
        paint: what colours forecasts.

    Raises:
        InputError: the folder cannot be written, or holds such films.
    """

    def __init__(self, folder: Path, fps: float, margin: float, overwrite: bool, paint: Paint = paint_gray) -> None:
        self._paint = paint
        outputs.check_folder(folder, "-o")
        outputs.make_folder(folder)
        if not overwrite and any(folder.glob("event_*.mp4")):
            raise InputError(f"{folder} holds films of events", "pass --overwrite to replace them, or name another -o")
        self._folder, self._fps, self._overwrite = folder, fps, overwrite
        self._margin = max(1, round(margin * fps))
        self._before: deque[Panels] = deque(maxlen=self._margin)
        self._open = ExitStack()
        self._writer: VideoWriter | None = None
        self._path = folder
        self._size = (0, 0)
        self._left = 0  # frames until the film ends
        self._room = 0  # frames of the event that are still shown

    def see(self, step: Watched, picture: Picture, lasting: bool) -> Path | None:
        """Take a frame, `lasting` while an event does, and return the film that became whole with it."""
        shown, whole = panels(step, picture, lasting, self._paint), None
        if step.began is not None:
            whole = self.finish()
            self._begin(step.began.number, picture)
            for earlier in self._before:
                self._write(earlier)
        if self._writer is not None:
            self._write(shown)
            self._room -= 1
            self._left = self._margin if lasting and self._room > 0 else self._left - 1
            if self._left <= 0:
                whole = self.finish()
        self._before.append(shown)
        return whole

    def name(self, number: int) -> Path:
        """Where the film of an event is written."""
        return self._folder / f"event_{number:04d}.mp4"

    def _begin(self, number: int, picture: Picture) -> None:
        self._path = self.name(number)
        H, W = picture.shape[:2]
        scale = max(1, -(-_SHORT_SIDE // min(H, W)))
        self._size = H * scale, W * scale
        self._left, self._room = self._margin, max(1, round(_LONGEST * self._fps))
        self._writer = self._open.enter_context(write_video(self._path, fps=self._fps, overwrite=self._overwrite))

    def _write(self, shown: Panels) -> None:
        assert self._writer is not None
        self._writer.write(draw(shown, self._size))

    def finish(self) -> Path | None:
        """End the film that is being written, if any, and return it."""
        if self._writer is None:
            return None
        self._writer = None
        self._open.close()
        return self._path

    def __enter__(self) -> EventFilms:
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.__exit__(*failure)  # type: ignore[arg-type]  # a film that is not whole is removed
