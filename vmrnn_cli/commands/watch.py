"""`vmrnn watch`: a stream forecast as it comes."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupts
from ..errors import InputError
from ..text import printable
from ..watch_lines import FIELDS as FIELDS
from . import options
from .options import CLIP, OUTPUT, option

if TYPE_CHECKING:
    from ..event_films import EventFilms
    from ..predictor import Network
    from ..serve import Server
    from ..sources import Captured, Stream
    from ..watching import Watch, Watched

STREAM = "Stream"

_SOURCE = typer.Argument(
    ...,
    metavar="SOURCE",
    help="- (standard input), rtsp://, http:// or https://, /dev/video0, a video, a folder that images fall into, or a "
    "grid that grows (NetCDF, HDF5, Zarr, or a folder or pattern of them).",
)
_RAW = option(CLIP, "What frames on standard input without a container are: 640x480:gray, say.", metavar="WxH[:FORMAT]")
_SIZE = option(CLIP, "What the network sees; S is the shorter side. (default: as trained)", metavar="native|S|WxH")
_OUT = option(OUTPUT, "Write a film of each event into this folder.", "-o", "--output", metavar="DIR")
_ALARMS = option(STREAM, "How many false alarms may be expected. (default: 1, and at most one in 1000 frames)")
_REALTIME = option(
    STREAM,
    "Take a file or standard input at its own pace, and drop what there is no time for.",
    "--realtime",
    default=False,
)
_SERVE = option(OUTPUT, "Show it on a page at this address, 127.0.0.1:8080 say.", metavar="HOST:PORT")


def watch(
    source: str = _SOURCE,
    output: str | None = _OUT,
    margin: float = option(OUTPUT, "Seconds that films show before and after an event.", default=2.0),
    serve: str | None = _SERVE,
    open_to_network: bool = option(
        OUTPUT, "Let --serve take an address that other machines reach.", "--open-to-network", default=False
    ),
    overwrite: bool = options.OVERWRITE,
    every: int = option(STREAM, "A rollout every so many frames.", default=5),
    frames: int = option(STREAM, "How many frames a rollout forecasts.", default=10),
    leads: str = option(STREAM, "How many frames ahead forecasts are scored at.", default="1,5,10", metavar="LIST"),
    alarms_per_hour: float | None = _ALARMS,
    reconnect: bool = option(STREAM, "Take a stream up again that breaks off.", "--reconnect", default=False),
    realtime: bool = _REALTIME,
    raw: str | None = _RAW,
    size: str | None = _SIZE,
    value_range: str | None = options.RANGE,
    missing: str | None = options.MISSING,
    variable: str | None = options.VARIABLE,
    select: list[str] | None = options.SELECT,
    transform: str | None = options.TRANSFORM,
    fps: float | None = option(CLIP, "Frames per second, where the stream does not say or others are wanted."),
    weights: str | None = options.WEIGHTS,
    scan: str = options.SCAN,
    device: str = options.DEVICE,
    dtype: str = options.DTYPE,
    threads: int | None = options.THREADS,
    as_json: bool = option(None, "Print JSON Lines on a terminal, too.", "--json", default=False),
    quiet: bool = options.QUIET,
    debug: bool = options.DEBUG,
) -> None:
    """Forecast a stream as it comes, and tell when it surprises."""
    with interrupts.deferred():
        from .. import devices, event_films, watching
        from .. import serve as server
        from ..predictor import Predictor
        from ..readings import Declared

    numbers: dict[str, Any] = {"every": every, "frames": frames, "leads": _numbers(leads)}
    watching.check(fps=fps or watching.FPS, alarms_per_hour=alarms_per_hour, **numbers)
    address = None if serve is None else server.parse_address(serve, open_to_network)
    if weights == "" or output == "":
        raise InputError(f"{'--weights' if weights == '' else '-o'} is empty", "name some, or leave it out")
    declared = Declared.parse(None, value_range, missing, variable=variable, select=select, transform=transform)
    given = {"fps": fps, "realtime": realtime, "reconnect": reconnect, "raw": raw, "declared": declared}
    devices.set_threads(threads)
    with ExitStack() as opened:
        page = None if address is None else opened.enter_context(_page(address, source, quiet))
        stream, model, name = _open(opened, source, weights, size, quiet, given)
        paint = event_films.paint_gray if stream.grid is None else stream.grid.paint
        films = None
        if output is not None:
            folder = event_films.EventFilms(Path(output), stream.film_fps, margin, overwrite, paint)
            films = opened.enter_context(folder)
        if page is not None:
            page.paint = paint
        rate = watching.usual_alarms(stream.fps) if alarms_per_hour is None else alarms_per_hour
        predictor = Predictor(model, device=device, dtype=dtype, scan_backend=scan)
        matched = stream.grid is not None and stream.grid.matched
        watched = watching.Watch(predictor, fps=stream.fps, alarms_per_hour=rate, matched=matched, **numbers)
        told = {"source": stream.name, "weights": name, "fps": stream.fps, **numbers, "alarms_per_hour": rate}
        _Teller(stream, watched, films, page, as_json or not sys.stdout.isatty(), quiet).run(told)


def _page(address: tuple[str, int, bool], source: str, quiet: bool) -> Server:
    from ..serve import Server
    from ..sources import masked

    page = Server(*address, title=printable(masked(source)))
    if not quiet:
        print(f"the page is at {page.address}", file=sys.stderr, flush=True)
    return page


def _open(
    opened: ExitStack, source: str, weights: str | None, size: str | None, quiet: bool, given: dict[str, Any]
) -> tuple[Stream, Network, str]:
    """The stream, and the weights that are named or fit it, with their name."""
    from .. import sources
    from ..frames import parse_size
    from ..predictor import load_weights
    from ..video import Source

    def say(line: str) -> None:
        if not quiet:
            print(f"warning: {printable(line)}", file=sys.stderr, flush=True)

    if sources.is_growing(source):
        if size is not None:
            raise InputError(f"{source} is a grid, which is forecast as it is", "leave --size out")
        stream = opened.enter_context(sources.open_stream(source, say=say, **given))
        assert stream.grid is not None
        model, name = load_weights(weights, Source(source, given["declared"]))
        stream.grid.scale_for(model.config.divided_by)
        sources.check_channels(stream.name, stream.grid.shape[0], model.config.image_channels)
        return stream, model, name
    model, name = load_weights(weights)
    sources.check_channels(sources.masked(source), 1, model.config.image_channels)
    seen = min(model.config.image_size) if size is None else parse_size(size)
    return opened.enter_context(sources.open_stream(source, size=seen, say=say, **given)), model, name


def _numbers(given: str) -> list[int]:
    try:
        return sorted({int(number) for number in given.split(",")})
    except ValueError:
        raise InputError(f"--leads {given} is no list of numbers", "write them as in 1,5,10") from None


class _Teller:
    """Prints and shows each frame of a stream."""

    def __init__(
        self, stream: Stream, watch: Watch, films: EventFilms | None, page: Server | None, as_json: bool, quiet: bool
    ) -> None:  # fmt: skip
        from .. import watch_lines

        self._lines = watch_lines
        self._stream, self._watch, self._films, self._page = stream, watch, films, page
        self._json, self._live = as_json, not quiet and sys.stderr.isatty()
        self._curve, self._dropped, self._last = watch_lines.Curve(), 0, None
        self._size: list[int] | None = None

    def run(self, told: dict[str, Any]) -> None:
        """Watch until the stream ends or is interrupted, and end what is begun."""
        why, step = "the stream ended", None
        try:
            for captured in self._stream:
                if step is None:
                    self._begin(captured, told)
                if captured.gap:
                    self._watch.forget()
                step = self._watch.see(captured.frame, captured.at)
                self._tell(step, captured)
        except KeyboardInterrupt:
            self._end("interrupted", step)
            raise
        self._end(why, step)

    def _begin(self, captured: Captured, told: dict[str, Any]) -> None:
        from .. import __version__

        H, W = captured.frame.shape[1:]
        first = {
            "type": "start",
            "version": self._lines.VERSION,
            "vmrnn": __version__,
            "size": [W, H],
            "alarm": self._watch.alarm,
        }
        self._print({**first, **told})

    def _tell(self, step: Watched, captured: Captured) -> None:
        self._dropped += captured.dropped
        self._print(self._lines.frame_line(step, captured))
        for event in (step.ended, step.began):
            if event is not None:
                self._announce(self._lines.event_line(event))
        lasting = self._watch.events.now is not None
        if self._films is not None and (film := self._films.see(step, captured.picture, lasting)):
            self._written(film)
        if self._page is not None:
            self._page.show(step, captured.picture, lasting, self._dropped)
        if self._live and self._curve.add(step):
            line = self._curve.line(step, self._watch.events.count, self._dropped)
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def _end(self, why: str, step: Watched | None) -> None:
        """Say how it ended; an event that still lasts ends here, and its film with it."""
        if self._live:
            print(file=sys.stderr)
        if step is None:
            return
        self._dropped += self._stream.dropped
        if (event := self._watch.events.finish()) is not None:
            self._announce(self._lines.event_line(event))
        if self._films is not None and (film := self._films.finish()):
            self._written(film)
        told = {"frames": step.number + 1, "dropped": self._dropped, "events": self._watch.events.count}
        self._print({"type": "end", "why": why, **told, "network_s": round(self._watch.network_s, 3)})
        if not self._json:
            dropped = f", {self._dropped} dropped" if self._dropped else ""
            print(f"{why}: {told['frames']} frames{dropped}, {told['events']} events")

    def _announce(self, line: dict[str, Any]) -> None:
        self._print(line)
        if not self._json:
            clear = "\r\033[K" if self._live else ""
            print(f"{clear}event {line['event']} {line['state']} at {line['time']:.2f} s, surprise {line['surprise']}")

    def _written(self, film: Path) -> None:
        number = int(film.stem.rpartition("_")[2])
        self._print({"type": "event", "event": number, "state": "written", "file": str(film)})
        if not self._json:
            print(f"event {number}: wrote {printable(film)}")

    def _print(self, line: dict[str, Any]) -> None:
        if self._json:
            print(json.dumps(line), flush=True)
