"""Where the frames of a stream come from: standard input, a camera, the network, a file, a folder that images fall in,
a grid that grows.

What comes from the network or by standard input reaches ffmpeg with one protocol, and for http none at all: Python
fetches it, so that nothing in it, a playlist above all, can make ffmpeg open a file or another host.

Notation: C channels, H x W pixels.
"""

from __future__ import annotations

import collections
import itertools
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import numpy as np
from numpy.typing import NDArray

from . import network
from .errors import InputError, VMRNNError, os_failure, os_failures
from .frames import DEFAULT_FPS, IMAGE_SUFFIXES, Frame, Size, natural_order, open_images, to_float, to_uint8
from .grids.files import is_grid, is_pattern
from .growing import GrowingGrid
from .readings import UNDECLARED, Declared
from .video import Ffmpeg, Source, ffmpeg_reason, scaled_sides

Picture = NDArray[np.uint8]
Say = Callable[[str], None]

_PATIENCE = 30.0  # seconds without a sign of life after which a connection has broken off
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds before it is tried again
_GAP = 2.0  # seconds after which what comes does not go on with what came
_BUFFER = 0.5  # seconds of frames that may wait: a rollout takes a while
_REDIRECTS = 5
_PART = 2**16  # bytes of a connection that are passed on at once, at most
_AS_IT_IS = {"Accept-Encoding": "identity"}
_POLL = 0.1  # seconds
_STUCK = 2.0  # seconds after which an image that cannot be read is not half written, but broken
_LOG_EVERY = 1000  # frames after which a decoder's log is cut, if it has grown long
_RAW = re.compile(r"(\d+)x(\d+)(?::(\w+))?")
_RAW_FORMATS = ("rgb24", "bgr24", "gray", "yuv420p", "yuyv422", "nv12", "rgba", "bgra")


class Captured(NamedTuple):
    """A frame as it comes.

    frame : (1, H, W) float32 in [0, 1], as networks see it; of grids (C, H, W), NaN where a value is missing
    picture : (H, W, 3) uint8, as people do
    at : seconds since the first one
    dropped : how many before it were dropped since the one before
    gap : seconds in which nothing came before it, where it does not go on with what came; else 0
    valid : of grids, its time
    """

    frame: Frame
    picture: Picture
    at: float
    dropped: int = 0
    gap: float = 0.0
    valid: str = ""


class Stream:
    """Frames as they come: iterate over it once, within a `with` block that ends whatever reads for it.

    name : as given, without a password that may be in it
    fps : frames per second
    frames : they themselves
    grid : what is known of a grid besides
    """

    def __init__(
        self, name: str, fps: float, frames: Iterator[Captured], *, grid: GrowingGrid | None = None,
        pump: _Pump | None = None,
    ) -> None:  # fmt: skip
        self.name, self.fps, self.grid = name, fps, grid
        self._frames, self._pump = frames, pump

    @property
    def dropped(self) -> int:
        """How many frames were dropped since the last one that was kept."""
        return 0 if self._pump is None else self._pump.dropped

    @property
    def film_fps(self) -> float:
        """Frames per second of films of it: scans come too seldom to be shown at their pace."""
        return self.fps if self.grid is None else float(DEFAULT_FPS)

    def __iter__(self) -> Iterator[Captured]:
        return self._frames


class _Seen(NamedTuple):
    frame: Frame
    picture: Picture


