"""`vmrnn predict`: from clips to side-by-side forecasts."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupts
from ..errors import InputError, VMRNNError, explained, one_line
from . import complete

if TYPE_CHECKING:
    from ..predictor import Forecasting, Predictor, Progress

_MODEL, _CLIP, _OUTPUT = "Model", "Clip", "Output"
_Outcome = dict[str, Any] | tuple[str, int]  # what --json tells of a forecast, or an error and its exit code


def _option(panel: str, text: str, *names: str, default: Any = None, **more: Any) -> Any:
    return typer.Option(default, *names, help=text, rich_help_panel=panel, **more)


def predict(
    names: list[str] = typer.Argument(  # a Path would take an empty name for this folder
        ..., metavar="SOURCE", help="Videos, GIFs, folders of numbered images, .npy or .npz arrays."
    ),
    output: str | None = typer.Option(  # a Path would lose the slash of a folder's name
        None,
        "-o",
        "--output",
        metavar="OUT",
        help="A .gif, .mp4, .webm, .png (film strip) or .npz file, or a folder. (default: SOURCE_predicted.gif)",
        rich_help_panel=_OUTPUT,
    ),
    form: str | None = _option(
        _OUTPUT,
        "gif, mp4, webm, png or npz, where -o names no file. (default: gif)",
        "--format",
        metavar="FORMAT",
        autocompletion=complete.formats,
    ),
    panels: str | None = _option(
        _OUTPUT, "Of context,truth,prediction,error. (default: what there is)", metavar="LIST"
    ),
    overwrite: bool = _option(_OUTPUT, "Replace an existing output.", "--overwrite", default=False),
    skip_existing: bool = _option(
        _OUTPUT, "Leave out sources whose output is there.", "--skip-existing", default=False
    ),
    as_json: bool = _option(_OUTPUT, "Print one JSON object instead of the summary.", "--json", default=False),
    quiet: bool = _option(_OUTPUT, "Print nothing but errors.", "--quiet", "-q", default=False),
    debug: bool = _option(_OUTPUT, "Show tracebacks instead of one-line errors.", "--debug", default=False),
    frames: int | None = _option(_CLIP, "How many frames to predict. (default: as trained)"),
    context: int | None = _option(_CLIP, "How many frames to start from. (default: as trained)"),
    start: float = _option(_CLIP, "Skip the beginning.", default=0.0, metavar="SECONDS"),
    from_end: bool = _option(_CLIP, "Predict past the clip's last frame.", "--from-end", default=False),
    fps: float | None = _option(_CLIP, "Resample a video to this rate; for images and arrays, state it."),
    size: str | None = _option(
        _CLIP, "Frame size; S is the shorter side. (default: arrays native, else as trained)", metavar="native|S|WxH"
    ),
    weights: str | None = _option(
        _MODEL,
        "Bundled name, folder, .safetensors, published .pth/.pt, or Hub id owner/name\\[@revision]. "
        "(default: bundled ones)",
        autocompletion=complete.weights,
    ),
    scan: str = _option(_MODEL, "Scan: auto, native, torch, reference, triton or mamba.", default="auto"),
    device: str = _option(_MODEL, "auto, cpu, cuda or mps.", default="auto"),
    dtype: str = _option(_MODEL, "auto, float32 or bfloat16, of the matrix products.", default="auto"),
    threads: int | None = _option(_MODEL, "CPU threads."),
) -> None:
    """Predict how clips go on, and show the forecast beside what really came. Under torchrun, processes share clips."""
    if "" in names:
        raise InputError("the name of a source is empty", "name a clip")
    if weights == "":
        raise InputError("--weights is empty", "name some, or leave it out")
    for name in names:
        if re.match(r"-$|\w+://", name) and not Path(name).exists():
            raise InputError(f"{name}: neither addresses nor standard input are read", "save the clip as a file first")
    if overwrite and skip_existing:
        raise InputError("--overwrite and --skip-existing contradict each other", "leave one out")
    sources = [Path(name) for name in names]
    targets = _targets(sources, output, form)
    if skip_existing:
        # Under torchrun, all processes look before any writes: they wait for each other below.
        missing = [number for number, target in enumerate(targets) if not target.exists()]
        sources, targets = [sources[n] for n in missing], [targets[n] for n in missing]
    skipped = len(names) - len(sources)
    folder = targets[0].parent if output is not None and targets and targets[0] != Path(output) else None
    _check_before_loading(sources, targets, folder, panels, overwrite)

    with interrupts.deferred():
        from .. import devices, outputs, predictor
        from ..ranks import DAY, Ranks

    devices.set_threads(threads)
    ranks = Ranks(device, DAY)
    shown = ranks.rank == 0 and not (as_json or quiet)
    if shown and skipped:
        print(f"skipping {skipped} of {len(names)}: their output is there", file=sys.stderr)
    loaded: dict[str, tuple[Predictor, str, float]] = {}  # the predictor, the name to show, seconds

    def load(wanted: str) -> tuple[Predictor, str, float]:
        if wanted not in loaded:
            begin = time.perf_counter()
            model, name = predictor.load_weights(wanted)
            runner = predictor.Predictor(model, device=str(ranks.device), dtype=dtype, scan_backend=scan)
            loaded[wanted] = runner, name, time.perf_counter() - begin
            if shown:
                print(f"{name}{_known_for(wanted)} on {runner.describe()}", file=sys.stderr)
                if note := predictor.assumed(wanted, model):
                    print(f"warning: {note}", file=sys.stderr)
        return loaded[wanted]

    if weights is not None and sources:
        load(weights)  # bad weights fail once, not for each source
    outcomes: dict[int, _Outcome] = {}
    for number in range(ranks.rank, len(sources), ranks.world):
        source, target = sources[number], targets[number]
        try:
            runner, name, load_s = load(weights or predictor.fitting_weights(source, start))
            with predictor.Forecasting(
                runner, source, frames=frames, context=context, start=start, from_end=from_end, fps=fps, size=size,
                load_s=load_s,
            ) as forecasting, _progress(forecasting.frames, shown=shown) as progress:  # fmt: skip
                outputs.make_folder(target.parent)
                forecasting.write(target, panels=_split(panels), title=name, overwrite=overwrite, progress=progress)
        except Exception as error:  # whatever one clip runs into, memory above all, must not end the batch
            known = explained(error)
            if known is None or debug or len(sources) == ranks.world == 1:
                raise
            line = str(error if isinstance(error, VMRNNError) else f"{source}: {known}")
            outcomes[number] = line, known.exit_code
            print(f"error: {one_line(line)}", file=sys.stderr, flush=True)
            continue
        result = outcomes[number] = _result(source, forecasting, runner, name, target)
        if not (as_json or quiet):
            summary = _summary(source, forecasting, result) if ranks.world == 1 else _one_line(source, result)
            print(summary, flush=True)

    everyone = {number: outcome for share in ranks.gather(outcomes) for number, outcome in share.items()}
    ranks.leave()
    results = [outcome for _, outcome in sorted(everyone.items()) if isinstance(outcome, dict)]
    failures = [outcome for _, outcome in sorted(everyone.items()) if isinstance(outcome, tuple)]
    if as_json and ranks.rank == 0:
        import json

        together = {"forecasts": results, "failed": [line for line, _ in failures]}
        print(json.dumps(together if len(names) > 1 else results[0] if results else together))
    if failures:
        raise typer.Exit(1 if results or any(code == 1 for _, code in failures) else 2)


def _split(panels: str | None) -> list[str] | None:
    return None if panels is None else [panel.strip() for panel in panels.split(",")]


def _targets(sources: list[Path], output: str | None, form: str | None) -> list[Path]:
    """One output file per source."""
    from ..outputs import OUTPUT_SUFFIXES

    suffix = f".{(form or 'gif').lower().removeprefix('.')}"
    if suffix not in OUTPUT_SUFFIXES:
        raise InputError(f"there is no format '{form}'", f"use {', '.join(s[1:] for s in OUTPUT_SUFFIXES)}")
    if output is not None and output.lower() in ("", "-", *OUTPUT_SUFFIXES):
        raise InputError(f"{output or '-o'} names no output", "give a file with a name, or a folder")
    folder = Path(output or "")
    is_folder = output is None or output.endswith(("/", os.sep)) or folder.is_dir() or not folder.suffix
    if not is_folder:
        if len(sources) > 1:
            raise InputError(f"{output} is one file for {len(sources)} sources", "give a folder with -o")
        if form is not None and folder.suffix.lower() != suffix:
            raise InputError(f"{output} and --format {form} contradict each other", "leave --format out")
        return [folder]
    names = [source.resolve().name if source.is_dir() else source.resolve().stem for source in sources]
    targets = [folder / f"{name}_predicted{suffix}" for name in names]
    first: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        if first.setdefault(target, source) is not source:
            raise InputError(
                f"{first[target]} and {source} would both be written to {target}", "predict them apart, with -o"
            )
    return targets


def _check_before_loading(
    sources: list[Path], targets: list[Path], folder: Path | None, panels: str | None, overwrite: bool
) -> None:
    """Refuse what cannot end well before PyTorch and the weights are loaded, which takes seconds."""
    from .. import outputs, render

    if sources and not any(source.exists() for source in sources):
        raise InputError(f"{sources[0]} does not exist", "check the path")
    for source, target in zip(sources, targets, strict=True):
        outputs.check_output_suffix(target)
        if target.exists() and any(target.samefile(other) for other in sources if other.exists()):
            raise InputError(f"{target} is a source itself", "name another output")
        if target.suffix.lower() == ".png" and source.is_dir() and target.parent.resolve() == source.resolve():
            raise InputError(f"{target} would become a frame of {source}", "write it to another folder")
        if folder is None or target.parent.exists():  # else it is made with the first output
            outputs.check_target(target, overwrite)
        else:
            outputs.check_folder(folder, "-o")
    render.check_panels(_split(panels))


def _progress(frames: int, *, shown: bool) -> Any:
    """A context manager that yields the callback which advances a progress bar on stderr; a terminal only."""
    import contextlib

    if not (shown and sys.stderr.isatty()):
        return contextlib.nullcontext()
    return _progress_bar(frames)


def _progress_bar(frames: int) -> Any:
    import contextlib
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress as Bar

    @contextlib.contextmanager
    def bar() -> Iterator[Progress]:
        with Bar(console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("predicting", total=frames)
            yield lambda done, total: shown.update(task, completed=done)

    return bar()


def _known_for(wanted: str) -> str:
    """What weights of ours were trained on: people should not expect more of them."""
    from ..weights import registry

    entry = registry().get(wanted)
    return f" ({entry['data']})" if entry else ""


def _result(source: Path, forecasting: Forecasting, runner: Predictor, name: str, target: Path) -> dict[str, Any]:
    import dataclasses

    return {
        "source": str(source),
        "output": str(target),
        "device": str(runner.device),
        "dtype": str(runner.dtype).removeprefix("torch."),
        "scan_backend": runner.scan_backend,
        "weights": name,
        "context": len(forecasting.context),
        "frames": forecasting.frames,
        "frame_size": list(forecasting.context[0].shape[::-1][:2]),
        "fps": forecasting.fps,
        "divided_by": forecasting.divided_by,
        "known_frames": forecasting.score.frames,
        "timing": dataclasses.asdict(forecasting.timing),
        "metrics": forecasting.score.means(),
        "baseline_last_frame": forecasting.baseline.means(),
    }


def _summary(source: Path, forecasting: Forecasting, result: dict[str, Any]) -> str:
    def row(label: str, means: dict[str, float | None]) -> str:
        mse, ssim, psnr = (means[key] for key in ("mse", "ssim", "psnr"))
        digits = 4 if mse and mse < 1 else 2
        return "  ".join(
            (f"  {label:<20}", _number(mse, f"10.{digits}f"), _number(ssim, "7.4f"), _number(psnr, "7.2f", "∞"))
        )  # fmt: skip

    timing = forecasting.timing
    speed = timing.steps / timing.predict_s if timing.predict_s else 0.0
    lines = [f"{source}: {result['context']} frames given, {result['frames']} predicted ({speed:.1f} steps/s)"]
    if result["metrics"] is not None:
        known = forecasting.score.frames
        lines += [
            f"  {f'over {known} known frames':<20}  {'MSE':>10}  {'SSIM':>7}  {'PSNR dB':>7}",
            row("this forecast", result["metrics"]),
            row("last frame repeated", result["baseline_last_frame"]),
        ]
        divided = "" if forecasting.divided_by == 1 else f", values divided by {forecasting.divided_by:g}"
        lines.append(f"  (MSE is summed over a frame in [0, 1]{divided})")
    return "\n".join([*lines, f"  wrote {result['output']}"])


def _one_line(source: Path, result: dict[str, Any]) -> str:
    """The summary where several processes print theirs."""
    line = f"{source}: {result['context']} frames given, {result['frames']} predicted"
    if result["metrics"] is not None:
        mse, last = (_number(result[key]["mse"], "1.2f") for key in ("metrics", "baseline_last_frame"))
        line += f", MSE {mse}, last frame {last}"
    return f"{line}, wrote {result['output']}"


def _number(value: float | None, form: str, none: str = "–") -> str:
    return format(value, form) if value is not None else none.rjust(int(form.split(".")[0]))
