"""From a clip to a forecast: read the context, roll the model out, compare with what really came.

Notation: T time, C channels, H x W pixels; frames are float32 arrays (C, H, W) in [0, 1]. Everything streams: apart
from the context, one frame at a time is in memory, however long the clip or the forecast. Values that exceed the
divisor of the weights lie above 1: the network sees them cut off there, scores and files as they are. Values that are
missing are NaN where they are read; networks, pictures and files get them filled, scores leave them out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray

from . import pretrained, scan, video, weights
from .config import NetworkConfig
from .devices import autocast, in_words, keep_freed_memory, mind_forks, pick_device, pick_dtype, set_threads
from .errors import InputError, NotFiniteError
from .forecast import Forecast, Missing, Progress, Step, Timing
from .frames import Frame, parse_size
from .gpu import GraphedStep, Record, record_cuda_graph
from .grids.values import are_matched
from .matching import match_values
from .metrics import Score
from .model import VMRNN, rollout
from .motion import Continuation, at_least_two
from .motion_network import MotionVMRNN, Outlook
from .outputs import given_name
from .readings import Declared, fill, missing_note
from .rivals import RIVALS
from .whole import Things

Network = VMRNN | MotionVMRNN
ClipLike = str | Path | NDArray[np.generic] | video.Source | Any  # and xarray's DataArray
Size = int | tuple[int, int] | str | None
Fit = Callable[[tuple[int, int, int]], tuple[int, int] | None]  # (C, H, W) -> (H, W), None for as it is

_MOST_FRAMES = 2**31 - 1
_EXTRA = ("motion", "weights")  # panels that show what a network decides
_BLOCK = 16  # frames ahead that a network decides on together: more would be no faster, and need more memory


class Predictor:
    """A model on a device, with frames in and out as arrays."""

    def __init__(
        self, model: Network, *, device: str = "auto", dtype: str = "auto", scan_backend: str = "auto"
    ) -> None:
        mind_forks()
        keep_freed_memory()
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self.scan_backend = scan.pick_backend(scan_backend, self.device, model.config.d_state, model.rank)
        self.model = model.to(self.device).eval()
        self.model.scan_backend = self.scan_backend
        # Scans that loop over tokens in Python make no graph: they wait for the GPU, or launch far too much.
        has_graphs = self.device.type == "cuda" and self.scan_backend in ("triton", "mamba")
        self._record: Record | None = record_cuda_graph if has_graphs else None
        self._idle: GraphedStep | None = None

    @property
    def runs_on(self) -> str:
        """Device, precision and scan backend, in words."""
        backend = scan.in_words(self.scan_backend, self.device, self.model.config.d_state, self.model.rank)
        return f"{in_words(self.device, self.dtype)}, scan {backend}"

    def check_whole(self, name: str = "") -> None:
        """Raise InputError unless the network can draw what moves as one; `name` is what it is called."""
        if not isinstance(self.model, MotionVMRNN):
            raise InputError(
                f"{name or self.model.source} cannot draw what moves as one",
                "leave --whole out, or use --weights vmrnn-d-motion",
            )

    def stream(
        self, context: Sequence[Frame], frames: int, timing: Timing | None = None, *,
        shown: Sequence[Frame] | None = None, extra: Sequence[str] = (), whole: bool = False,
    ) -> Iterator[Output]:  # fmt: skip
        """Yield `frames` frames that follow `context`, one at a time; `timing` gets the model's share.

        A network that carries the picture on also draws each from `shown`: the same frames larger, or in colour; and
        with `whole` so that what moves is one (`vmrnn_cli.whole`). Of `extra` it draws "motion" and "weights"; others
        have neither.

        Raises:
            InputError: `whole` of a network that does not carry the picture on.
            NotFiniteError: the forecast is not.
        """
        if whole:
            self.check_whole()
        timing = timing or Timing()
        if isinstance(self.model, MotionVMRNN):
            yield from self._carry_on(self.model, context, frames, timing, shown, extra, whole)
            return
        inputs = [self.input(frame) for frame in context]
        with self._step_for(self.model, inputs[0], timing) as model:
            steps = rollout(model, inputs, frames)
            for step in range(len(context) - 1 + frames):
                with self.computing(timing):
                    frame = next(steps)[0].float().cpu().numpy()
                timing.steps += 1
                if step >= len(context) - 1:
                    yield Output(finite(frame, self.model))

    def _carry_on(
        self, model: MotionVMRNN, context: Sequence[Frame], frames: int, timing: Timing,
        shown: Sequence[Frame] | None, extra: Sequence[str], whole: bool,
    ) -> Iterator[Output]:  # fmt: skip
        """The same by a network that decides how the picture goes on."""
        small = at_least_two(torch.stack([self.input(frame) for frame in context]))
        large = None if shown is None else at_least_two(torch.stack([self.input(frame) for frame in shown]))
        decided = _decided(model, small, frames, timing)
        artists: list[Callable[[Outlook], torch.Tensor]] = []
        for _ in range(frames):
            with self.computing(timing):
                continuation, outlook = next(decided)
                if not artists:
                    artists.append(self._artist(continuation, small))
                    if whole or large is not None:
                        artists.append(self._artist(continuation, small if large is None else large, whole))
                frame, *picture = (draw(outlook).clamp(0, 1)[0].cpu().numpy() for draw in artists)
            extras = {panel: _extra(panel, outlook) for panel in extra if panel in _EXTRA}
            yield Output(finite(frame, self.model), picture[0] if picture else None, extras)

    def _artist(
        self, continuation: Continuation, frames: torch.Tensor, whole: bool = False
    ) -> Callable[[Outlook], torch.Tensor]:
        """What draws the next outlook, the first one at first, from the given frames (T, B, C, H, W)."""
        if not whole:
            anchors = continuation.anchors(list(frames))
            return lambda outlook: outlook.draw(anchors)
        with torch.autocast(self.device.type, enabled=False):  # motion is measured in float32
            things = Things(continuation.known, list(frames))

        def draw(outlook: Outlook) -> torch.Tensor:
            with torch.autocast(self.device.type, enabled=False):
                return things.draw(outlook)

        return draw

    def input(self, frame: Frame) -> torch.Tensor:
        """(C, H, W) -> (1, C, H, W) on the device; what exceeds 1 is cut off."""
        return torch.from_numpy(np.minimum(frame, 1))[None].to(self.device)

    @contextmanager
    def computing(self, timing: Timing | None = None) -> Iterator[None]:
        """A block in which the network computes; `timing` gets its share."""
        begin = time.perf_counter()
        with torch.inference_mode(), autocast(self.device, self.dtype):
            yield
        if timing is not None:
            timing.predict_s += time.perf_counter() - begin

    @contextmanager
    def _step_for(self, model: VMRNN, frame: torch.Tensor, timing: Timing) -> Iterator[VMRNN | GraphedStep]:
        """The model; on a GPU its step as a CUDA graph of this rollout's own, recorded anew where none is idle."""
        if self._record is None:
            yield model
            return
        recorded, self._idle = self._idle, None
        if recorded is None or not recorded.fits(frame):
            begin = time.perf_counter()
            recorded = GraphedStep(model, frame, self.dtype, self._record)
            timing.load_s += time.perf_counter() - begin  # kernels are compiled and tuned
        try:
            yield recorded
        finally:
            self._idle = recorded

    def batch(self, context: NDArray[np.float32], frames: int, *, whole: bool = False) -> NDArray[np.float32]:
        """Forecast several clips at once: (B, T, C, H, W) in [0, 1] -> (B, frames, C, H, W); `whole` as of `stream`.

        Raises:
            InputError: `whole` of a network that does not carry the picture on.
            NotFiniteError: the forecast of some clip is not.
        """
        if whole:
            self.check_whole()
        inputs = torch.from_numpy(np.minimum(context, 1)).to(self.device).transpose(0, 1)
        if isinstance(self.model, MotionVMRNN):
            return self._batch_carried_on(self.model, at_least_two(inputs), frames, whole)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            steps = itertools.islice(rollout(self.model, inputs, frames), len(inputs) - 1, None)
            return finite(torch.stack(list(steps), dim=1).float().cpu().numpy(), self.model)

    def _batch_carried_on(
        self, model: MotionVMRNN, inputs: torch.Tensor, frames: int, whole: bool
    ) -> NDArray[np.float32]:
        """(T, B, C, H, W) -> (B, frames, C, H, W)."""
        draw, drawn = None, []
        with torch.inference_mode(), autocast(self.device, self.dtype):
            for continuation, outlook in _decided(model, inputs, frames, Timing()):
                draw = draw or self._artist(continuation, inputs, whole)
                drawn.append(draw(outlook).clamp(0, 1))
            return finite(torch.stack(drawn, dim=1).cpu().numpy(), self.model)


