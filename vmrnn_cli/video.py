"""Clips as streams: decode any source frame by frame, write pictures and videos frame by frame.

Memory is flat in the clip's length everywhere: ffmpeg (the one imageio-ffmpeg ships) does the work on videos, one frame
is alive at a time.

Notation: T time, C channels (1 gray, 3 RGB; arrays may have others), H height, W width.
"""

import errno
import io
import itertools
import math
import os
import re
import subprocess
import tempfile
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmrnn_cli.errors import InputError, VMRNNError, os_failure, os_failures
from vmrnn_cli.frames import (
    DEFAULT_FPS,
    IN_MEMORY,
    LONGEST_SIDE,
    Frame,
    Size,
    check_picture_channels,
    is_array,
    list_images,
    only_array,
    open_array,
    open_images,
    past_the_end,
    read_arrays,
    to_float,
)
from vmrnn_cli.grids.files import is_grid, is_named_as_grid, is_pattern
from vmrnn_cli.grids.series import GridClip, GridSeries
from vmrnn_cli.outputs import atomic_path
from vmrnn_cli.readings import UNDECLARED, Declared, Units

_GIF_MAX_FPS = 50.0  # browsers play delays under 2/100 s as 10/100 s
_SEEK_MARGIN = 30.0  # seconds: longer than any usual distance between key frames
_LARGEST_PICTURE = 2**26  # pixels of a frame as it is decoded: twice those of 8K
_USUAL_RATES = [Fraction(rate) for rate in range(1, 241)]
_USUAL_RATES += [Fraction(1000 * rate, 1001) for rate in (24, 30, 48, 60, 120)]

Progress = Callable[[int, int], None]