@contextmanager
def open_stream(
    source: str, *, size: Size = 128, fps: float | None = None, realtime: bool = False, reconnect: bool = False,
    raw: str | None = None, declared: Declared = UNDECLARED, say: Say = lambda _: None,
) -> Iterator[Stream]:  # fmt: skip
    """Open a stream, and yield it once its first frame is there.

    Args:
        source: "-", "rtsp://...", "http://...", "https://...", "/dev/video0", a file, a folder, or a grid.
        size: of the frames, as for `video.open_clip`; grids are taken as they are.
        fps: the rate, where the stream does not say it or another one is wanted.
        realtime: pace a file or standard input as it would play.
        reconnect: take a connection or a camera up again when it breaks off.
        raw: "WxH" or "WxH:FORMAT", what frames without a container are.
        declared: what is said of a grid.
        say: told in a line what happens on the way.

    Raises:
        InputError: there is no such stream, or an option does not go with it.
        VMRNNError: it cannot be reached.
    """
    name = masked(source)
    kind = _kind(source)
    if reconnect and kind not in ("rtsp", "http", "camera"):
        raise InputError(f"{name} cannot be taken up again once it has ended", "leave out --reconnect")
    if raw is not None and kind != "input":
        raise InputError("--raw is of standard input only", "leave it out")
    if realtime and kind not in ("input", "file"):
        raise InputError(f"{name} comes at its own pace", "leave out --realtime")
    if kind != "grid" and declared != UNDECLARED:
        raise InputError(
            f"{name} is no grid, which --variable, --select, --range and --transform are for", "leave them out"
        )
    if fps is not None and not 0 < fps <= 1e5:
        raise InputError(f"{fps} frames per second is no frame rate", "give a number above 0, up to 100000")
    live = realtime
    ended = threading.Event()
    with ExitStack() as opened:
        opened.callback(ended.set)
        if kind == "file":
            rate, seen = opened.enter_context(_open_file(source, size, fps))
        elif kind == "folder":
            rate, captured = fps or float(DEFAULT_FPS), _Folder(Path(source), size, say).frames(fps or DEFAULT_FPS)
            yield Stream(name, rate, captured)
            return
        elif kind == "grid":
            grid = GrowingGrid(Path(source), declared, say, ended)
            rate = fps or grid.rate or float(DEFAULT_FPS)
            yield Stream(name, rate, _scans(grid, rate), grid=grid)
            return
        else:
            opening = _Decoding(source, kind, size, fps, raw)
            rate, seen, of_its_own = opened.enter_context(_taken_up(opening, name, reconnect, ended, say))
            live = realtime or (kind != "input" and of_its_own)
        if realtime:
            seen = _paced(seen, rate, ended)
        if live:
            pump = opened.enter_context(closing(_Pump(seen, rate, ended)))
            yield Stream(name, rate, pump.frames(), pump=pump)
        else:
            yield Stream(name, rate, (Captured(*one, number / rate) for number, one in enumerate(seen)))


def masked(source: str) -> str:
    """An address without the name and password that it may hold."""
    return re.sub(r"//[^/@]*@", "//...@", source)


def is_growing(source: str) -> bool:
    """Whether a source is a grid. Raises InputError where there is no such source."""
    return _kind(source) == "grid"


def check_channels(name: str, channels: int, wanted: int) -> None:
    """Raise InputError unless frames of so many channels are what a network takes."""
    if channels != wanted:
        raise InputError(
            f"{name} has {channels} value(s) at each place, and the weights take {wanted}",
            "choose other weights with --weights, or of a grid one slice with --select",
        )


def _kind(source: str) -> str:
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", source, re.IGNORECASE)
    if source == "-":
        return "input"
    if scheme:
        kind = {"rtsp": "rtsp", "http": "http", "https": "http"}.get(scheme[1].lower())
        if kind is None:
            raise InputError(f"{masked(source)}: there is no way to {scheme[1]}", "give rtsp, http or https")
        return kind
    path = Path(source)
    if re.fullmatch(r"/dev/video\d+", source):
        return "camera"
    with os_failures(f"cannot read {source}"):
        if (path.exists() or is_pattern(source)) and is_grid(path):
            return "grid"
    return "folder" if path.is_dir() else "file"


def _scans(grid: GrowingGrid, rate: float) -> Iterator[Captured]:
    for number, scan in enumerate(grid):
        at = number / rate if scan.at is None else scan.at
        yield Captured(scan.frame, grid.paint(scan.frame), at, gap=scan.gap, valid=scan.valid)


# ---- ffmpeg