def _decided(
    model: MotionVMRNN, given: torch.Tensor, ahead: int, timing: Timing
) -> Iterator[tuple[Continuation, Outlook]]:
    """What a network decides on each frame ahead, without the rehearsal; given (T, B, C, H, W)."""
    for part in model(given, blocks(ahead)):
        timing.steps += len(part.outlook.light)
        if part.given == len(given):
            yield from ((part.continuation, Outlook(*fields)) for fields in zip(*part.outlook, strict=True))


def blocks(frames: int) -> Iterator[int]:
    """How many frames ahead to decide on together, until there are `frames`."""
    return (min(_BLOCK, frames - done) for done in range(0, frames, _BLOCK))


class Output(NamedTuple):
    """One frame that a network predicts.

    frame : (C, H, W) float32 in [0, 1], the network's own picture, on which it is scored
    picture : the same larger or in colour, where it was asked for and can be had
    extra : pictures of what moves how, and of which hypothesis has which weight, (3, ., .) float32 in [0, 1], by name
    """

    frame: Frame
    picture: Frame | None = None
    extra: Mapping[str, Frame] = {}


def _extra(panel: str, outlook: Outlook) -> Frame:
    """The picture of a panel of `_EXTRA`."""
    from . import render  # forecasts of training are not drawn

    if panel == "motion":
        return render.motion_colours(outlook.displacement()[0].cpu().numpy())
    return render.weight_colours(outlook.weights()[0].cpu().numpy())