class Clip:
    """A clip being read: iterate over it once for its frames, float32 (C, H, W) in [0, 1], each an array of its own.

    Use it as a context manager: leaving early ends the decoder at once. The last N frames, whatever the length:
    `collections.deque(clip, maxlen=N)`.

    name : the source as given, for messages
    kind : "video", "images", "array" or "grid"
    fps : frames per second of this stream
    has_clock : whether the clip or the caller says so; else `fps` is a rate to play it at
    frame_shape : (C, H, W)
    divided_by, offset : what an array's values are in [0, 1] times the one plus the other, if it has units of its own
    notes : what was taken for granted, a line each
    grid : of a grid, what is known of it besides
    """

    def __init__(
        self, name: str, kind: str, fps: float, frames: Iterator[Frame], decoder: "Ffmpeg | None" = None, *,
        has_clock: bool = True, divided_by: float = 1.0, offset: float = 0.0, notes: Sequence[str] = (),
        flaws: Sequence[str] = (), expected: int = 0, sought: bool = False, grid: GridClip | None = None,
    ) -> None:  # fmt: skip
        first = next(frames)
        self.grid = grid
        # A decoder that starts in the middle complains of what it lacks, until it is well into the clip.
        self._log_start = len(decoder.log()) if decoder is not None and sought else 0
        self.name, self.kind, self.fps, self.has_clock = name, kind, fps, has_clock
        self.notes = tuple(notes)  # all there with the first frame
        self.divided_by, self.offset = divided_by, offset
        self._flaws, self.expected = list(flaws), expected
        self.frame_shape: tuple[int, int, int] = first.shape
        self._frames = itertools.chain([first], frames)
        self._read = 0
        self._decoder = decoder
        self._ended = False

    def flaws(self) -> list[str]:
        """What shows that the file is damaged or breaks off, as far as it was read, a line each."""
        flaws = list(self._flaws)
        if self._ended and not self.whole():
            flaws.append(f"decoded {self._read} of about {self.expected} frames")
        if self._decoder is not None and (errors := self._decoder.log()[self._log_start :].strip()):
            flaws.append(f"not all of it can be decoded: {ffmpeg_reason(errors)}")
        return flaws

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        try:
            frame = next(self._frames)
        except StopIteration:
            self._ended = True
            raise
        self._read += 1
        return frame

    def whole(self) -> bool:
        """Whether it was read to its end, and had about as many frames as its packets say."""
        return self._ended and self._read >= 0.9 * self.expected - 2

    def keep_last(self, number: int, progress: "Progress | None" = None) -> None:
        """Read it to its end, and keep only its last frames; `progress` is told of each: (done, about how many)."""
        last: deque[Frame] = deque(maxlen=number)
        for done, frame in enumerate(self, 1):
            last.append(frame)
            if progress is not None:
                progress(done, max(done, self.expected))
        self._frames = iter(last)  # type: ignore[assignment]

    def close(self) -> None:
        """End the decoder, if there is one. The clip yields nothing after that."""
        self._flaws, self._ended = self.flaws(), False
        self._frames = iter(())  # type: ignore[assignment]
        if self._decoder is not None:
            self._decoder.stop()
            self._decoder = None

    def __enter__(self) -> "Clip":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Source:
    """A clip where it lies: a video, a GIF, a folder of numbered images, a `.npy`, a `.npz`, an array, or a grid.

    It is looked at once, and can be opened as often as need be.

    name : as given, for messages
    kind : "video", "images", "array" or "grid"

    Raises InputError when it is missing or no clip.
    """

    def __init__(self, path: str | Path | NDArray[Any], declared: Declared = UNDECLARED) -> None:
        self._declared, self._fps = declared, None
        self._series: GridSeries
        if isinstance(path, np.ndarray):
            self.name, self.kind, self._array = IN_MEMORY, "array", path
            return
        if not isinstance(path, (str, Path)):  # one of xarray's
            self.name, self.kind, self._series = IN_MEMORY, "grid", GridSeries(path, declared)
            return
        self.name, self._path = str(path), Path(path)
        if self.name.startswith(("/dev/", "/proc/")):  # standard input, perhaps: the file behind it
            self._path = self._path.resolve()
        with os_failures(f"cannot read {self.name}"):
            if (self._path.exists() or is_pattern(self.name)) and is_grid(self._path):
                self.kind, self._series = "grid", GridSeries(self._path, declared)
                return
            if self._path.exists() and is_named_as_grid(self._path):
                raise InputError(
                    f"{self.name} is no NetCDF, HDF5 or Zarr by its content",
                    "get it whole: it is damaged, or half written",
                )
            if self._path.is_dir():
                self.kind, self._files = "images", list_images(self._path)
                return
            if not self._path.exists():
                raise InputError(f"{path} does not exist", "check the path")
            if not self._path.is_file():
                raise InputError(f"{path} is not a regular file", "save the clip as a file first")
            if self._path.stat().st_size == 0:
                raise _unusable(self._path, "it is empty")
            if is_array(self._path):
                arrays, beside, self._fps = read_arrays(self._path)
                self.kind, self._array = "array", only_array(self._path, arrays)
                self._declared = declared.over(beside)
            else:
                self.kind, self._probe = "video", _probe(self._path)

    @classmethod
    def of(cls, source: "str | Path | NDArray[Any] | Source", declared: Declared = UNDECLARED) -> "Source":
        """The source itself, or that of a path or an array, of which the user says `declared`."""
        return source if isinstance(source, Source) else cls(source, declared)

    def open(
        self, *, channels: int | None = 1, size: Size = None, fps: float | None = None, start: float = 0.0,
        divided_by: float = 1.0, last: int | None = None, progress: "Progress | None" = None,
        learned: Declared = UNDECLARED,
    ) -> Clip:  # fmt: skip
        """Open it as a stream of frames; see `open_clip`."""
        _check_request(self.name, size, fps, start)
        self._check_declared()
        if self.kind == "grid":
            return self._open_grid(size, fps, start, divided_by, last, learned)
        fps = fps or self._fps
        if last is not None:
            return self._open_end(
                last, progress, channels=channels, size=size, fps=fps, start=start, divided_by=divided_by
            )
        rate = fps or DEFAULT_FPS
        with os_failures(f"cannot read {self.name}"):
            if self.kind == "video":
                return _open_video(self._path, self._probe, channels or 1, size, fps, start)
            if self.kind == "images":
                frames, notes = open_images(self._path, self._files, channels or 1, size, rate, start, self._declared)
                return Clip(self.name, self.kind, rate, frames, has_clock=fps is not None, notes=notes)
            frames, units, taken = open_array(
                self.name, self._array, channels, size, rate, start, divided_by, self._declared
            )
            own = units if units.own else Units()
            return Clip(
                self.name, self.kind, rate, frames, has_clock=fps is not None, divided_by=own.span, offset=own.low,
                notes=taken,
            )  # fmt: skip

    def _open_grid(
        self, size: Size, fps: float | None, start: float, divided_by: float, last: int | None, learned: Declared
    ) -> Clip:  # fmt: skip
        if size is not None:
            raise InputError(f"{self.name} is a grid, which is forecast as it is", "leave --size out")
        series = self._series
        first, skip = (series.first_after(start), 0) if last is None else series.before_end(last)
        grid = GridClip(series, series.scale(divided_by, last is not None, learned), first, skip)
        return Clip(
            self.name, self.kind, fps or DEFAULT_FPS, grid.frames(), has_clock=False, grid=grid,
            expected=len(series.times) - first,
        )  # fmt: skip

    @property
    def has_range(self) -> bool:
        """Whether its user says what is black and white."""
        return self._declared.range is not None

    @property
    def units(self) -> str | None:
        """The units of a grid, "" where it has none; None for all else."""
        return self._series.units if self.kind == "grid" else None

    def _check_declared(self) -> None:
        """Refuse what is declared of a source that says it itself."""
        said = {"--layout": self._declared.layout, "--range": self._declared.range, "--missing": self._declared.missing}
        of_grids = {
            "--variable": self._declared.variable, "--select": self._declared.select or None,
            "--gaps": self._declared.gaps, "--transform": self._declared.transform,
        }  # fmt: skip
        wrong = {"images": ("--layout",), "video": tuple(said), "grid": ("--layout",)}.get(self.kind, ())
        if self.kind != "grid":
            for option, given in of_grids.items():
                if given not in ("", None):
                    raise InputError(f"{self.name} is no grid, which {option} is for", f"leave {option} out")
        for option in wrong:
            if said[option] not in ("", None):
                holds = "is a grid" if self.kind == "grid" else "holds pictures"
                raise InputError(f"{self.name} {holds}, which {option} says nothing about", f"leave {option} out")

    def _open_end(self, last: int, progress: "Progress | None", **options: Any) -> Clip:
        """The last frames only. Of a long video, what comes long before them is not decoded."""
        self.look_through()
        if self.kind == "images" and not options["start"]:
            size, fps, channels = options["size"], options["fps"] or DEFAULT_FPS, options["channels"] or 1
            files = self._files[-last:]
            frames, notes = open_images(self._path, files, channels, size, fps, 0.0, self._declared)
            return Clip(self.name, self.kind, fps, frames, has_clock=options["fps"] is not None, notes=notes)
        near = self._probe.seek_to_last(last, options["fps"]) if self.kind == "video" else 0.0
        if near > options["start"]:
            with suppress(InputError), os_failures(f"cannot read {self.name}"):
                size, fps = options["size"], options["fps"]
                clip = _open_video(self._path, self._probe, options["channels"] or 1, size, fps, near, exactly=False)
                clip.keep_last(last, progress)
                if clip.whole():
                    return clip
                clip.close()  # the seek went too far, or the end is damaged: only the whole clip tells
        clip = self.open(**options)
        clip.keep_last(last, progress)
        return clip

    def look_through(self) -> None:
        """Look at all packets of a video, not only its first: `flaws` and `expected` of its clips then tell more."""
        if self.kind == "video" and not self._probe.whole:
            with os_failures(f"cannot read {self.name}"):
                self._probe = _probe(self._path, packets=None)

    def first_frame(self, start: float = 0.0) -> Frame | None:
        """The first frame after `start` seconds, at its own size; None if it cannot be read.

        Of arrays with all channels, counts as they are; of all else in gray.
        """
        try:
            if self.kind == "grid":
                series = self._series
                return series.scale().frame(series.scan(series.first_after(start)))
            if self.kind == "array":
                rate = self._fps or DEFAULT_FPS
                frames = open_array(self.name, self._array, None, None, rate, start, None, self._declared).frames
                return next(frames, None)
            with self.open(start=start) as clip:
                return next(clip, None)
        except (InputError, OSError):
            return None  # whoever opens it says why