class _Decoding:
    """A stream that ffmpeg decodes, to be opened as often as it breaks off."""

    def __init__(self, source: str, kind: str, size: Size, fps: float | None, raw: str | None) -> None:
        self.source, self.kind, self.name = source, kind, masked(source)
        self._size, self._fps = size, fps
        self._raw = [] if raw is None else _raw_input(raw, fps)
        if kind == "input" and sys.stdin.isatty():
            raise InputError("standard input is a terminal", "pipe a video into it")
        if kind == "camera" and not Path(source).exists():
            raise InputError(f"{source} does not exist", "check that the camera is there")

    @contextmanager
    def open(self) -> Iterator[_Decoded]:
        """Connect, and yield what comes."""
        with ExitStack() as opened:
            stdin, feed = subprocess.DEVNULL, None
            if self.kind == "input":
                stdin, given = sys.stdin.fileno(), [*self._raw, "-protocol_whitelist", "pipe", "-i", "pipe:0"]
            elif self.kind == "http":
                feed = opened.enter_context(_fetched(self.source))
                stdin = subprocess.PIPE
                given = [*feed.form, "-protocol_whitelist", "pipe", "-i", "pipe:0"]
            elif self.kind == "rtsp":
                waiting = ["-rtsp_transport", "tcp", "-timeout", str(round(_PATIENCE * 1e6))]
                given = [*waiting, "-protocol_whitelist", "rtsp,rtp,tcp", "-i", self.source]
            else:
                rate = [] if self._fps is None else ["-framerate", f"{self._fps:g}"]
                given = ["-f", "v4l2", *rate, "-protocol_whitelist", "file", "-i", self.source]
            quick = ["-threads", "1", "-analyzeduration", "2000000", "-reinit_filter", "0"]
            rate = ["fps", f"={self._fps:g},"] if self._fps and not self._raw and self.kind != "camera" else []
            output = ["-map", "0:V:0", "-filter_complex_threads", "1", "-vf", "".join(rate) + _planes(self._size)]
            output += ["-fps_mode", "passthrough", "-flush_packets", "1", "-f", "yuv4mpegpipe", "-"]
            decoder = Ffmpeg([*quick, *given, *output], stdin=stdin, stdout=subprocess.PIPE)
            opened.callback(decoder.stop)
            if feed is not None:
                assert decoder.stdin is not None
                threading.Thread(target=feed.into, args=(decoder.stdin,), daemon=True).start()
            yield _Decoded(self.name, decoder, feed)


def _raw_input(raw: str, fps: float | None) -> list[str]:
    found = _RAW.fullmatch(raw)
    form = (found[3] or "rgb24") if found else ""
    if found is None or form not in _RAW_FORMATS or not 0 < int(found[1]) * int(found[2]) <= 2**26:
        raise InputError(
            f"--raw {raw} does not say what frames are", f"write WxH or WxH:FORMAT, of {', '.join(_RAW_FORMATS)}"
        )
    return ["-f", "rawvideo", "-pix_fmt", form, "-s", f"{found[1]}x{found[2]}", "-framerate", f"{fps or 25:g}"]


def _planes(size: Size) -> str:
    """Filters to 8-bit full-range gray, R, G and B stacked: one gray picture four times as high."""
    W, H = scaled_sides(size)
    scaled = f"scale=w='{W}':h='{H}':flags=lanczos+accurate_rnd+full_chroma_int:out_range=pc"
    return (
        f"{scaled},split[one][other];[one]format=gray[y];[other]format=gbrp,extractplanes=r+g+b[r][g][b];"
        "[y][r][g][b]vstack=inputs=4"
    )