def finite(frames: NDArray[np.float32], model: Network) -> NDArray[np.float32]:
    """The frames; raises NotFiniteError unless all of their values are finite."""
    if not np.isfinite(frames).all():
        raise NotFiniteError(f"the output of {model.source} is not finite", "check the weights, or use --dtype float32")
    return frames


@contextmanager
def open_forecast(
    predictor: Predictor, source: ClipLike, *, frames: int | None = None, context: int | None = None,
    start: float = 0.0, from_end: bool = False, fps: float | None = None, size: Size = None, gray: bool = False,
    panels: Sequence[str] = (), fit: Fit | None = None, title: str = "", load_s: float = 0.0, force: bool = False,
    reading: Progress | None = None, match: bool | None = None, whole: bool | None = None,
) -> Iterator[Forecast]:  # fmt: skip
    """Read a clip's context and yield the forecast in the making; the clip is open as long as the block lasts.

    Arguments and errors are those of `predict`. `reading` is called with (frames done, about how many in all) where a
    clip is read to its end. `panels` are what pictures will show, and `fit` says which size (H, W)
    of a frame (C, H, W) they have room for.
    """
    config = predictor.model.config
    frames = _positive(frames, config.horizon, "--frames")
    context = _positive(context, config.context, "--context")
    timing, score, rivals = Timing(load_s=load_s), Score(), {name: Score() for name in RIVALS}
    begin = time.perf_counter()
    source = video.Source.of(source)
    as_it_is = source.kind in ("array", "grid")
    usual = None if as_it_is else min(config.image_size)
    carries_on = isinstance(predictor.model, MotionVMRNN)
    if unknown := [panel for panel in panels if panel in _EXTRA and not carries_on]:
        raise InputError(f"{title or 'this network'} has nothing to show as {unknown[0]}", "leave that panel out")
    if whole:
        predictor.check_whole(title)
    channels = None if carries_on and as_it_is else config.image_channels
    wanted: dict[str, Any] = {"fps": fps, "start": start, "divided_by": config.divided_by}
    wanted["learned"] = weights.learned(config, title, source.units, source.has_range)
    wanted |= {"last": context, "progress": reading} if from_end else {}
    with ExitStack() as opened:
        clip = opened.enter_context(
            source.open(channels=channels, size=usual if size is None else parse_size(size), **wanted)
        )
        shown = None
        if carries_on and not as_it_is and not (gray and size is not None):
            shown = opened.enter_context(_open_shown(source, 1 if gray else 3, size, fit, wanted))
        whole = carries_on and not as_it_is if whole is None else whole
        timing.decode_s = time.perf_counter() - begin
        height, width = clip.frame_shape[1:]
        if min(height, width) < (2 if carries_on else config.patch_size):
            raise InputError(
                f"{clip.name}: frames of {width}x{height} are smaller than a patch of the model",
                "give a larger grid" if clip.grid else "give a larger --size",
            )
        ahead = _timed(clip, shown, timing)
        if from_end and not force and (flaws := clip.flaws()):
            raise InputError(
                f"{clip.name}: {flaws[0]}, so what it ends with is not its end",
                "get it whole, or pass --force to predict from what there is",
            )
        given = list(itertools.islice(ahead, context))
        if len(given) < context:
            flaw = "".join(f" ({flaw})" for flaw in clip.flaws()[:1])
            raise InputError(
                f"{clip.name} has only {len(given)} frame(s) to start from{flaw}, the context takes {context}",
                "give a longer series, an earlier --start or a smaller --context"
                if clip.grid
                else "give a longer clip, an earlier --start, a smaller --context or a larger --fps",
            )
        if all(np.isnan(read.frame).all() for read in given):
            raise InputError(f"{clip.name} holds NaN or other missing values only", "give a clip that has some others")
        notes = [f"{clip.name}: {note}" if clip.kind == "video" else note for note in clip.notes]
        apart = False
        if clip.grid is not None:
            clip.grid.take_given([read.frame for read in given])
            notes += clip.grid.notes()
            apart = _are_apart(clip, config)
        matched = are_matched(source.units, match)
        if matched:
            notes.append(
                f"{clip.name}: forecasts have the values of the last frame again; --no-match leaves them smooth"
            )
        truth = list(itertools.islice(ahead, 1))
        seen, pictures = [read.filled for read in given], [read.picture for read in given]
        missing = Missing(sum(read.missing for read in given), sum(read.frame.size for read in given))

        def steps() -> Iterator[Step]:
            forecasts = _rivals(np.stack(seen), frames, apart) if truth else {}
            known = itertools.chain(truth, ahead, itertools.repeat(None))
            if apart:
                made = _each_apart(predictor, seen, frames, timing, whole)
            else:
                large = pictures if shown else None
                made = predictor.stream(seen, frames, timing, shown=large, extra=panels, whole=whole)
            for output, true in zip(made, known, strict=False):
                output = _matched(output, seen[-1], pictures[-1]) if matched else output
                if true is not None:
                    missing.add(true.missing, true.frame.size)
                    score.add(output.frame, true.frame)
                    for name, rival in forecasts.items():
                        rivals[name].add(next(rival), true.frame)
                picture = output.frame if output.picture is None else output.picture
                yield Step(picture, None if true is None else true.picture, output.extra)

        yield Forecast(
            np.stack(pictures), frames, steps(), bool(truth), clip.fps, clip.has_clock, clip.divided_by, title,
            clip.name, scored_on=clip.frame_shape, whole=whole, score=score, rivals=rivals, timing=timing,
            offset=clip.offset, notes=notes, missing=missing, grid=clip.grid,
        )  # fmt: skip
        notes += [f"{clip.name}: {flaw}" for flaw in clip.flaws()]  # of what has been read by now
        notes += [missing_note(clip.name, missing.count, missing.total)] if missing.count else []


