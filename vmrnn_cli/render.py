"""The comparison picture: truth, prediction and error of one clip, frame by frame or as a film strip.

Notation: C channels, H height, W width of a frame. Frames are float32 (C, H, W) in [0, 1], canvases are RGB, uint8
(height, width, 3). One channel is shown gray and three as RGB; any other number is gridded data, where every channel
becomes a tile of its own in a perceptual colour map.

Both classes take the frames one by one and keep none of them, so memory does not grow with the clip.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vmrnn_cli.errors import InputError
from vmrnn_cli.frames import Frame, to_uint8

PANELS = ("context", "truth", "prediction", "error", "motion", "weights")
LAYOUTS = ("row", "column", "grid", "swipe")
WITH_TRUTH = ("truth", "prediction", "error")
WITHOUT_TRUTH = ("context", "prediction")

# The bright end of the error's colours, as a share of the brightest value: fixed, so that frames and clips compare,
# and half, because beyond that a pixel is simply wrong and the interesting errors are smaller.
ERROR_SHARE = 0.5

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

_BACKGROUND: Colour = (15, 18, 24)
_EMPTY: Colour = (23, 27, 35)
_OUTLINE: Colour = (44, 50, 61)
_TEXT: Colour = (232, 235, 240)
_MUTED: Colour = (146, 154, 168)
_CONTEXT: Colour = (92, 182, 255)
_PREDICTED: Colour = (255, 176, 60)

# Pixels. The widths keep a GIF light and a strip readable; small frames grow until their shorter side has _SHORT_SIDE.
_WIDEST, _TALLEST, _SHORT_SIDE = 1920, 1080, 256
_STRIP_WIDEST, _STRIP_TALLEST, _STRIP_SHORT_SIDE, _STRIP_COLUMNS = 1840, 320, 128, 12
_MARGIN, _GAP, _HEADER, _CAPTION, _FOOTER = 20, 12, 46, 26, 34
_STRIP_NAMES, _STRIP_HEADER, _NARROWEST_CELL, _LOWEST_CELL = 108, 92, 40, 38
_NARROWEST_SLOT = 176  # holds a caption with its colour bar, however narrow the frame
_SCALE_WIDTH = 94  # of a colour bar with its numbers
_TILE_LABEL, _MOST_TILES = 16, 9


def _colour_map(*stops: int) -> NDArray[np.uint8]:
    """Interpolate 0xRRGGBB stops at equal distances to a table (256, 3)."""
    colours = np.array([[stop >> 16, stop >> 8 & 255, stop & 255] for stop in stops])
    position = np.linspace(0, 255, len(stops))
    channels = [np.interp(np.arange(256), position, channel) for channel in colours.T]
    return np.stack(channels, axis=1).round().astype(np.uint8)


# Every 15th colour of "viridis" and "magma" by Nathaniel Smith, Stefan van der Walt and Eric Firing (CC0).
VALUE_COLOURS = _colour_map(
    0x440154, 0x481769, 0x472A7A, 0x433D84, 0x3D4E8A, 0x355E8D, 0x2E6D8E, 0x297B8E, 0x23898E,
    0x1F978B, 0x21A585, 0x2EB37C, 0x46C06F, 0x65CB5E, 0x89D548, 0xB0DD2F, 0xD8E219, 0xFDE725,
)  # fmt: skip
ERROR_COLOURS = _colour_map(
    0x000004, 0x090720, 0x1A1042, 0x311165, 0x4A1079, 0x621980, 0x792282, 0x912B81, 0xAA337D,
    0xC23B75, 0xD9466B, 0xEC5860, 0xF7725C, 0xFC8E64, 0xFEAA74, 0xFEC68A, 0xFDE2A3, 0xFCFDBF,
)  # fmt: skip


def motion_colours(displacement: NDArray[np.float32]) -> Frame:
    """A motion field as colours: the direction as hue, the length as strength, full at the longest of 99 % of it.

    displacement : (2, H, W), (dy, dx) backward: where each place's content comes from
    returns : (3, H, W) in [0, 1]
    """
    dy, dx = -displacement  # which way it goes
    length = np.hypot(dy, dx)
    strength = (length / max(float(np.quantile(length, 0.99)), 0.5)).clip(0, 1)
    turn = np.arctan2(dy, dx) / (2 * math.pi)  # 0 to the right, a quarter downwards
    hues = [0.5 + 0.5 * np.cos(2 * math.pi * (turn - third)) for third in (0, 1 / 3, 2 / 3)]
    return np.stack([strength * hue for hue in hues]).astype(np.float32)


def weight_colours(weights: NDArray[np.float32]) -> Frame:
    """Which hypothesis of motion counts where: their colours, mixed as they are weighed.

    weights : (M, H, W), of sum 1: gray still, blue place, cyan thing, green camera, red matter, yellow what is behind
    returns : (3, H, W) in [0, 1]
    """
    front = [[0.5] * 3, [0.1, 0.3, 1], [0, 0.8, 0.9], [0.1, 0.8, 0.2], [1, 0.2, 0.1]]
    colours = np.array(front + [[1, 0.85, 0.1]] * (len(weights) - len(front)))
    return np.tensordot(colours.T, weights, 1).astype(np.float32)


def check_panels(panels: Sequence[str] | None) -> None:
    """Raise InputError unless `panels` (None: the default ones) names known panels, each once."""
    if panels is None:
        return
    unknown = [panel for panel in panels if panel not in PANELS]
    if unknown or not panels or len(set(panels)) < len(panels):
        what = (
            f"there is no panel '{unknown[0]}'" if unknown else f"panels '{','.join(panels)}' are not each named once"
        )
        raise InputError(what, f"choose from {','.join(PANELS)}")


def split_layouts(names: Sequence[str]) -> tuple[str | None, str | None]:
    """What a film's panels are laid out as, and an array's axes (`readings.Declared`), each None where not said."""
    arrays = [name for name in names if set(name.upper()) <= set("NTCHW")]
    films = [name for name in names if name not in arrays]
    for said in (films, arrays):
        if len(said) > 1:
            raise InputError(f"--layout says both {said[0]} and {said[1]}", "leave one out")
    return next(iter(films), None), next(iter(arrays), None)


def check_layout(layout: str | None, panels: Sequence[str] | None) -> None:
    """Raise InputError unless `layout` (None: the default one) is one of LAYOUTS, and has room for the panels."""
    if layout is None:
        return
    if layout not in LAYOUTS:
        raise InputError(f"there is no layout '{layout}'", f"choose from {', '.join(LAYOUTS)}")
    if layout == "swipe" and panels is not None and len(panels) != 2:
        raise InputError(f"a swipe shows 2 panels, not {len(panels)}", "name two with --panels, or leave it out")


class _Picture:
    """What draws a clip: what is in it, how it is labelled, and whether a frame belongs to it.

    frame_shape : (C, H, W)
    context, frames : how many frames are given and how many are predicted, both at least 1
    fps : frames per second, for the labels; None if nobody knows
    panels : any of PANELS, in the order shown. WITHOUT_TRUTH holds the last given frame beside the prediction
    raises : ValueError for arguments outside these
    """

    def __init__(
        self,
        frame_shape: tuple[int, int, int],
        context: int,
        frames: int,
        fps: float | None,
        panels: Sequence[str] = WITH_TRUTH,
    ) -> None:
        if len(frame_shape) != 3 or min(frame_shape) < 1:
            raise ValueError(f"frame_shape is {frame_shape}, not (C, H, W)")
        if context < 1 or frames < 1:
            raise ValueError(f"context ({context}) and frames ({frames}) must be at least 1")
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps must be positive, not {fps}")
        if not panels or len(set(panels)) < len(panels) or not set(panels) <= set(PANELS):
            raise ValueError(f"panels must be some of {', '.join(PANELS)}, each once, not {list(panels)}")
        self._frame_shape, self._context, self._frames, self._total = frame_shape, context, frames, context + frames
        self._fps, self._panels = fps, tuple(panels)

    def context_label(self, index: int) -> str:
        """What is said of given frame number `index`."""
        return f"context {index + 1}/{self._context}"

    def predicted_label(self, index: int) -> str:
        """What is said of predicted frame number `index`."""
        return f"predicted +{index + 1}{self._seconds(' · {} s', index + 1)}"

    @property
    def horizon(self) -> str:
        """What is said of all predicted frames."""
        if self._fps is None:
            return f"predicted · {self._frames} frames"
        return f"predicted · +{self._frames}{self._seconds(' is {} s ahead', self._frames)}"

    def _seconds(self, form: str, frames: int) -> str:
        if self._fps is None:
            return ""
        digits = 2 if self._fps <= 100 else 4  # slow-motion footage has steps below a hundredth of a second
        return form.format(f"{frames / self._fps:.{digits}f}")

    def _check(self, index: int, count: int, *frames: Frame | None) -> None:
        if not 0 <= index < count:
            raise ValueError(f"frame {index} of {count}")
        for frame in frames:
            if frame is not None and frame.shape != self._frame_shape:
                raise ValueError(f"a frame of shape {frame.shape} in a clip of {self._frame_shape}")
            if frame is not None and not np.isfinite(frame).all():
                raise ValueError("a frame holds NaN or infinity")


class Comparison(_Picture):
    """Draws one canvas per frame: the panels side by side, what is given and what is predicted, and where the clip is.

    All canvases have the same size, with even width and height as video formats want.

    layout : a "row" of panels, a "column" or a "grid"; None takes a row, or a column of very wide frames
    title : shown in the corner, cut to the room there is
    peak : the value at the bright end of the colours; gridded data that stays far below 1 wants its own
    clip : the other arguments of `_Picture`
    """

    def __init__(
        self, frame_shape: tuple[int, int, int], *, layout: str | None = None, title: str = "", peak: float = 1.0,
        **clip: Any,
    ) -> None:  # fmt: skip
        super().__init__(frame_shape, **clip)
        panels, total = self._panels, self._total
        across, down = _arranged(frame_shape, len(panels), layout)
        self._painter = _film_painter(frame_shape, len(panels), peak, layout)
        picture_width, picture_height = self._painter.size
        slot_width = max(picture_width, _NARROWEST_SLOT)
        slot_height = _CAPTION + picture_height + _GAP
        row_width = across * (slot_width + _GAP) - _GAP
        # The rest is left to the title.
        longest = self.context_label(self._context - 1), self.predicted_label(self._frames - 1)
        header_width = max(_length(label, 18) for label in longest) + 12
        width = _even(max(row_width, header_width, 280) + 2 * _MARGIN)
        height = _even(_HEADER + down * slot_height + _FOOTER)
        left = (width - row_width) // 2
        self._boxes = [
            (left + i % across * (slot_width + _GAP), _HEADER + i // across * slot_height + _CAPTION)
            for i in range(len(panels))
        ]
        self._slot_width = slot_width
        self._last_given: Image.Image | None = None
        self._bar_left, self._bar_top = _MARGIN, height - _FOOTER + 8
        counter_width = math.ceil(_length(f"{total}/{total}", 13))
        bar_width = width - 2 * _MARGIN - _GAP - counter_width
        self._bar_done, self._bar_ahead = (self._draw_bar(bar_width, strength) for strength in (1.0, 0.28))
        self._template = self._draw_template(width, height, title, header_width)

    def context_frame(self, index: int, frame: Frame) -> Canvas:
        """Draw given frame number `index`, counted from 0.

        frame : (C, H, W) in [0, 1]
        returns : (height, width, 3) uint8
        raises : ValueError for an index or a frame outside the clip
        """
        self._check(index, self._context, frame)
        picture = self._painter.values(frame)
        self._last_given = picture
        alone = not {"truth", "context"} & set(self._panels)
        canvas, draw = self._begin(index, self.context_label(index), _CONTEXT)
        for panel, box in zip(self._panels, self._boxes, strict=True):
            if panel == "prediction":
                canvas.paste(picture if alone else _dimmed(picture), box)
                self._mark(draw, box, "given", _CONTEXT)
            elif panel in ("truth", "context"):
                canvas.paste(picture, box)
        return np.array(canvas)

    def predicted_frame(
        self, index: int, prediction: Frame, truth: Frame | None, extra: Mapping[str, Frame] | None = None
    ) -> Canvas:
        """Draw predicted frame number `index`, counted from 0 (labelled +1).

        prediction, truth : (C, H, W) in [0, 1]; truth is None where it is not known
        extra : the pictures of further panels by name, (1 or 3, any height, any width) in [0, 1]
        returns : (height, width, 3) uint8
        raises : ValueError for an index or a frame outside the clip
        """
        self._check(index, self._frames, prediction, truth)
        canvas, draw = self._begin(self._context + index, self.predicted_label(index), _PREDICTED)
        for panel, box in zip(self._panels, self._boxes, strict=True):
            picture = self._shown(panel, prediction, truth, extra)
            if picture is not None:
                canvas.paste(picture, box)
            elif panel != "context":
                self._note(draw, box, "not known")
            if panel == "prediction":
                self._mark(draw, box, f"+{index + 1}", _PREDICTED)
            elif panel == "context":
                self._mark(draw, box, "last given", _CONTEXT)
        return np.array(canvas)

    def _shown(
        self, panel: str, prediction: Frame, truth: Frame | None, extra: Mapping[str, Frame] | None
    ) -> Image.Image | None:  # fmt: skip
        given = self._last_given if panel == "context" else None
        return given or self._painter.panel(panel, prediction, truth, extra or {})

    def _caption(self, panel: str) -> str:
        return panel

    def _begin(self, position: int, label: str, colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        """Start a canvas: the fixed parts, the label, the counter and the bar filled up to this frame."""
        canvas = self._template.copy()
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((_MARGIN, 17, _MARGIN + 3, 34), fill=colour)
        draw.text((_MARGIN + 12, 32), label, colour, _font(18), anchor="ls")
        total = self._total
        counter_right = canvas.width - _MARGIN
        draw.text((counter_right, self._bar_top + 9), f"{position + 1}/{total}", _MUTED, _font(13), anchor="rs")
        filled = round(self._bar_done.width * (position + 1) / total)
        canvas.paste(self._bar_done.crop((0, 0, filled, self._bar_done.height)), (self._bar_left, self._bar_top))
        return canvas, draw

    def _mark(self, draw: ImageDraw.ImageDraw, box: tuple[int, int], tag: str, colour: Colour) -> None:
        """Frame a panel in the colour of what it shows, and say so at the right end of its caption."""
        (left, top), (width, height) = box, self._painter.size
        draw.rectangle((left - 2, top - 2, left + width + 1, top + height + 1), outline=colour, width=2)
        if not self._painter.gridded:  # there the caption's end holds the colour bar
            draw.text((left + self._slot_width, top - 9), tag, colour, _font(13), anchor="rs")

    def _note(self, draw: ImageDraw.ImageDraw, box: tuple[int, int], text: str) -> None:
        """Write into an empty panel, if there is room."""
        (left, top), (width, height) = box, self._painter.size
        if width > 70 and height > 20:
            draw.text((left + width / 2, top + height / 2), text, _MUTED, _font(13), anchor="mm")

    def _draw_template(self, width: int, height: int, title: str, header_width: float) -> Image.Image:
        """Draw what no frame changes: title, captions, colour bars, empty panels, the bar still ahead."""
        canvas = Image.new("RGB", (width, height), _BACKGROUND)
        draw = ImageDraw.Draw(canvas)
        room = width - 2 * _MARGIN - header_width - 2 * _GAP
        draw.text((width - _MARGIN, 32), _fitted(title, 14, room), _MUTED, _font(14), anchor="rs")
        picture_width, picture_height = self._painter.size
        for panel, (left, top) in zip(self._panels, self._boxes, strict=True):
            draw.text((left, top - 9), self._caption(panel), _TEXT, _font(15), anchor="ls")
            if panel == "error" or self._painter.gridded:
                self._painter.draw_scale(canvas, panel, left + self._slot_width, top - 9)
            frame = (left - 1, top - 1, left + picture_width, top + picture_height)
            draw.rectangle(frame, fill=_EMPTY, outline=_OUTLINE)
        canvas.paste(self._bar_ahead, (self._bar_left, self._bar_top))
        boundary = self._bar_left + round(self._bar_done.width * self._context / self._total)
        draw.line((boundary, self._bar_top - 5, boundary, self._bar_top + 12), fill=_TEXT)
        return canvas

    def _draw_bar(self, width: int, strength: float) -> Image.Image:
        """Draw the progress bar, one cell per frame while there is room for cells."""
        bar = Image.new("RGB", (width, 8), _BACKGROUND)
        draw = ImageDraw.Draw(bar)
        context, total = self._context, self._total
        gap = 1 if width >= 6 * total else 0
        edges = [round(width * i / total) for i in (range(total + 1) if gap else (0, context, total))]
        for left, right in pairwise(edges):
            colour = _blend(_BACKGROUND, _CONTEXT if left < round(width * context / total) else _PREDICTED, strength)
            if right - gap > left:
                draw.rectangle((left, 0, right - 1 - gap, 7), fill=colour)
        return bar


class Swipe(Comparison):
    """Draws two panels as one picture, the first left of a line that moves to and fro, the second right of it."""

    def __init__(self, frame_shape: tuple[int, int, int], *, panels: Sequence[str] = WITH_TRUTH, **look: Any) -> None:
        self._pair = panels[0], panels[1]
        super().__init__(frame_shape, panels=panels[1:2], **look)

    def _caption(self, panel: str) -> str:
        return " | ".join(self._pair)

    def predicted_frame(
        self, index: int, prediction: Frame, truth: Frame | None, extra: Mapping[str, Frame] | None = None
    ) -> Canvas:
        """Draw predicted frame number `index`; arguments and errors as for Comparison."""
        canvas = Image.fromarray(super().predicted_frame(index, prediction, truth, extra))
        picture = self._shown(self._pair[0], prediction, truth, extra)
        if picture is None:  # nothing to compare with
            return np.array(canvas)
        (left, top), (width, height) = self._boxes[0], self._painter.size
        split = round(self._share(index) * width)
        canvas.paste(picture.crop((0, 0, split, height)), (left, top))
        ImageDraw.Draw(canvas).line((left + split, top, left + split, top + height - 1), _TEXT, width=2)
        return np.array(canvas)

    def _share(self, index: int) -> float:
        """Where the line is, from the left: at the middle first, then once to and fro in about forty frames."""
        frames = self._frames
        turns = max(1, round(frames / 40))
        return 0.5 + 0.42 * math.sin(2 * math.pi * turns * (index + 0.5) / frames)


def film(frame_shape: tuple[int, int, int], *, layout: str | None = None, **look: Any) -> Comparison:
    """What draws a film in one of LAYOUTS; other arguments are those of `Comparison`."""
    return (Swipe if layout == "swipe" else Comparison)(frame_shape, layout=layout, **look)


def _arranged(frame_shape: tuple[int, int, int], panels: int, layout: str | None = None) -> tuple[int, int]:
    """How many panels there are across and down: very wide frames are stacked, unless a layout says otherwise."""
    if layout is None:
        layout = "column" if _aspect(frame_shape) > 3 else "row"
    across = {"row": panels, "column": 1, "grid": math.ceil(math.sqrt(panels)), "swipe": 1}[layout]
    return across, 1 if layout == "swipe" else math.ceil(panels / across)


def _film_painter(
    frame_shape: tuple[int, int, int], panels: int, peak: float, layout: str | None = None
) -> "_Painter":  # fmt: skip
    across, down = _arranged(frame_shape, panels, layout)
    widest = (_WIDEST - 2 * _MARGIN - (across - 1) * _GAP) // across
    tallest = max(_TALLEST // down, _SHORT_SIDE)
    return _Painter(frame_shape, widest=widest, tallest=tallest, short_side=_SHORT_SIDE, peak=peak)


def panel_size(frame_shape: tuple[int, int, int], panels: int, layout: str | None = None) -> tuple[int, int]:
    """(H, W) of a panel of a gray or coloured clip's film: that of its frames, smaller where the film has no room."""
    width, height = _film_painter(frame_shape, panels, 1.0, layout).size
    return min(height, frame_shape[1]), min(width, frame_shape[2])


