"""`vmrnn benchmark`: how fast this machine forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ..networks import NETWORKS
from . import options
from .options import CLIP, option

_WHAT = typer.Argument(
    None,
    metavar="[WEIGHTS or NETWORK]",
    help=f"What --weights takes, or the name of a network: {', '.join(NETWORKS)}. (default: as `vmrnn predict`)",
)


def benchmark(
    what: str | None = _WHAT,
    size: str | None = option(CLIP, "Frame size. (default: as trained)", metavar="S|WxH"),
    context: int | None = options.CONTEXT,
    frames: int | None = options.FRAMES,
    batch: int = option(CLIP, "Clips at once.", default=1),
    scan: str = options.SCAN,
    device: str = options.DEVICE,
    dtype: str = options.DTYPE,
    threads: int | None = options.THREADS,
    repeats: int = option(None, "How often; the median counts.", default=5),
    compare: Path | None = option(None, "An earlier result, as --json printed it.", metavar="FILE.json"),
    as_json: bool = options.JSON,
    debug: bool = options.DEBUG,
) -> None:
    """Measure how fast this machine forecasts clips of noise: frames a second, memory, share of a product's rate."""
    from .. import benchmark as measuring
    from .. import weights
    from ..devices import set_threads
    from ..frames import parse_size
    from ..networks import build
    from ..predictor import Predictor

    before = None if compare is None else measuring.read(compare)
    set_threads(threads)
    name = weights.default_name() if what is None else what
    model = build(NETWORKS[name]) if name in NETWORKS and not weights.is_bundled(name) else weights.load(name)
    predictor = Predictor(model, device=device, dtype=dtype, scan_backend=scan)
    side = None if size is None else parse_size(size)
    grid = (side, side) if isinstance(side, int) else side
    result = measuring.measure(predictor, name, size=grid, context=context, frames=frames, batch=batch, repeats=repeats)
    if before is not None:
        result |= measuring.compare(result, before)
    if as_json:
        import json

        print(json.dumps(result))
    else:
        _print(result, predictor.runs_on, compare)


def _print(result: dict[str, Any], runs_on: str, compared: Path | None) -> None:
    width, height = result["frame_size"]
    machine = result["machine"]
    print(f"{result['weights']} on {runs_on}; {machine['processor']}, torch {machine['torch']}")
    clips = f"{result['batch']} clip(s) of {result['context']} -> {result['frames']} frames of {width}x{height}"
    print(f"{clips}, {result['repeats']} times: {result['clip_s']:.3f} s ({result['clip_s_min']:.3f} at best)")
    print(f"frames a second         {result['frames_per_s']:.1f}")
    print(f"a step                  {result['step_ms']:.2f} ms")
    share = f"{100 * result['share_of_product']:.0f} % of a matrix product's {result['product_gflop_per_s']:.0f}"
    print(f"operations              {result['gflop_per_s']:.1f} GFLOP/s, {share}")
    if result["memory_mib"] is not None:
        print(f"memory, at the most     {result['memory_mib']:.0f} MiB")
    if compared is not None:
        own = result["times_as_fast_for_its_product"]
        print(f"against {compared}: {result['times_as_fast']:.2f} times as fast ({own:.2f} for its matrix product)")