def _matched(output: Output, last: Frame, shown: Frame) -> Output:
    """The same with the values of the last given frame, and of that as it is shown."""
    picture = None if output.picture is None else match_values(output.picture, shown)
    return output._replace(frame=match_values(output.frame, last), picture=picture)


def _are_apart(clip: video.Clip, config: NetworkConfig) -> bool:
    """Whether a grid's slices (levels, members) are forecast one by one: unless the network takes just so many at once.

    Raises InputError if it can take neither all nor one.
    """
    C = clip.frame_shape[0]
    if config.image_channels not in (1, C):
        raise InputError(
            f"{clip.name} has {C} value(s) at each place, and the weights take {config.image_channels}",
            "choose other weights with --weights, or slices with --select",
        )
    return C > 1 and config.image_channels == 1


def _each_apart(
    predictor: Predictor, seen: Sequence[Frame], frames: int, timing: Timing, whole: bool
) -> Iterator[Output]:
    """The forecast of each channel by itself, together again."""
    each = [[frame[[c]] for frame in seen] for c in range(len(seen[0]))]
    streams = [predictor.stream(channel, frames, timing, whole=whole) for channel in each]
    for outputs in zip(*streams, strict=True):
        pictures = [output.picture for output in outputs if output.picture is not None]
        yield Output(
            np.concatenate([output.frame for output in outputs]), np.concatenate(pictures) if pictures else None
        )


