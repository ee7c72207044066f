"""What `vmrnn watch` prints: JSON Lines for programs, and a line with a curve for people."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sources import Captured
    from .surprise import Event
    from .watching import Scores, Watched

VERSION = 1  # of the fields

# The documentation of the lines, a paragraph for each kind, shown by --help.
FIELDS = "\n\n".join(
    " ".join(paragraph.split())
    for paragraph in """
    It prints JSON Lines, an object each, where standard output is no terminal. New fields may come; those that are here
    change with the version only.

    The first line: "type": "start"; "version" of these fields; "vmrnn"; "source"; "weights"; "fps"; "size", width and
    height of what the network sees; "every", "frames", "leads", "alarms_per_hour"; "alarm", the surprise above which an
    event begins.

    A line for each frame: "type": "frame"; "frame", counted from 0; "time", seconds since the first one; "surprise",
    -log10 of the share of this stream's frames that surprise as much, null before that is known; "mse", the squared
    error, summed over the frame, of what was forecast of it 1, 5, ... frames before, by that number;
    "baseline_last_frame" and "baseline_motion", the same of the last frame repeated, and of motion continued without a
    network; "dropped", where frames before it were left out for lack of time, how many; "gap", where nothing came for
    more than 2 seconds, or scans are missing, how many seconds; "valid_time", of grids.

    Lines of events: "type": "event"; "event", its number, counted from 1; "state": began, ended or written; "frame" and
    "time" of where it did; "surprise", the highest so far; once it has ended "began" and "peak", frames; with -o, once
    its film is whole, "file".

    The last line: "type": "end"; "why"; "frames", "dropped", "events", how many; "network_s", seconds that the network
    took.
    """.strip().split("\n\n")
)

_BARS = " ▁▂▃▄▅▆▇█"


def frame_line(step: Watched, captured: Captured) -> dict[str, Any]:
    """The line of a frame."""
    line: dict[str, Any] = {
        "type": "frame",
        "frame": step.number,
        "time": round(step.time, 4),
        "surprise": _rounded(step.surprise),
    }
    line |= {
        "mse": _scores(step.error),
        "baseline_last_frame": _scores(step.error_last_frame),
        "baseline_motion": _scores(step.error_motion),
    }
    line |= {"dropped": captured.dropped} if captured.dropped else {}
    line |= {"gap": round(captured.gap, 2)} if captured.gap else {}
    return line | ({"valid_time": captured.valid} if captured.valid else {})


def event_line(event: Event) -> dict[str, Any]:
    """The line of an event that begins, or of one that has ended."""
    if event.end is None:
        known: dict[str, Any] = {"state": "began", "frame": event.start}
    else:
        known = {"state": "ended", "frame": event.end, "began": event.start, "peak": event.peak}
    return {
        "type": "event",
        "event": event.number,
        **known,
        "time": round(event.time, 4),
        "surprise": _rounded(event.surprise),
    }


def _scores(scores: Scores) -> dict[str, float | None]:
    """None where nothing of the frame is known."""
    return {str(lead): None if math.isnan(value) else round(value, 4) for lead, value in sorted(scores.items())}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


class Curve:
    """The line that a terminal shows: the time, what was surprising lately, and how many events there were."""

    def __init__(self, length: int = 40) -> None:
        self._lately: deque[float] = deque(maxlen=length)
        self._peak = 0.0
        self._shown_at = 0.0

    def add(self, step: Watched, every: float = 0.2) -> bool:
        """Take a frame; whether the line is to be shown anew, some times a second."""
        self._peak = max(self._peak, (step.surprise or 0.0) / step.alarm if step.alarm else 0.0)
        if step.time - self._shown_at < every and step.began is None:
            return False
        self._lately.append(self._peak)
        self._peak, self._shown_at = 0.0, step.time
        return True

    def line(self, step: Watched, events: int, dropped: int) -> str:
        """The line, of at most 78 characters."""
        bars = "".join(_BARS[min(8, round(8 * share))] for share in self._lately)
        told = f"{events} event{'' if events == 1 else 's'}" + (f", {dropped} dropped" if dropped else "")
        return f"{step.time:9.1f} s |{bars:<40}| {told}"[:78]
