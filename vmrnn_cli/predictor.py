"""From a clip to a forecast: read the context, roll the model out, compare with what really came.

Notation: T time, C channels, H x W pixels; frames are float32 arrays (C, H, W) in [0, 1]. Everything streams: apart
from the context, one frame at a time is in memory, however long the clip or the forecast.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from . import checkpoints, interrupts, outputs, scan, video, weights
from .devices import autocast, describe, pick_device, pick_dtype, set_threads
from .errors import InputError, NotFiniteError
from .gpu import GraphedStep, Record, record_cuda_graph
from .metrics import Score
from .model import VMRNN, VMRNNConfig, rollout

if TYPE_CHECKING:
    from . import render

Frame = NDArray[np.float32]
Source = str | Path | NDArray[np.generic]
Size = int | tuple[int, int] | str | None
Progress = Callable[[int, int], None]

_MOST_FRAMES = 2**31 - 1


@dataclass
class Timing:
    """Seconds spent loading weights, decoding, in the model, and writing; and how many cell steps the model ran."""

    load_s: float = 0.0
    decode_s: float = 0.0
    predict_s: float = 0.0
    write_s: float = 0.0
    steps: int = 0


class Predictor:
    """A model on a device, with frames in and out as arrays."""

    def __init__(self, model: VMRNN, *, device: str = "auto", dtype: str = "auto", scan_backend: str = "auto") -> None:
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self.scan_backend = scan.pick_backend(scan_backend, self.device, model.config.d_state, model.rank)
        self.model = model.to(self.device).eval()
        self.model.scan_backend = self.scan_backend
        # Scans that loop over tokens in Python make no graph: they wait for the GPU, or launch far too much.
        has_graphs = self.device.type == "cuda" and self.scan_backend in ("triton", "mamba")
        self._record: Record | None = record_cuda_graph if has_graphs else None
        self._idle: GraphedStep | None = None

    def describe(self) -> str:
        """Device, precision and scan backend, in words."""
        backend = scan.describe(self.scan_backend, self.device, self.model.config.d_state, self.model.rank)
        return f"{describe(self.device, self.dtype)}, scan {backend}"

    def stream(self, context: Sequence[Frame], frames: int, timing: Timing | None = None) -> Iterator[Frame]:
        """Yield `frames` frames that follow `context`, one at a time; `timing` gets the model's share."""
        timing = timing or Timing()
        inputs = [torch.from_numpy(np.ascontiguousarray(frame))[None].to(self.device) for frame in context]
        with self._step_for(inputs[0], timing) as model:
            steps = rollout(model, inputs, frames)
            for step in range(len(context) - 1 + frames):
                begin = time.perf_counter()
                with torch.inference_mode(), autocast(self.device, self.dtype):
                    frame = next(steps)[0].float().cpu().numpy()
                timing.predict_s += time.perf_counter() - begin
                timing.steps += 1
                if step >= len(context) - 1:
                    yield _finite(frame)

    @contextmanager
    def _step_for(self, frame: torch.Tensor, timing: Timing) -> Iterator[VMRNN | GraphedStep]:
        """The model; on a GPU its step as a CUDA graph of this rollout's own, recorded anew where none is idle."""
        if self._record is None:
            yield self.model
            return
        recorded, self._idle = self._idle, None
        if recorded is None or not recorded.fits(frame):
            begin = time.perf_counter()
            recorded = GraphedStep(self.model, frame, self.dtype, self._record)
            timing.load_s += time.perf_counter() - begin  # kernels are compiled and tuned
        try:
            yield recorded
        finally:
            self._idle = recorded

    def batch(self, context: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        """Forecast several clips at once: (B, T, C, H, W) in [0, 1] -> (B, frames, C, H, W).

        Raises:
            NotFiniteError: the forecast of some clip is not.
        """
        inputs = torch.from_numpy(context).to(self.device).transpose(0, 1)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            steps = itertools.islice(rollout(self.model, inputs, frames), len(inputs) - 1, None)
            return _finite(torch.stack(list(steps), dim=1).float().cpu().numpy())


def _finite(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(frames).all():
        raise NotFiniteError("the model's output is not finite", "check the weights, or use --dtype float32")
    return frames


class Step(NamedTuple):
    """One predicted frame, (C, H, W) float32 in [0, 1], and the true one where the clip goes on that far."""

    prediction: Frame
    truth: Frame | None


class Forecasting:
    """A forecast in the making: iterate over it once for its `Step`s; scores and timing grow meanwhile.

    Use it as a context manager, which closes the clip.

    context : the given frames, (C, H, W) float32 in [0, 1] each
    frames : how many are predicted
    fps : frames per second
    has_clock : whether that is the clip's own, or asked for; else it is a rate to play it at
    divided_by : what the values of an array were divided by to lie in [0, 1]; 1 where they did
    has_truth : whether the clip goes on after the context
    score, baseline : of the prediction and of repeating the last given frame, over the frames with a truth
    """

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        *,
        frames: int | None = None,
        context: int | None = None,
        start: float = 0.0,
        from_end: bool = False,
        fps: float | None = None,
        size: Size = None,
        load_s: float = 0.0,
    ) -> None:
        """Open the clip and read the context. Arguments and errors are those of `predict`."""
        config = predictor.model.config
        self.frames = _positive(frames, config.horizon, "--frames")
        context = _positive(context, config.context, "--context")
        self.timing = Timing(load_s=load_s)
        self.score, self.baseline = Score(), Score()
        self._predictor = predictor
        begin = time.perf_counter()
        self._clip = video.open_clip(
            source, channels=config.image_channels, size=clip_size(source, config, size), fps=fps, start=start,
            divided_by=config.divided_by,
        )  # fmt: skip
        self.timing.decode_s = time.perf_counter() - begin
        self.fps, self.has_clock, self.divided_by = self._clip.fps, self._clip.has_clock, self._clip.divided_by
        try:
            self._read_context(context, from_end)
        except BaseException:
            self._clip.close()
            raise

    def _read_context(self, context: int, from_end: bool) -> None:
        height, width = self._clip.frame_shape[1:]
        if min(height, width) < self._predictor.model.config.patch_size:
            raise InputError(
                f"{self._clip.name}: frames of {width}x{height} are smaller than a patch of the model",
                "give a larger --size",
            )
        self._frames = self._timed(self._clip)
        given = deque(self._frames, maxlen=context) if from_end else itertools.islice(self._frames, context)
        self.context = list(given)
        if len(self.context) < context:
            raise InputError(
                f"{self._clip.name} has only {len(self.context)} frame(s) to start from, the context takes {context}",
                "give a longer clip, an earlier --start, a smaller --context or a larger --fps",
            )
        self._first_truth = next(self._frames, None)
        self.has_truth = self._first_truth is not None

    def __enter__(self) -> Forecasting:
        return self

    def __exit__(self, *_: object) -> None:
        self._clip.close()

    def __iter__(self) -> Iterator[Step]:
        truth = self._first_truth
        for number, prediction in enumerate(self._predictor.stream(self.context, self.frames, self.timing)):
            if number and truth is not None:
                truth = next(self._frames, None)
            if truth is not None:
                self.score.add(prediction, truth)
                self.baseline.add(self.context[-1], truth)
            yield Step(prediction, truth)

    def _timed(self, clip: video.Clip) -> Iterator[Frame]:
        while True:
            begin = time.perf_counter()
            frame = next(clip, None)
            self.timing.decode_s += time.perf_counter() - begin
            if frame is None:
                return
            yield frame

    def write(
        self, path: Path, *, panels: Sequence[str] | None = None, title: str = "", overwrite: bool = False,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """Run the forecast and write it: .gif, .mp4, .webm, .png (film strip) or .npz, by the suffix.

        Raises:
            InputError: unknown suffix or panel, target not writable, or there without `overwrite`.
            VMRNNError: the disk is full, or the encoder failed.
        """
        write_forecast(
            path, self.context, self, fps=self.fps, has_clock=self.has_clock, frames=self.frames,
            has_truth=self.has_truth, panels=panels, title=title, overwrite=overwrite, progress=progress,
            timing=self.timing, divided_by=self.divided_by,
        )  # fmt: skip


@dataclass(frozen=True)
class Forecast:
    """A finished forecast.

    context : (T, C, H, W) float32 in [0, 1]
    prediction : (T, C, H, W) float32 in [0, 1]
    truth : (T, C, H, W) float32 in [0, 1], as far as the clip goes; None where it ends with the context
    fps : frames per second
    has_clock : whether that is the clip's own, or asked for; else it is a rate to play it at
    metrics, baseline_last_frame : {mse, ssim, psnr}, None without truth
    divided_by : what the values of an array were divided by to lie in [0, 1]; an .npz is written in its own units
    """

    context: Frame
    prediction: Frame
    truth: Frame | None
    fps: float
    metrics: dict[str, float | None] | None
    baseline_last_frame: dict[str, float | None] | None
    timing: Timing = field(repr=False)
    title: str = ""
    has_clock: bool = True
    divided_by: float = 1.0

    def save(self, path: str | Path, *, panels: Sequence[str] | None = None, overwrite: bool = False) -> None:
        """Write the comparison: .gif, .mp4, .webm, .png (film strip) or .npz. Raises as `Forecasting.write`."""
        truth: Sequence[Frame | None] = [] if self.truth is None else list(self.truth)
        steps = map(Step, self.prediction, [*truth, *[None] * (len(self.prediction) - len(truth))])
        write_forecast(
            Path(path), list(self.context), steps, fps=self.fps, has_clock=self.has_clock,
            frames=len(self.prediction), has_truth=self.truth is not None, panels=panels, title=self.title,
            overwrite=overwrite, divided_by=self.divided_by,
        )  # fmt: skip


def predict(
    source: Source,
    *,
    frames: int | None = None,
    weights: str | Path | VMRNN | None = None,
    context: int | None = None,
    start: float = 0.0,
    from_end: bool = False,
    fps: float | None = None,
    size: Size = None,
    device: str = "auto",
    dtype: str = "auto",
    scan: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Forecast:
    """Predict how a clip goes on.

    Args:
        source: a video, GIF, folder of numbered images, `.npy`, `.npz` or array, (T, H, W) or (T, C, H, W), uint8 or
            float in [0, 1].
        frames: how many frames to predict; default what the weights were trained for.
        weights: a model, or what `vmrnn_cli.weights.load` takes; default the bundled ones.
        context: how many frames to start from; default what the weights were trained for.
        start: seconds to skip.
        from_end: start from the last frames of the clip and predict past its end.
        fps: resample videos to this rate.
        size: see `clip_size`.
        device: auto, cpu, cuda or mps.
        dtype: auto, float32 or bfloat16, of the matrix products.
        scan: auto or a scan backend, see `vmrnn_cli.scan.BACKENDS`.
        threads: CPU threads.
        progress: called with (frames done, frames in all) after each predicted frame.

    Raises:
        InputError: unusable input, options or weights; the message says which and what to do.
        VMRNNError: the machine failed.
    """
    if not isinstance(source, (str, Path, np.ndarray)):
        raise InputError(f"a {type(source).__name__} is no source", "give a path, or a NumPy array of frames")
    set_threads(threads)
    begin = time.perf_counter()
    model, name = load_weights(weights, source, start)
    predictor = Predictor(model, device=device, dtype=dtype, scan_backend=scan)
    load_s = time.perf_counter() - begin
    predictions, truths = [], []
    with Forecasting(
        predictor, source, frames=frames, context=context, start=start, from_end=from_end, fps=fps, size=size,
        load_s=load_s,
    ) as forecasting:  # fmt: skip
        for step in forecasting:
            predictions.append(step.prediction)
            if step.truth is not None:
                truths.append(step.truth)
            if progress is not None:
                progress(len(predictions), forecasting.frames)
    return Forecast(
        context=np.stack(forecasting.context),
        prediction=np.stack(predictions),
        truth=np.stack(truths) if truths else None,
        fps=forecasting.fps,
        metrics=forecasting.score.means(),
        baseline_last_frame=forecasting.baseline.means(),
        timing=forecasting.timing,
        title=name,
        has_clock=forecasting.has_clock,
        divided_by=forecasting.divided_by,
    )


def fitting_weights(source: Source, start: float = 0.0) -> str:
    """The bundled weights that fit a clip, by its first frame after `start` seconds."""
    return weights.default_name(video.first_frame(Path(source) if isinstance(source, str) else source, start))


def load_weights(
    given: str | Path | VMRNN | None, source: Source | None = None, start: float = 0.0
) -> tuple[VMRNN, str]:
    """The model to use and the name to show for it; without a given one, the bundled weights that fit `source`."""
    if isinstance(given, VMRNN):
        return given, "vmrnn"
    name = given or (weights.default_name() if source is None else fitting_weights(source, start))
    path = Path(name)
    shown = str(name)
    if path.exists():
        full = path.resolve()
        shown = full.name if full.is_dir() else full.stem
        if full.is_dir() and full.name == "best":  # of a training run, as all of them call it
            shown = f"{full.parent.name}/best"
    return weights.load(name), shown


def assumed(name: str | Path, model: VMRNN) -> str | None:
    """What was assumed of weights that do not say what frames they were trained for, in words; None if they do."""
    path = Path(name)
    if weights.is_bundled(str(name)) or not path.exists() or checkpoints.has_config(path):
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


def clip_size(source: Source, config: VMRNNConfig, size: Size) -> int | tuple[int, int] | None:
    """How to scale frames: None as they are, S for a shorter side of S, (H, W) exactly.

    `size` says it: "native", "S", "WxH", or a number or (H, W). By default arrays stay as they are, and pictures get
    the shorter side that the weights were trained for, keeping their shape.
    """
    if size is None:
        is_array = isinstance(source, np.ndarray) or Path(source).suffix.lower() in (".npy", ".npz")
        return None if is_array else min(config.image_size)
    if isinstance(size, (int, np.integer)):
        return int(size)
    if not isinstance(size, str):
        height, width = size
        return int(height), int(width)
    if size == "native":
        return None
    try:
        sides = [int(side) for side in size.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise InputError(f"'{size}' is no frame size", "write native, a number such as 128, or WIDTHxHEIGHT")
    return sides[0] if len(sides) == 1 else (sides[1], sides[0])


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def write_forecast(
    path: Path,
    context: Sequence[Frame],
    steps: Iterable[Step],
    *,
    fps: float,
    has_clock: bool,
    frames: int,
    has_truth: bool,
    panels: Sequence[str] | None = None,
    title: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
    timing: Timing | None = None,
    divided_by: float = 1.0,
) -> None:
    """Take the steps one by one and write them as `Forecasting.write` says."""
    with interrupts.deferred():
        from . import render  # which imports Pillow: a forecast that nobody looks at does without

    outputs.check_output_suffix(path)
    render.check_panels(panels)
    timing = timing or Timing()
    panels = panels or (render.WITH_TRUTH if has_truth else render.WITHOUT_TRUTH)
    if not has_truth and set(panels) <= {"truth", "error"}:
        raise InputError(f"{', '.join(panels)}: nothing is known after the context", "add prediction to --panels")

    def timed(work: Callable[..., object], *arguments: object) -> None:
        begin = time.perf_counter()
        work(*arguments)
        timing.write_s += time.perf_counter() - begin

    with ExitStack() as stack:
        sink = stack.enter_context(
            _open_sink(path, context, frames, fps, has_clock, panels, title, divided_by, overwrite)
        )
        for index, frame in enumerate(context):
            timed(sink.context_frame, index, frame)
        for index, step in enumerate(steps):
            timed(sink.predicted_frame, index, *step)
            if progress is not None:
                progress(index + 1, frames)
        timed(stack.close)  # encoding ends and the file appears


class _Sink(Protocol):
    """What takes frames in their order: the given ones, then the predicted ones."""

    def context_frame(self, index: int, frame: Frame) -> object: ...
    def predicted_frame(self, index: int, prediction: Frame, truth: Frame | None) -> object: ...


@contextmanager
def _open_sink(
    path: Path, context: Sequence[Frame], frames: int, fps: float, has_clock: bool, panels: Sequence[str], title: str,
    divided_by: float, overwrite: bool,
) -> Iterator[_Sink]:  # fmt: skip
    """Yield the sink for a suffix; the file is in place when the block ends without an exception."""
    shape = context[0].shape
    # One channel is gray, three are colours; anything else is gridded data, which may stay far below 1.
    peak = 1.0 if shape[0] in (1, 3) else max(float(np.max(context)), 1e-3)
    clock = fps if has_clock else None
    if path.suffix.lower() == ".npz":
        outputs.check_target(path, overwrite)
        arrays = _Arrays()
        yield arrays
        outputs.write_npz(
            path, context=arrays.context, prediction=arrays.prediction, truth=arrays.truth, fps=fps,
            divided_by=divided_by, overwrite=overwrite,
        )  # fmt: skip
        return
    from . import render

    if path.suffix.lower() == ".png":
        outputs.check_target(path, overwrite)
        strip = render.FilmStrip(
            shape, context=len(context), frames=frames, fps=clock, panels=panels, title=title, peak=peak
        )
        yield strip
        outputs.write_png(path, strip.canvas, overwrite)
    else:
        comparison = render.Comparison(
            shape, context=len(context), frames=frames, fps=clock, panels=panels, title=title, peak=peak
        )
        with video.write_video(path, fps=fps, overwrite=overwrite) as writer:
            yield _Film(comparison, writer)


class _Arrays:
    """Keeps everything, for .npz."""

    def __init__(self) -> None:
        self.context: list[Frame] = []
        self.prediction: list[Frame] = []
        self.truth: list[Frame] = []

    def context_frame(self, index: int, frame: Frame) -> None:
        self.context.append(frame)

    def predicted_frame(self, index: int, prediction: Frame, truth: Frame | None) -> None:
        self.prediction.append(prediction)
        if truth is not None:
            self.truth.append(truth)


class _Film(NamedTuple):
    """Draws each frame and encodes it at once."""

    comparison: render.Comparison
    writer: video.VideoWriter

    def context_frame(self, index: int, frame: Frame) -> None:
        self.writer.write(self.comparison.context_frame(index, frame))

    def predicted_frame(self, index: int, prediction: Frame, truth: Frame | None) -> None:
        self.writer.write(self.comparison.predicted_frame(index, prediction, truth))