def open_clip(path: str | Path | NDArray[Any], declared: Declared = UNDECLARED, **options: Any) -> Clip:
    """Open a `Source`, of which `declared` is known, as a stream of frames. The options are those of `Source.open`:

    channels : 1 gray, 3 RGB. Gray is repeated to make RGB, RGB made gray with the BT.601 luma; arrays with any other
        number of channels must have just that number. None: as many as an array has, and gray pictures.
    size : None native; an int makes the shorter side that long and the other one the nearest even number that keeps
        the aspect; (H, W) exactly. Resized with Lanczos. Videos come upright and with square pixels.
    fps : videos are resampled to this rate in real time, None is their own. Images and arrays are not resampled:
        for them it states the rate, None is 10.
    start : seconds to skip.
    divided_by : what brings counts into [0, 1], see `readings`. What exceeds it comes out above 1.
    learned : what the weights know of a grid's units, see `weights.learned`.

    Raises InputError when the source is missing, is no clip, does not fit `channels`, or ends before `start`. A flaw
    further down the stream (a NaN, an image of another size) raises it from the iteration.
    """
    return Source(path, declared).open(**options)


def _check_request(name: str, size: Size, fps: float | None, start: float) -> None:
    sides = (size,) if isinstance(size, int) else size or ()
    if not all(1 <= side <= LONGEST_SIDE for side in sides):
        raise InputError(f"cannot resize {name} to {size}", f"give sides between 1 and {LONGEST_SIDE} pixels")
    if fps is not None and not 1e-4 <= fps <= 1e5:  # what the containers can say
        raise InputError(f"{fps} frames per second is no frame rate", "give a number from 0.0001 to 100000")
    if not 0 <= start <= 1e9:
        raise InputError(f"cannot start {name} at {start} s", "give a number of seconds, 0 or more")


