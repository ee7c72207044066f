"""How fast a network forecasts on this machine, beside a matrix product that runs turn by turn with it.

Notation: B clips at once, T frames, C channels, H x W pixels, n the side of the product's matrices.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import scan
from .cards import code_version
from .errors import InputError, os_failure
from .flops import flops_per_step
from .motion_network import MotionVMRNN
from .predictor import Predictor

_SIDES = {"cpu": 1024, "cuda": 4096}  # n
_SAME = ("weights", "frame_size", "channels", "context", "frames", "batch")  # what two results must have alike


def seconds(work: Callable[[], object]) -> float:
    """How long something takes, once."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_turn(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, turn by turn, so that a machine that slows down slows all; each has run before."""
    for work in works.values():
        work()
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(repeats)]
    return {name: [each[name] for each in rounds] for name in works}


def machine() -> dict[str, Any]:
    """What a result depends on and nobody chooses: the processor, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vmrnn": code_version(),
    }


def measure(
    predictor: Predictor, name: str, *, size: tuple[int, int] | None = None, context: int | None = None,
    frames: int | None = None, batch: int = 1, repeats: int = 5,
) -> dict[str, Any]:  # fmt: skip
    """Forecast clips of noise, and say how fast.

    Args:
        predictor: with the network, its device and precision.
        name: of the weights, for the record.
        size: of the frames, (H, W); default as trained.
        context: frames given; default as trained.
        frames: frames predicted; default as trained.
        batch: clips at once.
        repeats: how often; the median counts.

    Returns:
        What was measured: "frames_per_s" of all clips together, "step_ms" of the recurrence, "memory_mib" at the most
        of the process or of the GPU, "product_gflop_per_s" of the matrix product in float32 and
        "share_of_product", the network's own rate in that. Operations of the search for motion and of drawing are not
        counted, their time is.

    Raises:
        InputError: such frames cannot be forecast.
    """
    model, config = predictor.model, predictor.model.config
    H, W = size or config.image_size
    T, K = context or config.context, frames or config.horizon
    if min(H, W) < config.patch_size or min(T, K, batch, repeats) < 1:
        raise InputError(
            f"{batch} clip(s) of {T} + {K} frames of {W}x{H} cannot be forecast", "give larger numbers, from 1"
        )
    rng = np.random.default_rng(0)
    clips = rng.random((batch, T, config.image_channels, H, W), dtype=np.float32)
    device, n = predictor.device, _SIDES.get(predictor.device.type, 1024)
    a = torch.rand(n, n, device=device)

    def product() -> None:
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    works = {"forecast": lambda: predictor.batch(clips, K), "product": product}
    times = in_turn(works, repeats)
    steps = (T - T // 2 if isinstance(model, MotionVMRNN) else T - 1) + K
    clip_s = statistics.median(times["forecast"])
    operations = batch * steps * flops_per_step(config, (H, W))
    rate = 2 * n**3 / statistics.median(times["product"])
    return {
        "weights": name, "frame_size": [W, H], "channels": config.image_channels, "context": T, "frames": K,
        "batch": batch, "device": str(device), "dtype": str(predictor.dtype).removeprefix("torch."),
        "scan_backend": scan.in_words(predictor.scan_backend, device, config.d_state, model.rank),
        "repeats": repeats, "clip_s": clip_s, "clip_s_min": min(times["forecast"]),
        "clip_s_max": max(times["forecast"]), "frames_per_s": batch * K / clip_s, "step_ms": 1e3 * clip_s / steps,
        "gflop_per_s": operations / clip_s / 1e9, "product_gflop_per_s": rate / 1e9,
        "share_of_product": operations / clip_s / rate, "memory_mib": _memory(device), "machine": machine(),
    }  # fmt: skip


def _memory(device: torch.device) -> float | None:
    """MiB at the most so far, of the GPU or of the process; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource  # which Windows has not

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def read(path: Path) -> dict[str, Any]:
    """An earlier result, as `vmrnn benchmark --json` printed it.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        result = json.loads(path.read_text())
    except OSError as error:
        raise os_failure(f"cannot read {path}", error) from None
    except ValueError:
        result = None
    if not isinstance(result, dict) or not isinstance(result.get("frames_per_s"), float):
        raise InputError(f"{path} is no result of a benchmark", "give what `vmrnn benchmark --json` printed")
    return result


def compare(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """How many times as fast as before, and the same with each measured against its matrix product.

    Raises:
        InputError: the two are of different work.
    """
    other = [key for key in _SAME if now[key] != before.get(key)]
    if other:
        raise InputError(
            f"the earlier result is of another {other[0]}: {before.get(other[0])}, not {now[other[0]]}",
            "measure the same twice",
        )
    faster = now["frames_per_s"] / before["frames_per_s"]
    return {
        "times_as_fast": faster,
        "times_as_fast_for_its_product": faster * before["product_gflop_per_s"] / now["product_gflop_per_s"],
    }