def _rivals(seen: NDArray[np.float32], frames: int, apart: bool) -> dict[str, Iterator[Frame]]:
    """What the rivals forecast of (T, C, H, W), frame by frame; of each channel by itself where these are apart."""
    if apart:
        each = np.swapaxes(seen, 0, 1)[:, :, None]  # (C, T, 1, H, W)
        return {name: (frame[:, 0] for frame in rival(each, frames)) for name, rival in RIVALS.items()}
    return {name: (frame[0] for frame in rival(seen[None], frames)) for name, rival in RIVALS.items()}


def _open_shown(
    source: video.Source, channels: int, size: Size, fit: Fit | None, wanted: dict[str, Any]
) -> video.Clip:  # fmt: skip
    """The clip as pictures show it: in its own size or the one asked for, and no larger than they have room for."""
    clip = source.open(channels=channels, size=None if size is None else parse_size(size), **wanted)
    room = fit(clip.frame_shape) if fit else None
    if room is None or room == clip.frame_shape[1:]:
        return clip
    clip.close()
    return source.open(channels=channels, size=room, **wanted)


class _Read(NamedTuple):
    """A frame as it is read, with NaN for missing values; the same without; and what is shown of it."""

    frame: Frame
    filled: Frame
    picture: Frame

    @property
    def missing(self) -> int:
        return int(np.isnan(self.frame).sum())


def _timed(clip: video.Clip, shown: video.Clip | None, timing: Timing) -> Iterator[_Read]:
    """Frames for the network and for people, in step; one and the same where nothing else is shown."""
    filled = picture = None
    while True:
        begin = time.perf_counter()
        frame = next(clip, None)
        large = frame if shown is None else next(shown, None)
        timing.decode_s += time.perf_counter() - begin
        if frame is None or large is None:
            return
        (filled,) = fill(frame[None], filled)
        (picture,) = (filled,) if shown is None else fill(large[None], picture)
        yield _Read(frame, filled, picture)