# ---- ffmpeg


class Ffmpeg:
    """An ffmpeg child. What it has to say goes to a temporary file, so that it never blocks on a full pipe."""

    def __init__(self, arguments: Sequence[str], stdin: int, stdout: int) -> None:
        with _machine_failures(), ExitStack() as opened:
            self._log = opened.enter_context(tempfile.TemporaryFile())
            # In a session of its own: Ctrl-C is for us to act on, and ffmpeg must not take it for the end of its input.
            self._process = subprocess.Popen(
                [*_ffmpeg(), *arguments], stdin=stdin, stdout=stdout, stderr=self._log, start_new_session=True
            )
            opened.pop_all()  # stop() closes it
        self.stdin = self._process.stdin
        self.stdout = self._process.stdout

    def finish(self) -> int:
        """Close the child's input, wait for it to end, and return its exit code."""
        if self.stdin is not None:
            with suppress(BrokenPipeError):  # it ended before the last frame; its exit code tells
                self.stdin.close()
        return self._process.wait()

    def stop(self) -> None:
        """End the child at once and wait for it, so that it is neither a zombie nor a ResourceWarning."""
        self._process.kill()
        self.finish()
        if self.stdout is not None:
            self.stdout.close()
        self._log.close()

    def shorten_log(self, most: int = 2**20) -> None:
        """Forget what ffmpeg has complained about, if that is long: a stream may have faults for days."""
        if os.fstat(self._log.fileno()).st_size > most:
            self._log.truncate(0)
            self._log.seek(0)  # for ffmpeg, too, which writes where this stands

    def log(self) -> str:
        """Return what ffmpeg has complained about so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    with _machine_failures():
        return subprocess.run(
            [*_ffmpeg(), *arguments], stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True
        )


def _ffmpeg() -> list[str]:
    import imageio_ffmpeg  # not before it is needed: arrays do without

    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+error"]


_REINSTALL = "reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE"


@contextmanager
def _machine_failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        failure = os_failure("cannot run ffmpeg", error)
        if isinstance(failure, InputError):  # that it is not there is no fault of what was given
            failure = VMRNNError(failure.what, _REINSTALL)
        raise failure from error
    except (RuntimeError, ImportError) as error:  # RuntimeError: imageio-ffmpeg finds no executable
        raise VMRNNError(f"cannot run ffmpeg: {error}", _REINSTALL) from error


def ffmpeg_reason(log: str) -> str:
    """Return the first thing that went wrong: what follows it in ffmpeg's log says the same with less."""
    if "matches no streams" in log:
        return "it holds no video"
    errors = re.findall(r"\[(?:error|fatal)\] (?:Error opening input: )?(.+)", log)
    return errors[0].strip().rstrip(".") if errors else "ffmpeg gave no reason"


def local_input(path: Path) -> list[str]:
    # "file:" and the whitelist: no name and no playlist, however it looks, makes ffmpeg open the network or a device.
    return ["-protocol_whitelist", "file", "-i", f"file:{path}"]


# ---- videos


class _Probe(NamedTuple):
    """What packets tell of a video: their times are facts, all else in a file is only said there."""

    stream: int  # which of the video streams
    input_options: list[str]  # what ffmpeg needs before -i
    alpha: bool
    fields: bool  # whether frames may be interlaced: each says so itself
    fps: Fraction
    longest_gap: float  # seconds between frames; what is longer counts for one frame
    span: float  # seconds from the first frame to the last, without longer gaps
    last: float  # seconds, of the last frame looked at
    duration: float | None  # seconds; None: the container does not say
    whole: bool  # whether all packets were looked at
    notes: list[str]
    flaws: list[str]

    def seek_to_last(self, frames: int, fps: float | None) -> float:
        """Where to seek to, in seconds, to find so many last frames; 0 where to read it all is safer or as fast."""
        if self.duration is None or self.notes or self.flaws:
            return 0.0
        return max(0.0, self.last - frames / float(fps or self.fps) - _SEEK_MARGIN)