class _Decoded:
    """What ffmpeg makes of a stream; `fps` once the first frame is there."""

    def __init__(self, name: str, decoder: Ffmpeg, feed: _Feed | None) -> None:
        self._name, self._decoder, self._feed = name, decoder, feed
        self.live = feed is None or feed.live
        assert decoder.stdout is not None
        self._pipe: IO[bytes] = decoder.stdout
        # "YUV4MPEG2 W160 H120 F25:1 ...". Empty on failure.
        header = {field[:1]: field[1:] for field in self._pipe.readline().decode().split()[1:]}
        self._shape = (4, int(header.get("H", 0)) // 4, int(header.get("W", 0)))
        rate = [int(part) for part in header.get("F", "0:1").split(":")]
        self.fps = rate[0] / rate[1] if rate[1] and 0.1 <= rate[0] / rate[1] <= 1000 else 25.0

    def frames(self) -> Iterator[_Seen]:
        """Whole ones: half a frame at the end is none."""
        for number in itertools.count():
            if not self._pipe.readline():  # b"FRAME\n"
                return
            if number % _LOG_EVERY == 0:
                self._decoder.shorten_log()
            pixels = self._pipe.read(math.prod(self._shape))
            if len(pixels) < math.prod(self._shape):
                return
            planes = np.frombuffer(pixels, np.uint8).reshape(self._shape)
            yield _Seen(to_float(planes[:1]), planes[1:].transpose(1, 2, 0))

    def reason(self) -> str:
        """Why there is no more of it; empty where it simply ends."""
        if self._feed is not None and self._feed.failed:
            return self._feed.failed
        self._decoder.finish()
        log = self._decoder.log()
        return ffmpeg_reason(log) if log.strip() else ""


@contextmanager
def _taken_up(
    decoding: _Decoding, name: str, reconnect: bool, ended: threading.Event, say: Say
) -> Iterator[tuple[float, Iterator[_Seen], bool]]:  # fmt: skip
    """The rate and the frames of a stream, opened anew if it is to `reconnect`; whether it is live."""
    with ExitStack() as opened:
        current = opened.enter_context(ExitStack())
        decoded = current.enter_context(decoding.open())
        frames = decoded.frames()
        first = next(frames, None)
        if first is None:
            reason = decoded.reason() or "nothing came"
            raise InputError(f"cannot read a stream from {name}: {reason}", "give a video stream, or one that works")

        def seen() -> Iterator[_Seen]:
            nonlocal decoded
            yield first
            yield from frames
            while True:
                reason = decoded.reason()
                if not reconnect:
                    if reason and not ended.is_set():
                        say(f"{name} breaks off: {reason}")
                    return
                say(f"{name} broke off{f', {reason}' if reason else ''}: it is tried again until it is there")
                wait, again = _FIRST_WAIT, None
                while again is None:
                    current.close()
                    if ended.wait(wait):
                        return
                    wait = min(2 * wait, _LONGEST_WAIT)
                    with suppress(VMRNNError):  # not there yet
                        decoded = current.enter_context(decoding.open())
                        more = decoded.frames()
                        again = next(more, None)
                yield again
                yield from more

        yield decoded.fps, seen(), decoded.live


# ---- http


class _Feed:
    """A connection whose content goes to ffmpeg.

    form : what ffmpeg must know of it
    live : whether it comes at its own pace: a file has a length
    failed : why it ended
    """

    def __init__(self, name: str, response: Any) -> None:
        parts = iter(lambda: response.raw.read1(_PART), b"")
        first = next(parts, b"")
        self._parts, self.failed = itertools.chain([first], parts), ""
        self.live = "Content-Length" not in response.headers
        kind = response.headers.get("Content-Type", "").lower()
        if "mpegurl" in kind or "dash+xml" in kind or first.lstrip()[:7] == b"#EXTM3U":
            raise InputError(
                f"{name} is a playlist, which may name any other place", "give the address of the stream itself"
            )
        self.form = ["-f", "mpjpeg"] if kind.startswith("multipart/x-mixed-replace") else []

    def into(self, pipe: IO[bytes]) -> None:
        """Copy until either end closes; runs in a thread of its own."""
        import urllib3

        try:
            for part in self._parts:
                pipe.write(part)
                pipe.flush()
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # A pipe that is closed, or a connection that is closed from here, is no failure: whoever did it knows.
            self.failed = "" if isinstance(error, (BrokenPipeError, ValueError, AttributeError)) else str(error)
        finally:
            with suppress(OSError, ValueError):
                pipe.close()


@contextmanager
def _fetched(address: str) -> Iterator[_Feed]:
    """Connect to an address; it may send on to others of the same host only."""
    import requests
    import urllib3

    name, at = masked(address), address
    try:
        for _ in range(_REDIRECTS + 1):
            response = requests.get(at, stream=True, timeout=_PATIENCE, allow_redirects=False, headers=_AS_IT_IS)
            with response:
                if not response.is_redirect:
                    if response.status_code != 200:
                        raise VMRNNError(
                            f"{name} answers {response.status_code} {response.reason}", "check the address"
                        )
                    yield _Feed(name, response)
                    return
                at = urljoin(at, response.headers["Location"])
                if urlsplit(at).hostname != urlsplit(address).hostname or urlsplit(at).scheme not in ("http", "https"):
                    raise InputError(f"{name} sends on to {masked(at)}", "give that address, if it is meant")
        raise VMRNNError(f"{name} sends on too often", "check the address")
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        known = network.known_cause(f"cannot open {name}", error)
        raise known or VMRNNError(f"cannot open {name}: {network.reason(error)}", "check the address") from error


# ---- files and folders


@contextmanager
def _open_file(source: str, size: Size, fps: float | None) -> Iterator[tuple[float, Iterator[_Seen]]]:
    """A clip as a stream, with the frames that `predict` takes."""
    there = Source(source)
    with ExitStack() as opened:
        clip = opened.enter_context(there.open(channels=1, size=size, fps=fps))
        channels = 3 if there.kind == "video" else 1
        shown = opened.enter_context(there.open(channels=channels, size=size, fps=fps))

        def seen() -> Iterator[_Seen]:
            for frame, picture in zip(clip, shown, strict=False):
                yield _Seen(
                    np.nan_to_num(frame), np.broadcast_to(to_uint8(picture), (3, *picture.shape[1:])).transpose(1, 2, 0)
                )

        yield clip.fps, seen()


class _Folder:
    """A folder that images fall into, in the natural order of their names."""

    def __init__(self, folder: Path, size: Size, say: Say) -> None:
        self._folder, self._size, self._say = folder, size, say
        self._last: Any = None
        self._since: dict[Path, float] = {}  # when an image was first found unreadable

    def frames(self, rate: float) -> Iterator[Captured]:
        """Those that are there, and then for ever what comes; where many come at once, as many as there is time for."""
        begin, dropped, at_first = time.monotonic(), 0, True
        while True:
            files = self._new()
            most = max(4, round(_BUFFER * rate))
            chosen = (
                files
                if at_first
                else [files[i * len(files) // most] for i in range(most)]
                if len(files) > most
                else files
            )
            at_first, dropped = False, dropped + len(files) - len(chosen)
            for file in chosen:
                seen = self._read(file)
                if seen is None:
                    break  # half written: it and those after it come next time
                self._last = natural_order(file)
                if seen is not _UNREADABLE:
                    yield Captured(*seen, time.monotonic() - begin, dropped)
                    dropped = 0
            else:
                if files:
                    self._last = natural_order(files[-1])
            time.sleep(_POLL)

    def _new(self) -> list[Path]:
        try:
            files = [
                file
                for file in self._folder.iterdir()
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
            ]
        except OSError as error:
            raise os_failure(f"cannot read {self._folder}", error) from error
        files = [file for file in files if self._last is None or natural_order(file) > self._last]
        return sorted(files, key=natural_order)

    def _read(self, file: Path) -> _Seen | None:
        """An image; None as long as it may be half written."""
        try:
            (frame,), (picture,) = (
                list(open_images(self._folder, [file], channels, self._size, float(DEFAULT_FPS), 0.0)[0])
                for channels in (1, 3)
            )
        except (InputError, OSError) as error:
            since = self._since.setdefault(file, time.monotonic())
            if time.monotonic() - since < _STUCK:
                return None
            del self._since[file]
            self._say(f"{file} is left out: {error}")
            return _UNREADABLE
        self._since.pop(file, None)
        return _Seen(np.nan_to_num(frame), to_uint8(picture).transpose(1, 2, 0))


_UNREADABLE = _Seen(np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 3), np.uint8))


# ---- pace


def _paced(seen: Iterator[_Seen], rate: float, ended: threading.Event) -> Iterator[_Seen]:
    begin = time.monotonic()
    for number, one in enumerate(seen):
        if ended.wait(max(0.0, begin + number / rate - time.monotonic())):
            return
        yield one


class _Pump:
    """Reads in a thread of its own, so that a stream never waits; what nobody has time for is dropped, evenly.

    Of the frames that come, every n-th is kept. n is 1 while there is time for all; it grows while frames wait, and
    falls while none does.
    """

    def __init__(self, seen: Iterator[_Seen], rate: float, ended: threading.Event) -> None:
        self._seen, self._ended = seen, ended
        self._most = max(4, round(_BUFFER * rate))
        self._waiting: collections.deque[Captured] = collections.deque()
        self._changed = threading.Condition()
        self._done = False
        self.dropped = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        begin = before = None
        gap, stride, credit = 0.0, 1.0, 1.0
        try:
            for one in self._seen:
                now = time.monotonic()
                begin = now if begin is None else begin
                gap = now - before if before is not None and now - before > _GAP else gap
                before = now
                with self._changed:
                    waiting = len(self._waiting)
                    stride = (
                        min(64.0, stride * 1.05)
                        if waiting > self._most // 2
                        else max(1.0, stride / 1.02)
                        if not waiting
                        else stride
                    )
                    credit += 1
                    if credit >= stride and waiting < self._most:
                        credit = min(credit - stride, 1.0)
                        self._waiting.append(Captured(*one, now - begin, self.dropped, gap))
                        self.dropped, gap = 0, 0.0
                        self._changed.notify()
                    else:
                        self.dropped += 1
                if self._ended.is_set():
                    return
        except BaseException as error:  # handed to who takes the frames
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify()

    def frames(self) -> Iterator[Captured]:
        """Those that were kept, until the stream ends."""
        while True:
            with self._changed:
                while not self._waiting and not self._done:
                    self._changed.wait(0.5)  # a wait without an end would not hear Ctrl-C everywhere
                if not self._waiting:
                    break
                one = self._waiting.popleft()
            yield one
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Wait for the thread, whose source has been told to end."""
        self._ended.set()
        self._thread.join(0.2)