class FilmStrip(_Picture):
    """Draws one picture of the whole clip: a row per panel, a column per time step, at most a dozen of them.

    Takes the same frames as Comparison. `columns` says which positions in the clip it shows (0 is the
    first given frame); the others are ignored. The given frames stand in the first row, so a "context" panel adds none.
    """

    def __init__(
        self, frame_shape: tuple[int, int, int], *, title: str = "", peak: float = 1.0, **clip: Any
    ) -> None:  # fmt: skip
        super().__init__(frame_shape, **clip)
        self._rows = [panel for panel in self._panels if panel != "context"] or ["prediction"]
        self.columns = strip_columns(self._context, self._frames, most=_most_columns(frame_shape))
        count = len(self.columns)
        self._painter = _Painter(
            frame_shape,
            widest=(_STRIP_WIDEST - 2 * _MARGIN - _STRIP_NAMES) // count - _GAP,
            tallest=_STRIP_TALLEST,
            short_side=_STRIP_SHORT_SIDE,
            peak=peak,
        )
        cell_width, cell_height = self._painter.size
        self._pitch = max(cell_width, _NARROWEST_CELL) + _GAP, max(cell_height, _LOWEST_CELL) + _GAP
        width = _even(2 * _MARGIN + _STRIP_NAMES + count * self._pitch[0] - _GAP)
        height = _even(_STRIP_HEADER + len(self._rows) * self._pitch[1] + _MARGIN - _GAP)
        self._image = Image.new("RGB", (width, height), _BACKGROUND)
        self._draw_names(title)

    def context_frame(self, index: int, frame: Frame) -> None:
        """Take given frame number `index`, counted from 0; arguments and errors as for Comparison."""
        self._check(index, self._context, frame)
        if index in self.columns and self._rows[0] != "error":
            self._image.paste(self._painter.values(frame), self._corner(self.columns.index(index), 0))

    def predicted_frame(
        self, index: int, prediction: Frame, truth: Frame | None, extra: Mapping[str, Frame] | None = None
    ) -> None:
        """Take predicted frame number `index`, counted from 0; arguments and errors as for Comparison."""
        self._check(index, self._frames, prediction, truth)
        if self._context + index not in self.columns:
            return
        column = self.columns.index(self._context + index)
        for row, panel in enumerate(self._rows):
            picture = self._painter.panel(panel, prediction, truth, extra or {})
            left, top = self._corner(column, row)
            if picture is not None:
                self._image.paste(picture, (left, top))
            else:
                width, height = self._painter.size
                note = _first_fitting(["not known", "?"], 12, width)
                middle = left + width // 2, top + height // 2
                ImageDraw.Draw(self._image).text(middle, note, _MUTED, _font(12), anchor="mm")

    @property
    def canvas(self) -> Canvas:
        """What has been drawn so far, (height, width, 3) uint8, with even width and height."""
        return np.array(self._image)

    def _corner(self, column: int, row: int) -> tuple[int, int]:
        return _MARGIN + _STRIP_NAMES + column * self._pitch[0], _STRIP_HEADER + row * self._pitch[1]

    def _draw_names(self, title: str) -> None:
        """Draw the title, the names of rows and columns, and an empty cell wherever a picture may come."""
        draw = ImageDraw.Draw(self._image)
        draw.text((_MARGIN, 32), _fitted(title, 16, self._image.width - 2 * _MARGIN), _TEXT, _font(16), anchor="ls")
        cell_width, cell_height = self._painter.size
        context = self._context
        for row, panel in enumerate(self._rows):
            top = self._corner(0, row)[1]
            draw.text((_MARGIN, top + 14), panel, _TEXT, _font(15), anchor="ls")
            if panel == "error" or self._painter.gridded:
                self._painter.draw_scale(self._image, panel, _MARGIN + _SCALE_WIDTH, top + 34)
            for column, position in enumerate(self.columns):
                if position >= context or (row == 0 and panel != "error"):
                    left = self._corner(column, row)[0]
                    draw.rectangle((left - 1, top - 1, left + cell_width, top + cell_height), _EMPTY, _OUTLINE)
        for column, position in enumerate(self.columns):
            name = str(position + 1) if position < context else f"+{position - context + 1}"
            left = self._corner(column, 0)[0]
            colour = _CONTEXT if position < context else _PREDICTED
            draw.text((left, _STRIP_HEADER - 8), name, colour, _font(13), anchor="ls")
        given = sum(position < context for position in self.columns)
        self._draw_group(0, given, ["context"], _CONTEXT)
        self._draw_group(given, len(self.columns), [self.horizon, "predicted"], _PREDICTED)

    def _draw_group(self, first: int, stop: int, names: Sequence[str], colour: Colour) -> None:
        """Draw a line over the columns from `first` to before `stop`, named by the first name that fits."""
        draw = ImageDraw.Draw(self._image)
        left, right = self._corner(first, 0)[0], self._corner(stop, 0)[0] - _GAP
        draw.line((left, _STRIP_HEADER - 26, right - 1, _STRIP_HEADER - 26), fill=colour, width=2)
        name = _first_fitting(names, 14, right + _GAP - left)
        draw.text((left, _STRIP_HEADER - 33), name, colour, _font(14), anchor="ls")