def _open_video(
    path: Path, probe: _Probe, channels: int, size: Size, fps: float | None, start: float, *, exactly: bool = True
) -> Clip:
    """Open it at `start` seconds; not `exactly`, at a frame near that, or further on where it cannot be sought."""
    check_picture_channels(path, channels)
    # The seek lands on some key frame near the wanted time, or anywhere in a container without an index. So it aims
    # well ahead, and the filter "trim" finds the very frame.
    coarse = max(0.0, start - (_SEEK_MARGIN if exactly else 0.0))
    coarse = coarse if probe.duration else 0.0  # a bare stream has no times to seek by
    seek = ["-ss", f"{coarse:f}"] if coarse else []
    rate = Fraction(fps).limit_denominator(10**6) if fps else probe.fps
    filters = _filters(channels, size, rate, start - coarse, probe)
    output = ["-map", f"0:V:{probe.stream}", "-vf", filters, "-fps_mode", "passthrough", "-f", "yuv4mpegpipe", "-"]
    # By default, frames that change their size would start the filters anew, and time with them.
    decoder = Ffmpeg(
        ["-reinit_filter", "0", *probe.input_options, *seek, *local_input(path), *output],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert decoder.stdout is not None
    expected = int(max(0.0, probe.span - start) * float(rate)) + 1 if probe.whole else 0
    try:
        # "YUV4MPEG2 W160 H120 F25:1 ...": the size after rotation and scaling. Empty on failure.
        header = {field[:1]: field[1:] for field in decoder.stdout.readline().decode().split()[1:]}
        H, W = int(header.get("H", 0)) // channels, int(header.get("W", 0))
        return Clip(
            str(path), "video", fps or float(rate), _decoded_frames(path, decoder, (channels, H, W)), decoder,
            notes=probe.notes, flaws=probe.flaws, expected=expected, sought=bool(coarse),
        )  # fmt: skip
    except StopIteration:
        log = decoder.log()
        decoder.stop()
        raise _no_frames(path, start, fps, log) from None
    except BaseException:
        decoder.stop()
        raise


def _probe(path: Path, packets: int | None = 3000) -> _Probe:
    """Learn from the first packets, or from all, how to decode a file; nothing is decoded for that."""
    wanted = ["-map", "0:V", "-frames:v", str(packets)] if packets else ["-map", "0:V", "-map", "0:a?"]
    lister = Ffmpeg(
        ["-loglevel", "level+info", *local_input(path), *wanted, "-c", "copy", "-f", "framecrc", "-"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert lister.stdout is not None
    try:
        listed = _Packets(lister.stdout)
        lister.finish()
        log = lister.log()
    finally:
        lister.stop()
    # At the start of a line: a title in the metadata may hold anything.
    output = re.search(r"^\S* *Output #0.*", log, re.DOTALL | re.MULTILINE)
    videos = [number for number, size in listed.sizes.items() if listed.media[number] == "video"]
    if output is None or not videos:
        raise _unusable(path, ffmpeg_reason(log))
    stream = max(videos, key=lambda number: math.prod(listed.sizes[number]))  # the first of the largest
    W, H = listed.sizes[stream]
    said = re.search(rf"^\S* *Stream #0:{stream}\b[^\n]*?: Video: \w+[^,\n]*, (\w+)(.*)", output[0], re.MULTILINE)
    pixel_format, rest = said.groups() if said else ("", "")
    codec = listed.codecs[stream]
    if codec == "ansi":  # ffmpeg plays text files as a terminal would show them
        raise _unusable(path, "it is a text file")
    if W * H > _LARGEST_PICTURE or max(W, H) > LONGEST_SIDE:
        raise _unusable(path, f"its frames are {W}x{H}")
    alpha_track = "alpha_mode" in output[0].lower() and codec in ("vp8", "vp9")
    # Only libvpx decodes the second track in which WebM keeps its alpha.
    input_options = ["-c:v", {"vp8": "libvpx", "vp9": "libvpx-vp9"}[codec]] if alpha_track else []
    alpha = alpha_track or re.match(r"yuva|rgba|bgra|argb|abgr|gbrap|ya\d|pal8", pixel_format) is not None
    fields = re.match(r"yuv|uyvy|nv|gray", pixel_format) is not None and min(W, H) >= 4
    times = listed.times(stream)
    if listed.untimed[stream]:  # several frames may share a packet: ffmpeg works out the times as it decodes
        times = _decoded_times(path, videos.index(stream), 200)
    fps, longest_gap = _own_rate(times, listed.longest.get(stream, Fraction(0)))
    gaps = [float(after - before) for before, after in itertools.pairwise(times)]
    long = [gap for gap in gaps if gap > longest_gap]
    last = float(times[-1]) if times else 0.0
    notes, flaws = [], []
    if len(videos) > 1:
        notes.append(f"of {len(videos)} video streams the largest is taken, {W}x{H}")
    if long:
        notes.append(f"{len(long)} gap(s) between frames are left out, the longest of {max(long):.1f} s")
    clock = re.search(r"^\S* *Duration: (\d+):(\d+):([\d.]+)", log, re.MULTILINE)
    duration = (
        sum(float(part) * unit for part, unit in zip(clock.groups(), (3600, 60, 1), strict=True)) if clock else None
    )
    whole = packets is None or listed.count[stream] < packets
    if packets is None or (whole and duration and duration - listed.end > max(1.0, 0.1 * duration)):
        if packets is not None:  # sound may last longer than pictures
            return _probe(path, packets=None)
        errors = [line for line in log.splitlines() if re.search(r"\[(error|fatal)\]", line) and "[out#" not in line]
        if duration and duration - listed.end > max(1.0, 0.02 * duration):
            flaws.append(f"the file ends early: it says {duration:.1f} s and holds {listed.end:.1f}")
        elif errors:
            flaws.append(f"the file is damaged: {ffmpeg_reason(errors[0])}")
    span = sum(1 / float(fps) if gap > longest_gap else gap for gap in gaps)
    timed = not listed.untimed[stream]
    return _Probe(
        videos.index(stream), input_options, alpha, fields, fps, longest_gap, span, last, duration, whole and timed,
        notes, flaws,
    )  # fmt: skip


class _Packets:
    """What ffmpeg's format "framecrc" tells of each stream: "#name stream: value", and a line for each packet.

    end : seconds, of the last packet of any stream
    """

    def __init__(self, lines: IO[bytes]) -> None:
        self.media: dict[int, str] = {}
        self.codecs: dict[int, str] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.count: Counter[int] = Counter()
        self.untimed: Counter[int] = Counter()
        self._ticks: dict[int, array[int]] = {}
        self._tick: dict[int, Fraction] = {}
        self.end = 0.0
        self.longest: dict[int, Fraction] = {}  # seconds that a packet lasts, as its container says
        last: dict[int, int] = {}
        for line in lines:
            text = line.decode(errors="replace")
            if header := re.match(r"#(\w+) (\d+): (\S+)", text):
                self._describe(header[1], int(header[2]), header[3])
                continue
            packet = re.match(r"(\d+), +-?\d+, +(-?\d+), +(-?\d+),", text)  # stream, dts, pts, duration, size, ...
            if packet is None:
                continue
            stream, pts, ticks = map(int, packet.groups())
            self.count[stream] += 1
            if abs(pts) > 2**62:  # "unknown"
                self.untimed[stream] += 1
                continue
            self.longest[stream] = max(self.longest.get(stream, Fraction(0)), ticks * self._tick[stream])
            last[stream] = max(last.get(stream, pts), pts + max(0, ticks))
            if self.media.get(stream) == "video":
                self._ticks.setdefault(stream, array("q")).append(pts)
        if last:
            self.end = max(float(ticks * self._tick[stream]) for stream, ticks in last.items())

    def _describe(self, name: str, stream: int, value: str) -> None:
        if name == "tb":
            self._tick[stream] = Fraction(value)
        elif name == "media_type":
            self.media[stream] = value
        elif name == "codec_id":
            self.codecs[stream] = value
        elif name == "dimensions":
            W, H = value.split("x")
            self.sizes[stream] = int(W), int(H)

    def times(self, stream: int) -> list[Fraction]:
        """The times at which a stream shows something, in seconds, in order."""
        return [tick * self._tick[stream] for tick in sorted(set(self._ticks.get(stream, ())))]


def _decoded_times(path: Path, stream: int, frames: int) -> list[Fraction]:
    """When the first frames are shown, in seconds, in order."""
    small = ["-vf", "scale=16:16", "-frames:v", str(frames), "-fps_mode", "passthrough", "-f", "framecrc", "-"]
    done = _run([*local_input(path), "-map", f"0:V:{stream}", *small])
    return _Packets(io.BytesIO(done.stdout)).times(0)


def _own_rate(times: Sequence[Fraction], alone: Fraction) -> tuple[Fraction, float]:
    """The rate of a clip, and which gaps between its frames are none of its rhythm, in seconds.

    Where nearly all gaps are as long as their median, but for the rounding of times, their mean is the rate, or the
    usual one next to it. Else the median tells: at that rate few frames are repeated and few are left out.

    alone : how long a single frame is shown
    """
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    if not gaps:
        return (_within(1 / alone) if alone > 0 else Fraction(DEFAULT_FPS)), 1.0
    median, tick = gaps[len(gaps) // 2], min(gaps)
    tick = min(tick, *(after - before for before, after in itertools.pairwise(gaps) if after > before), tick)
    longest = max(1.0, 3 * float(median))
    near = [gap for gap in gaps if abs(gap - median) <= min(tick * Fraction(101, 100), median * Fraction(2, 5))]
    near = near if len(near) >= 0.9 * len(gaps) else []
    if near:
        rate, tolerance = len(near) / sum(near, Fraction(0)), float(1.5 * tick / sum(near, Fraction(0)))
        usual = min(_USUAL_RATES, key=lambda known: abs(known - rate))
        rate = usual if abs(usual / rate - 1) <= max(1e-4, min(tolerance, 0.01)) else rate
    else:
        real = [gap for gap in gaps if gap <= longest]
        rate = min(1 / median, 3 * len(real) / sum(real, Fraction(0)))  # whatever the times are, 3 frames a packet
    return _within(rate), longest


def _within(rate: Fraction) -> Fraction:
    """A rate that ffmpeg can say, and machines can play."""
    return min(max(rate, Fraction(1, 1000)), Fraction(1000)).limit_denominator(10**6)


def _filters(channels: int, size: Size, rate: Fraction, skip: float, probe: _Probe) -> str:
    """Return the ffmpeg filters from decoded (upright) frames to 8-bit full-range gray, or R, G and B stacked."""
    chain = ["bwdif=deint=interlaced"] if probe.fields else []
    step = f"1/({probe.fps}*TB)"
    passed = f"if(isnan(PTS-PREV_INPTS)+gt(PTS-PREV_INPTS,{probe.longest_gap:f}/TB),{step},max(PTS-PREV_INPTS,0))"
    chain += [f"setpts='if(isnan(PREV_OUTPTS),if(isnan(PTS),0,PTS),PREV_OUTPTS+{passed})'"]
    # At a clip's own rate its last frame belongs to it, however short it is shown.
    chain += [f"fps={rate}:eof_action={'pass' if rate == probe.fps else 'round'}"]
    if skip:
        chain += [f"trim=start={skip:f}"]
    chain += ["setpts=PTS-STARTPTS"]
    if probe.alpha:
        # Over black. In 16 bits, as the 8-bit product makes 254 of 255.
        chain += ["format=gbrap16le", "premultiply=inplace=1"]
    W, H = scaled_sides(size)
    chain += [f"scale=w='{W}':h='{H}':flags=lanczos+accurate_rnd+full_chroma_int:out_range=pc"]
    if channels == 1:
        chain += ["format=gray"]
    else:
        # One gray picture three times as high is a (3, H, W) array as it stands.
        chain += ["format=gbrp", "extractplanes=r+g+b[r][g][b];[r][g][b]vstack=inputs=3"]
    return ",".join(chain)


def scaled_sides(size: Size) -> tuple[str, str]:
    """Return width and height as ffmpeg expressions; `iw*sar` is the width in square pixels."""
    if size is None:
        return f"clip(round(iw*sar),1,{LONGEST_SIDE})", "ih"
    if isinstance(size, int):
        return (
            f"if(lt(iw*sar,ih),{size},clip(2*round(iw*sar/ih*{size}/2),2,{LONGEST_SIDE}))",
            f"if(lt(iw*sar,ih),clip(2*round(ih/(iw*sar)*{size}/2),2,{LONGEST_SIDE}),{size})",
        )
    return str(size[1]), str(size[0])


def _decoded_frames(path: Path, decoder: Ffmpeg, shape: tuple[int, int, int]) -> Iterator[Frame]:
    assert decoder.stdout is not None
    while decoder.stdout.readline():  # b"FRAME\n"
        pixels = decoder.stdout.read(math.prod(shape))
        if len(pixels) < math.prod(shape):
            break
        yield to_float(np.frombuffer(pixels, np.uint8).reshape(shape))  # (C, H, W)
    if decoder.finish() < 0:  # by a signal: what it left out must not count as the end of the clip
        raise VMRNNError(f"ffmpeg was killed while it read {path}", "close other programs, as memory may be short")


def _no_frames(path: Path, start: float, fps: float | None, log: str) -> InputError:
    if start and not log.strip():
        whole = _probe(path, packets=None)
        return past_the_end(path, start, whole.duration or (whole.last if whole.whole else None))
    if fps and not log.strip():
        return InputError(f"{path} is too short for {fps:g} frames per second", "pass a larger --fps")
    return _unusable(path, ffmpeg_reason(log))


def _unusable(path: Path, reason: str) -> InputError:
    return InputError(f"cannot read a clip from {path}: {reason}", "give a video, a folder of images, a .npy or a .npz")


# ---- writing


_CODECS = {
    ".mp4": ["-c:v", "libx264", "-crf", "17", "-preset", "medium", "-movflags", "+faststart"],
    ".webm": ["-c:v", "libvpx-vp9", "-crf", "24", "-b:v", "0", "-deadline", "good", "-cpu-used", "5", "-row-mt", "1"],
}
# BT.709, and saying so: what browsers assume of untagged video depends on its size. 4:2:0 needs even sides.
_PLAYABLE = [
    "-vf",
    "pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=flags=accurate_rnd:out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709",
]
_LOSSLESS = ["-c:v", "libx264rgb", "-qp", "0", "-preset", "ultrafast"]
_PALETTE = ["-pix_fmt", "rgba", "-f", "rawvideo"]


class VideoWriter:
    """Sends frames to ffmpeg one by one; made by `write_video`."""

    def __init__(self, path: Path, fps: float, codec: Sequence[str]) -> None:
        self._path = path
        self._fps = fps
        self._codec = codec
        self._shape: tuple[int, ...] = ()
        self._encoder: Ffmpeg | None = None

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame: uint8 (H, W, 3), RGB, of the same size as those before. VMRNNError when ffmpeg fails."""
        if self._encoder is None:
            self._shape = frame.shape
            self._encoder = self._start()
        if frame.shape != self._shape or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"expected uint8 frames shaped {self._shape}, got {frame.dtype} {frame.shape}")
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(frame.tobytes())
        except BrokenPipeError:
            self.finish()

    def _start(self) -> Ffmpeg:
        H, W, _ = self._shape
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{W}x{H}", "-framerate", f"{self._fps!r}", "-i", "-"]
        return Ffmpeg([*source, *self._codec, f"file:{self._path}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def finish(self) -> None:
        """Let ffmpeg write the rest. VMRNNError when it fails."""
        if self._encoder is None:
            raise ValueError("no frame was written")
        if self._encoder.finish() != 0:
            raise _encoding_failed(self._encoder.log())

    def stop(self) -> None:
        """End ffmpeg, whatever it is doing."""
        if self._encoder is not None:
            self._encoder.stop()


@contextmanager
def write_video(path: str | Path, *, fps: float, overwrite: bool) -> Iterator[VideoWriter]:
    """Yield a writer for a .gif, .mp4 (H.264) or .webm (VP9) that is in place once the block ends without an exception.

    fps : above 0. GIFs show every frame, at 50 per second at most: browsers slow down what is faster.

    An odd side gets a black row or column in .mp4 and .webm. Raises InputError for another suffix or a path that
    cannot be written, VMRNNError with ffmpeg's reason when encoding fails.
    """
    path = Path(path)
    if not 0 < fps < math.inf:
        raise InputError(f"{fps} frames per second is no frame rate", "give a number above 0")
    if path.suffix.lower() not in (".gif", *_CODECS):
        raise InputError(f"{path} is no video", f"end its name in .gif, {' or '.join(_CODECS)}")
    with atomic_path(path, overwrite) as temporary, encode(temporary, fps) as writer:
        yield writer


@contextmanager
def encode(path: Path, fps: float) -> Iterator[VideoWriter]:
    """The same, into a file that is half written on the way, and stays so when the block ends with an exception."""
    suffix = path.suffix.lower()
    if suffix != ".gif":
        with _writer(path, fps, [*_CODECS[suffix], *_PLAYABLE]) as writer:
            yield writer
        return
    # The palette is made for the whole clip, so the clip is kept, on disk, until its last frame has come.
    lossless, palette = path.with_suffix(".mkv"), path.with_suffix(".palette")
    graph = ["-filter_complex", "[0:v]split[clip][seen];[seen]palettegen[palette]"]
    kept = ["-map", "[clip]", *_LOSSLESS, f"file:{lossless}", "-map", "[palette]", *_PALETTE]
    try:
        with _writer(palette, min(fps, _GIF_MAX_FPS), [*graph, *kept]) as writer:
            yield writer
        _make_gif(lossless, palette, path)
    finally:
        lossless.unlink(missing_ok=True)
        palette.unlink(missing_ok=True)


@contextmanager
def _writer(path: Path, fps: float, codec: Sequence[str]) -> Iterator[VideoWriter]:
    writer = VideoWriter(path, fps, codec)
    try:
        yield writer
        writer.finish()
    finally:
        writer.stop()


def _make_gif(lossless: Path, palette: Path, gif: Path) -> None:
    palette_input = [*_PALETTE, "-s", "16x16", "-i", f"file:{palette}"]
    dither = "[0:v][1:v]paletteuse=dither=sierra2_4a:diff_mode=rectangle"
    done = _run([*local_input(lossless), *palette_input, "-lavfi", dither, "-loop", "0", f"file:{gif}"])
    if done.returncode != 0:
        raise _encoding_failed(done.stderr.decode(errors="replace"))


def _encoding_failed(log: str) -> OSError:
    """Told as what could not be written by `atomic_path`, which knows its name."""
    return OSError(errno.EIO, f"ffmpeg says {ffmpeg_reason(log)}")
