"""From a clip to a forecast: read the context, roll the model out, compare with what really came.

Notation: T time, C channels, H x W pixels; frames are float32 arrays (C, H, W) in [0, 1]. Everything streams: apart
from the context, one frame at a time is in memory, however long the clip or the forecast. Values that exceed the
divisor of the weights lie above 1: the network sees them cut off there, scores and files as they are.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import pretrained, scan, video, weights
from .devices import autocast, describe, pick_device, pick_dtype, set_threads
from .errors import InputError, NotFiniteError
from .forecast import Forecast, Progress, Step, Timing
from .frames import Frame, parse_size
from .gpu import GraphedStep, Record, record_cuda_graph
from .metrics import Score
from .model import VMRNN, rollout

ClipLike = str | Path | NDArray[np.generic] | video.Source
Size = int | tuple[int, int] | str | None

_MOST_FRAMES = 2**31 - 1


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
        inputs = [torch.from_numpy(np.minimum(frame, 1))[None].to(self.device) for frame in context]
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
        inputs = torch.from_numpy(np.minimum(context, 1)).to(self.device).transpose(0, 1)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            steps = itertools.islice(rollout(self.model, inputs, frames), len(inputs) - 1, None)
            return _finite(torch.stack(list(steps), dim=1).float().cpu().numpy())


def _finite(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(frames).all():
        raise NotFiniteError("the model's output is not finite", "check the weights, or use --dtype float32")
    return frames


@contextmanager
def open_forecast(
    predictor: Predictor, source: ClipLike, *, frames: int | None = None, context: int | None = None,
    start: float = 0.0, from_end: bool = False, fps: float | None = None, size: Size = None, title: str = "",
    load_s: float = 0.0,
) -> Iterator[Forecast]:  # fmt: skip
    """Read a clip's context and yield the forecast in the making; the clip is open as long as the block lasts.

    Arguments and errors are those of `predict`.
    """
    config = predictor.model.config
    frames = _positive(frames, config.horizon, "--frames")
    context = _positive(context, config.context, "--context")
    timing, score, rivals = Timing(load_s=load_s), Score(), {"baseline_last_frame": Score()}
    begin = time.perf_counter()
    source = video.Source.of(source)
    usual = None if source.kind == "array" else min(config.image_size)
    with source.open(
        channels=config.image_channels, size=usual if size is None else parse_size(size), fps=fps, start=start,
        divided_by=config.divided_by,
    ) as clip:  # fmt: skip
        timing.decode_s = time.perf_counter() - begin
        height, width = clip.frame_shape[1:]
        if min(height, width) < config.patch_size:
            raise InputError(
                f"{clip.name}: frames of {width}x{height} are smaller than a patch of the model", "give a larger --size"
            )
        ahead = _timed(clip, timing)
        given = list(deque(ahead, maxlen=context) if from_end else itertools.islice(ahead, context))
        if len(given) < context:
            raise InputError(
                f"{clip.name} has only {len(given)} frame(s) to start from, the context takes {context}",
                "give a longer clip, an earlier --start, a smaller --context or a larger --fps",
            )
        truth = list(itertools.islice(ahead, 1))

        def steps() -> Iterator[Step]:
            repeated = {"baseline_last_frame": itertools.repeat(given[-1])}
            known = itertools.chain(truth, ahead, itertools.repeat(None))
            for prediction, true in zip(predictor.stream(given, frames, timing), known, strict=False):
                if true is not None:
                    score.add(prediction, true)
                    for name, rival in repeated.items():
                        rivals[name].add(next(rival), true)
                yield Step(prediction, true)

        yield Forecast(
            np.stack(given), frames, steps(), bool(truth), clip.fps, clip.has_clock, clip.divided_by, title,
            score=score, rivals=rivals, timing=timing,
        )  # fmt: skip


def _timed(clip: video.Clip, timing: Timing) -> Iterator[Frame]:
    while True:
        begin = time.perf_counter()
        frame = next(clip, None)
        timing.decode_s += time.perf_counter() - begin
        if frame is None:
            return
        yield frame


def predict(
    source: ClipLike,
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
        size: "native", "S" for a shorter side of S, "WxH", or a number or (H, W); default what the weights were trained
            for, as the shorter side, and native for arrays.
        device: auto, cpu, cuda or mps.
        dtype: auto, float32 or bfloat16, of the matrix products.
        scan: auto or a scan backend, see `vmrnn_cli.scan.BACKENDS`.
        threads: CPU threads.
        progress: called with (frames done, frames in all) after each predicted frame.

    Raises:
        InputError: unusable input, options or weights; the message says which and what to do.
        VMRNNError: the machine failed.
    """
    if not isinstance(source, (str, Path, np.ndarray, video.Source)):
        raise InputError(f"a {type(source).__name__} is no source", "give a path, or a NumPy array of frames")
    set_threads(threads)
    begin = time.perf_counter()
    source = video.Source.of(source)
    model, name = load_weights(weights, source, start)
    predictor = Predictor(model, device=device, dtype=dtype, scan_backend=scan)
    with open_forecast(
        predictor, source, frames=frames, context=context, start=start, from_end=from_end, fps=fps, size=size,
        title=name, load_s=time.perf_counter() - begin,
    ) as forecast:  # fmt: skip
        return forecast.finish(progress)


def fitting_weights(source: ClipLike, start: float = 0.0) -> str:
    """The bundled weights that fit a clip, by its first frame after `start` seconds."""
    return weights.default_name(video.Source.of(source).first_frame(start))


def load_weights(
    given: str | Path | VMRNN | None, source: ClipLike | None = None, start: float = 0.0
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
    if weights.is_bundled(str(name)) or not path.exists() or pretrained.has_config(path):
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