class _Painter:
    """Turns frames of one shape into pictures of one size: scaled, coloured, several channels tiled.

    Frames with a side of up to 64 pixels (digits, grids) and all gridded data are enlarged by a whole factor with hard
    edges, because every pixel counts; larger footage is scaled with Lanczos, because blocks would hide the picture.
    """

    def __init__(
        self, frame_shape: tuple[int, int, int], *, widest: int, tallest: int, short_side: int, peak: float
    ) -> None:
        if not (math.isfinite(peak) and peak > 0):
            raise ValueError(f"peak must be positive, not {peak}")
        C, H, W = frame_shape
        self.peak, self.error_peak = peak, peak * ERROR_SHARE
        self.gridded = C not in (1, 3)
        self._tiles = min(C, _MOST_TILES) if self.gridded else 1
        self._rows, self._columns = mosaic(frame_shape)
        self._label = _TILE_LABEL if self.gridded else 0
        room_width = widest - (self._columns - 1) * _GAP
        fit = min(room_width / (self._columns * W), tallest / (self._rows * H))
        scale = min(fit, max(1.0, short_side / min(self._columns * W, self._rows * H)))
        hard = scale >= 1 and (self.gridded or min(H, W) <= 64)
        self._filter = Image.Resampling.NEAREST if hard else Image.Resampling.LANCZOS
        scale = math.floor(scale) if hard else scale
        self._tile_size = max(1, round(W * scale)), max(1, round(H * scale))
        self._pitch = self._tile_size[0] + _GAP, self._tile_size[1] + self._label + _GAP
        self.size = self._columns * self._pitch[0] - _GAP, self._rows * self._pitch[1] - _GAP
        self._mosaic_template = self._draw_mosaic(C)

    def panel(
        self, panel: str, prediction: Frame, truth: Frame | None, extra: Mapping[str, Frame]
    ) -> Image.Image | None:
        """Draw a panel of a predicted frame; None where the truth it needs, or its own picture, is not known."""
        if panel == "prediction":
            return self.values(prediction)
        if panel in extra:
            return self._in_colour(to_uint8(extra[panel]))
        if truth is None or panel not in ("truth", "error"):
            return None
        return self.values(truth) if panel == "truth" else self.error(prediction, truth)

    def values(self, frame: Frame) -> Image.Image:
        """Draw a frame (C, H, W); values outside [0, peak] are cut off."""
        levels = to_uint8(frame, self.peak)  # (C, H, W)
        if self.gridded:
            return self._tiled(levels, VALUE_COLOURS)
        return self._in_colour(levels)

    def error(self, prediction: Frame, truth: Frame) -> Image.Image:
        """Draw |prediction - truth|; for RGB its mean over the channels."""
        error = np.abs(prediction - truth)  # (C, H, W)
        if self.gridded:
            return self._tiled(to_uint8(error, self.error_peak), ERROR_COLOURS)
        levels = to_uint8(error.mean(axis=0), self.error_peak)
        # Scaled before it is coloured: between two errors lies an error between them, not a mixture of two colours.
        return Image.fromarray(ERROR_COLOURS[np.asarray(self._scaled(Image.fromarray(levels)))])

    def draw_scale(self, canvas: Image.Image, panel: str, right: int, baseline: int) -> None:
        """Draw a panel's colour bar with the values at its ends, _SCALE_WIDTH wide."""
        draw = ImageDraw.Draw(canvas)
        colours, high = VALUE_COLOURS, f"{self.peak:.2g}"
        if panel == "error":
            colours, high = ERROR_COLOURS, f"{self.error_peak:.2g}+"  # what is beyond looks the same
        left = right - _SCALE_WIDTH
        bar_left, bar_right = left + math.ceil(_length("0", 12)) + 5, right - math.ceil(_length(high, 12)) - 5
        bar = colours[np.linspace(0, 255, bar_right - bar_left).astype(int)]  # (width, 3)
        canvas.paste(Image.fromarray(np.repeat(bar[None], 8, axis=0)), (bar_left, baseline - 8))
        draw.rectangle((bar_left - 1, baseline - 9, bar_right, baseline), outline=_OUTLINE)
        draw.text((left, baseline), "0", _MUTED, _font(12), anchor="ls")
        draw.text((right, baseline), high, _MUTED, _font(12), anchor="rs")

    def _in_colour(self, levels: NDArray[np.uint8]) -> Image.Image:
        """(1 or 3, any height, any width), over all tiles."""
        channels = [Image.fromarray(channel).resize(self.size, self._filter) for channel in levels]
        return Image.merge("RGB", channels if len(channels) == 3 else channels * 3)

    def _tiled(self, levels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
        picture = self._mosaic_template.copy()
        for channel in range(self._tiles):
            tile = colours[np.asarray(self._scaled(Image.fromarray(levels[channel])))]
            picture.paste(Image.fromarray(tile), self._tile_corner(channel))
        return picture

    def _draw_mosaic(self, C: int) -> Image.Image:
        """Draw the labels of the tiles; the last one says when there are more channels than tiles."""
        picture = Image.new("RGB", self.size, _BACKGROUND)
        draw = ImageDraw.Draw(picture)
        for channel in range(self._tiles if self.gridded else 0):
            names = [f"channel {channel}", str(channel)]
            if channel == self._tiles - 1 < C - 1:
                names = [f"channel {channel} of {C}", f"{channel} of {C}", f"{channel}…"]
            left, top = self._tile_corner(channel)
            draw.text((left, top - 4), _first_fitting(names, 12, self._tile_size[0]), _MUTED, _font(12), anchor="ls")
        return picture

    def _tile_corner(self, channel: int) -> tuple[int, int]:
        row, column = divmod(channel, self._columns)
        return column * self._pitch[0], row * self._pitch[1] + self._label

    def _scaled(self, picture: Image.Image) -> Image.Image:
        return picture.resize(self._tile_size, self._filter)


def mosaic(frame_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Rows and columns of the tiles that come closest to a square."""
    C, H, W = frame_shape
    tiles = 1 if C in (1, 3) else min(C, _MOST_TILES)
    grids = [(math.ceil(tiles / columns), columns) for columns in range(1, tiles + 1)]
    return min(grids, key=lambda grid: abs(math.log(grid[1] * W / (grid[0] * H))))


def _aspect(frame_shape: tuple[int, int, int]) -> float:
    """Width over height of a frame's picture."""
    rows, columns = mosaic(frame_shape)
    return columns * frame_shape[2] / (rows * frame_shape[1])


def _most_columns(frame_shape: tuple[int, int, int]) -> int:
    """Fewer columns for wide frames, so that each stays large enough to be seen."""
    return max(3, min(_STRIP_COLUMNS, int(_STRIP_COLUMNS / math.sqrt(max(1.0, _aspect(frame_shape))))))


def strip_columns(context: int, frames: int, most: int) -> list[int]:
    """Choose positions in the clip: a few given frames, then predicted ones, each at even steps up to the last."""
    predicted = _every(frames, most - min(context, max(1, most // 6)))
    given = _every(context, min(3, most - len(predicted)))
    return given + [context + index for index in predicted]


def _every(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below count, at even steps, the last one among them."""
    step = math.ceil(count / most)
    return list(range(count - 1, -1, -step))[::-1]


def _dimmed(picture: Image.Image) -> Image.Image:
    return Image.blend(Image.new("RGB", picture.size, _BACKGROUND), picture, 0.4)


def _blend(background: Colour, colour: Colour, strength: float) -> Colour:
    red, green, blue = (round(b + (c - b) * strength) for b, c in zip(background, colour, strict=True))
    return red, green, blue


def _even(size: float) -> int:
    return 2 * math.ceil(size / 2)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _length(text: str, size: int) -> float:
    return _font(size).getlength(text)


def _first_fitting(texts: Sequence[str], size: int, room: float) -> str:
    """Choose the first of several wordings, long to short, that fits; the shortest is taken in any case."""
    return next((text for text in texts if _length(text, size) <= room), texts[-1])


def _fitted(text: str, size: int, room: float) -> str:
    """Cut a text to the room there is, and replace what Pillow's built-in font (little more than ASCII) cannot draw."""
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    text = "".join(c if " " <= c <= "~" else "?" for c in letters if not unicodedata.combining(c))
    if _length(text, size) <= room:
        return text
    while text and _length(text + "…", size) > room:
        text = text[:-1]
    return text + "…" if text else ""