@overload
def predict(source: str | Path | NDArray[np.generic] | video.Source, **options: Any) -> Forecast: ...
@overload
def predict(source: Any, **options: Any) -> Any: ...
def predict(  # type: ignore[misc]  # whose options are named here alone
    source: ClipLike,
    *,
    frames: int | None = None,
    weights: str | Path | Network | None = None,
    context: int | None = None,
    start: float = 0.0,
    from_end: bool = False,
    force: bool = False,
    fps: float | None = None,
    size: Size = None,
    gray: bool = False,
    layout: str = "",
    range: tuple[float, float] | None = None,
    missing: float | None = None,
    variable: str = "",
    select: Mapping[str, object] | None = None,
    gaps: str = "refuse",
    transform: str = "",
    match: bool | None = None,
    whole: bool | None = None,
    device: str = "auto",
    dtype: str = "auto",
    scan: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Any:
    """Predict how a clip goes on.

    Args:
        source: a video, GIF, folder of numbered images, `.npy`, `.npz` or array; `vmrnn_cli.readings.TABLE` says what
            its numbers are taken for. Masked values and NaN are missing. Or a grid: NetCDF, HDF5 or Zarr, a folder or
            a pattern of such files, or a DataArray of xarray with time and two dimensions in space.
        frames: how many frames to predict; default what the weights were trained for.
        weights: a model, or what `vmrnn_cli.weights.load` takes; default the bundled ones.
        context: how many frames to start from; default what the weights were trained for.
        start: seconds to skip.
        from_end: start from the last frames of the clip and predict past its end.
        force: do so even where the clip is damaged or breaks off.
        fps: resample videos to this rate.
        size: "native", "S" for a shorter side of S, "WxH", or a number or (H, W). By default the network sees pictures
            with the shorter side that it was trained for, and arrays as they are; a network that carries the picture on
            draws it in the clip's own size and colour all the same.
        gray: draw it gray all the same.
        layout: which axis of an array is what, as in "THWC".
        range: which values of an array or of images are black and white; predictions stay in [0, 1].
        missing: the value that stands for none.
        variable: of a file of grids with several.
        select: of a grid, a value of each dimension besides time and space: {"level": 850}; others are looped over.
        gaps: of a grid, "refuse" or "interpolate" where scans are missing among the given ones.
        transform: of a grid with skewed values, "none", "log", "sqrt" or "dB"; default what is usual for its units.
        match: whether the forecast gets the values of the last given frame again, where it is likely to have them
            (`vmrnn_cli.matching`); default for grids of rain.
        whole: whether the forecast shows what moves as one, in one place, and not as the mean that is scored and fades
            (`vmrnn_cli.whole`; what the given frames do not bear out fades all the same); default of videos and images.
        device: auto, cpu, cuda or mps.
        dtype: auto, float32 or bfloat16, of the matrix products.
        scan: auto or a scan backend, see `vmrnn_cli.scan.BACKENDS`.
        threads: CPU threads.
        progress: called with (frames done, frames in all) after each predicted frame.

    Returns:
        A `Forecast`; of a DataArray the same again: in its units, with its coordinates and attributes, and valid times.

    Raises:
        InputError: unusable input, options or weights; the message says which and what to do.
        VMRNNError: the machine failed.
    """
    in_memory = _is_dataarray(source)
    if not in_memory and not isinstance(source, (str, Path, np.ndarray, video.Source)):
        what = (
            "give one of its variables"
            if type(source).__name__ == "Dataset"
            else "give a path, or a NumPy array of frames"
        )
        raise InputError(f"a {type(source).__name__} is no source", what)
    set_threads(threads)
    begin = time.perf_counter()
    chosen = tuple((str(name), str(value)) for name, value in (select or {}).items())
    declared = Declared(layout, range, missing, variable, chosen, gaps if gaps != "refuse" else "", transform)
    source = video.Source.of(source, declared)
    model, name = load_weights(weights, source, start)
    predictor = Predictor(model, device=device, dtype=dtype, scan_backend=scan)
    with open_forecast(
        predictor, source, frames=frames, context=context, start=start, from_end=from_end, force=force, fps=fps,
        size=size, gray=gray, title=name, load_s=time.perf_counter() - begin, match=match, whole=whole,
    ) as forecast:  # fmt: skip
        finished = forecast.finish(progress)
        if not in_memory or finished.grid is None:
            return finished
        from . import __version__
        from .grids.record import dataarray_of

        return dataarray_of(finished.grid, finished.grid.values(finished.prediction), name, __version__)


def _is_dataarray(source: object) -> bool:
    """Whether it is one of xarray's, which is not imported for it."""
    return type(source).__name__ == "DataArray" and type(source).__module__.partition(".")[0] == "xarray"


def fitting_weights(source: ClipLike, start: float = 0.0) -> str:
    """The bundled weights that fit a clip, by its first frame after `start` seconds."""
    source = video.Source.of(source)
    return weights.default_name(source.first_frame(start), source.units)


def load_weights(
    given: str | Path | Network | None, source: ClipLike | None = None, start: float = 0.0
) -> tuple[Network, str]:
    """The model to use and the name to show for it; without a given one, the bundled weights that fit `source`."""
    if isinstance(given, (VMRNN, MotionVMRNN)):
        return given, "vmrnn"
    name = given or (weights.default_name() if source is None else fitting_weights(source, start))
    if isinstance(source, video.Source):
        weights.check_units(str(name), source.units, source.has_range)
    path = Path(name)
    shown = str(name)
    if path.exists():
        shown = given_name(path) if path.is_dir() else path.stem
        if path.is_dir() and shown == "best":  # of a training run, as all of them call it
            shown = f"{given_name(path.absolute().parent)}/best"
    return weights.load(name), shown


def assumed(name: str | Path, model: Network) -> str | None:
    """What was assumed of weights that do not say what frames they were trained for, in words; None if they do."""
    path = Path(name)
    if model.place:
        return f"{name} holds several networks: the averaged one is taken, {model.place}"
    if weights.is_bundled(str(name)) or not path.exists() or pretrained.stated_config(path):
        return None
    height, width = model.config.image_size
    frames = f"{width}x{height} frames, {model.config.context} in, {model.config.horizon} out"
    return (
        f"{name} does not say what it was trained for: taken for {frames} (--size, --context and --frames go over it)"
    )


def _positive(given: int | None, default: int, option: str) -> int:
    if given is not None and not (isinstance(given, (int, np.integer)) and 1 <= given <= _MOST_FRAMES):
        raise InputError(f"{option} {given} makes no forecast", f"give a number from 1 to {_MOST_FRAMES}")
    return given or default
