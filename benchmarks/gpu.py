"""How fast VMRNN runs on this GPU, against the published computation in the same process.

    python benchmarks/gpu.py                    # everything, to benchmarks/results/<card>.json
    python benchmarks/gpu.py --only scans steps --repeats 5             # some of it, in less time
    python benchmarks/gpu.py --quick                                    # vmrnn-d-mmnist alone, in a minute
    python benchmarks/gpu.py --table benchmarks/results/<card>.json   # the Markdown table of a result
    TRITON_INTERPRET=1 python benchmarks/gpu.py --smoke --out x.json  # the script itself, on a CPU

The published computation is the same network through PyTorch operations in float32, its scan by the kernel of mamba-ssm
over directions that are copied out ("published"). Where mamba-ssm cannot be imported, a scan in plain PyTorch takes the
kernel's place, and the results say so ("substitute"): ratios against it flatter us.

Notation: B batch, T time, C channels, H x W pixels or tokens, L = H*W tokens, D inner width, N states, R rank of dt,
K = 4 directions.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import functools
import gc
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from vmrnn_cli import scan
from vmrnn_cli.devices import autocast
from vmrnn_cli.flops import flops_per_step
from vmrnn_cli.gpu import GraphedStep, record_cuda_graph
from vmrnn_cli.model import VMRNN, VMRNNConfig, rollout
from vmrnn_cli.networks import NETWORKS as PRESETS
from vmrnn_cli.scan.operators import scan_flops
from vmrnn_cli.train import RolloutLoss

SECTIONS = ("ceilings", "scans", "steps", "training", "kernels", "gradients")
NETWORKS = ("vmrnn-d-mmnist", "vmrnn-b-kth", "vmrnn-b-taxibj")
LARGE = (256, 512)  # sides of the larger frames, for vmrnn-b-kth
SCANS = ((1, 64, 64, 256), (16, 64, 64, 256), (1, 32, 32, 256), (16, 16, 16, 512), (1, 128, 128, 256))  # B, H, W, D
LONG_MS = 5000.0  # in all, after which three repeats are enough
TRAINING_BATCH = {"vmrnn-d-mmnist": 16, "vmrnn-b-kth": 8, "vmrnn-b-taxibj": 16}


@dataclasses.dataclass
class Bench:
    """Where and how often things are timed, and who plays which part."""

    device: torch.device
    repeats: int
    smoke: bool
    ours: str
    published: str
    quick: bool = False
    dtype: torch.dtype = torch.bfloat16

    @property
    def published_name(self) -> str:
        return "published" if self.published == "mamba" else f"substitute (scan by the backend `{self.published}`)"

    def milliseconds(self, work: Callable[[], object]) -> dict[str, float]:
        """Median, smallest and largest time of `work`, after a warm-up; fewer repeats of what takes long."""
        least = 1 if self.quick else 3
        warm_up = 0.0 if self.smoke else self._once(work)
        if self.quick and warm_up > LONG_MS:  # what is compiled then counts little
            return {"ms": warm_up, "ms_min": warm_up, "ms_max": warm_up, "repeats": 1}
        for _ in range(0 if self.smoke or warm_up > LONG_MS else 2):
            work()
        times: list[float] = []
        while len(times) < self.repeats and (len(times) < least or sum(times) < LONG_MS):
            times.append(self._once(work))
        return {"ms": statistics.median(times), "ms_min": min(times), "ms_max": max(times), "repeats": len(times)}

    def _once(self, work: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            begin = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - begin)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def peak_gb(self, work: Callable[[], object]) -> float:
        """Memory that PyTorch holds at most while `work` runs, in 10^9 bytes; without a GPU 0, and nothing runs.

        It counts what is reserved: a graph's own memory is reserved, but no longer allocated once it is recorded.
        """
        if self.device.type != "cuda":
            return 0.0
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_reserved() / 1e9

    def graphed(self, model: VMRNN, frame: Tensor, dtype: torch.dtype) -> GraphedStep:
        if self.device.type == "cuda":
            return GraphedStep(model, frame, dtype)
        return GraphedStep(model, frame, dtype, record=lambda work: work)

    def recorded(self, work: Callable[[], None]) -> Callable[[], None]:
        return record_cuda_graph(work) if self.device.type == "cuda" else work


# ----------------------------------------------------------------------------------------------------------------------
# What is measured


def ceilings(bench: Bench) -> Iterator[dict]:
    """What this card does at best: a copy far larger than its cache, and a large product of bfloat16 matrices."""
    elements, n = (2**10, 64) if bench.smoke else (min(2**30, torch.cuda.mem_get_info()[0] // 16), 8192)
    source, target = (torch.randn(elements, device=bench.device) for _ in range(2))
    copy = bench.milliseconds(functools.partial(target.copy_, source))
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    product = bench.milliseconds(lambda: a @ b)
    yield {
        "copy_gb_per_s": 2 * 4 * elements / copy["ms"] / 1e6,
        "bf16_tflop_per_s": 2 * n**3 / product["ms"] / 1e9,
        "copy": copy,
        "product": product,
    }


def scan_inputs(B: int, H: int, W: int, D: int, device: torch.device, dtype: torch.dtype, N: int = 16) -> list[Tensor]:
    """As a block of a network makes them: R = D / 32, 16 states."""
    R = -(-D // 32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, H, W, D, generator=generator)
    x_dbl = torch.randn(B, H, W, 4, R + 2 * N, generator=generator)
    weights = [
        torch.randn(4, D, R, generator=generator) * R**-0.5,
        torch.randn(4, D, generator=generator) - 3,
        torch.arange(1.0, N + 1).log().repeat(4 * D, 1),
        torch.ones(4 * D),
    ]
    return [x.to(device, dtype), x_dbl.to(device, dtype), *(w.to(device) for w in weights)]


def scans(bench: Bench) -> Iterator[dict]:
    """The operator alone: forward, and forward with backward; bytes are the fewest that inputs and outputs allow."""
    for shape in ((1, 1, 2, 8),) if bench.smoke else SCANS[2:4] if bench.quick else SCANS:
        B, H, W, D = shape
        tensors = scan_inputs(*shape, bench.device, torch.float32)
        exact = None
        if B * H * W <= 4096:
            exact = scan.selective_scan(*(t.double() for t in tensors), "torch")
        for name, backend in (("ours", bench.ours), (bench.published_name, bench.published)):
            leaves = [t.detach().requires_grad_() for t in tensors]

            def forward(backend: str = backend) -> Tensor:
                with torch.no_grad():
                    return scan.selective_scan(*tensors, backend)  # noqa: B023

            def both(backend: str = backend, leaves: list[Tensor] = leaves) -> None:
                y = scan.selective_scan(*leaves, backend)
                torch.autograd.grad(y, leaves, torch.ones_like(y))

            least = 4 * (2 * tensors[0].numel() + tensors[1].numel())
            timing = bench.milliseconds(forward)
            yield {
                "shape": shape,
                "name": name,
                "forward": timing,
                "forward_backward": bench.milliseconds(both),
                "forward_gb_per_s": least / timing["ms"] / 1e6,
                "forward_tflop_per_s": scan_flops(B, H * W, D, 16, tensors[2].shape[-1]) / timing["ms"] / 1e9,
                "relative_error": None if exact is None else ((forward() - exact).norm() / exact.norm()).item(),
            }


def networks(bench: Bench) -> list[tuple[str, VMRNNConfig]]:
    if bench.smoke:
        return [("smoke", VMRNNConfig("B", 1, (8, 4), 4, 16, (1,), d_state=2, context=1, horizon=1))]
    sizes = [(f"vmrnn-b-kth at {s}x{s}", dataclasses.replace(PRESETS["vmrnn-b-kth"], image_size=(s, s))) for s in LARGE]
    if bench.quick:
        return [(name, PRESETS[name]) for name in NETWORKS[:1]]
    return [(name, PRESETS[name]) for name in NETWORKS] + sizes


def build(bench: Bench, config: VMRNNConfig, backend: str) -> VMRNN:
    torch.manual_seed(0)
    model = VMRNN(config).to(bench.device).eval()
    model.scan_backend = backend
    return model


def frames(bench: Bench, config: VMRNNConfig, *batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(*batch, config.image_channels, *config.image_size, generator=generator).to(bench.device)


def ways(bench: Bench, config: VMRNNConfig) -> list[tuple[str, Callable[[Tensor], Callable[[Tensor], object]]]]:
    """Named ways to take a step; each makes, for a frame, a function that goes on from the state before."""
    ours, published = build(bench, config, bench.ours), build(bench, config, bench.published)

    def eager(model: VMRNN, dtype: torch.dtype) -> Callable[[Tensor], Callable[[Tensor], object]]:
        def make(frame: Tensor) -> Callable[[Tensor], object]:
            with torch.inference_mode(), autocast(bench.device, dtype):
                _, states = model(frame)

            @torch.inference_mode()
            def step(frame: Tensor) -> Tensor:
                with autocast(bench.device, dtype):
                    return model(frame, states)[0]

            return step

        return make

    def graphed(dtype: torch.dtype) -> Callable[[Tensor], Callable[[Tensor], object]]:
        def make(frame: Tensor) -> Callable[[Tensor], object]:
            step = bench.graphed(ours, frame, dtype)
            _, states = step(frame)
            return lambda frame: step(frame, states)[0]

        return make

    named = [
        ("ours", graphed(bench.dtype)),
        (bench.published_name, eager(published, torch.float32)),
        ("ours, float32", graphed(torch.float32)),
        ("ours, no graph", eager(ours, bench.dtype)),
    ]
    return named[:2] if bench.quick else named


def steps(bench: Bench) -> Iterator[dict]:
    """A step at batch 1, and steps per second at the batch size from which larger ones gain less than 5 %."""
    for name, config in networks(bench):
        flops = flops_per_step(config, config.image_size)
        for way, make in ways(bench, config):
            result: dict = {"network": name, "name": way, "flops_per_frame": flops}
            best = 0.0
            slow = bench.smoke or (way == bench.published_name and bench.published == "torch")
            for batch in (1,) if slow else (1, 4, 16, 64, 256):
                frame = frames(bench, config, batch)
                step = None  # the graph of the batch before keeps its memory
                release(bench)
                try:
                    step = make(frame)
                    timing = bench.milliseconds(lambda step=step, frame=frame: step(frame))
                except torch.cuda.OutOfMemoryError:
                    result["out_of_memory_at_batch"] = batch
                    break
                per_second = 1e3 * batch / timing["ms"]
                if batch == 1:
                    result["latency"] = timing
                    result["peak_gb"] = bench.peak_gb(lambda step=step, frame=frame: step(frame))
                if per_second < 1.05 * best:
                    break
                best = per_second
                if slow:  # no batch was chosen
                    break
                result |= {"best_batch": batch, "frames_per_s": best, "tflop_per_s": best * flops / 1e12}
            yield result
            step = None
            release(bench)


def learn(
    bench: Bench, model: VMRNN, loss: RolloutLoss, clips: Tensor, context: int, dtype: torch.dtype
) -> None:  # fmt: skip
    """Forward and backward over clips (B, T, C, H, W)."""
    model.zero_grad()
    with autocast(bench.device, dtype):
        value = loss(clips, context)
    value.backward()


def training(bench: Bench) -> Iterator[dict]:
    """Forward and backward over whole clips at the published lengths; memory at its peak."""
    for name, config in networks(bench)[: len(NETWORKS)]:
        batch = TRAINING_BATCH.get(name, 1)
        clips = frames(bench, config, batch, config.context + config.horizon)
        flops = 3 * (clips.shape[1] - 1) * flops_per_step(config, config.image_size)  # of a clip, forward and backward
        for way, backend, dtype, low_memory in (
            ("ours", bench.ours, bench.dtype, False),
            (bench.published_name, bench.published, torch.float32, False),
            ("ours, no graph", bench.ours, bench.dtype, False),
            ("ours, low memory", bench.ours, bench.dtype, True),
            ("ours, float32", bench.ours, torch.float32, False),
        ):
            model = build(bench, config, backend).train()
            loss = RolloutLoss(model, "mse", low_memory=low_memory)

            train = functools.partial(learn, bench, model, loss, clips, config.context, dtype)
            result: dict = {"network": name, "name": way, "batch": batch, "frames": clips.shape[1]}
            work: Callable[[], None] = train
            try:
                if way == "ours":
                    work = bench.recorded(train)
                timing = bench.milliseconds(work)
                per_second = 1e3 * batch / timing["ms"]
                result |= {"step": timing, "clips_per_s": per_second, "tflop_per_s": per_second * flops / 1e12}
                result["peak_gb"] = bench.peak_gb(work)
            except torch.cuda.OutOfMemoryError:
                result["out_of_memory"] = True
            yield result
            del model, loss, train, work
            release(bench)


def kernels(bench: Bench) -> Iterator[dict]:
    """Where a training step spends its time on the GPU: the kernels that take longest, with their shares."""
    for name, config in networks(bench)[:1]:
        model = build(bench, config, bench.ours).train()
        loss, batch = RolloutLoss(model, "mse", low_memory=False), TRAINING_BATCH.get(name, 1)
        clips = frames(bench, config, batch, 4)

        train = functools.partial(learn, bench, model, loss, clips, 2, bench.dtype)
        train()
        on_gpu = bench.device.type == "cuda"
        activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(activities=[activity]) as profile:
            train()
            if on_gpu:
                torch.cuda.synchronize()
        events = profile.key_averages()
        taken = [(e.self_device_time_total if on_gpu else e.self_cpu_time_total, e.count, e.key) for e in events]
        total = sum(time for time, _, _ in taken)
        yield {"network": name, "batch": batch, "frames": 4, "ms": total / 1e3, "calls": sum(n for _, n, _ in taken)}
        for spent, count, key in sorted(taken, reverse=True)[:25]:
            yield {"kernel": key[:120], "ms": spent / 1e3, "calls": count, "share": spent / max(total, 1e-9)}
        del model, loss, train
        release(bench)


def gradients(bench: Bench) -> Iterator[dict]:
    """How fast the scan's backward pass is by the channels and states that `_gradient_kernel` has in registers."""
    from vmrnn_cli.scan import triton as triton_kernels

    chosen = triton_kernels.GRADIENT_BLOCK, triton_kernels.GRADIENT_STATES
    shapes = ((1, 2, 3, 8),) if bench.smoke else ((16, 32, 32, 256), (16, 16, 16, 512))
    for shape in shapes:
        tensors = scan_inputs(*shape, bench.device, torch.float32, 2 if bench.smoke else 16)
        tensors = [*(t.to(bench.dtype) for t in tensors[:2]), *tensors[2:]]
        y, kept = triton_kernels.scan_forward(*tensors, True)
        for block, states in (
            (chosen,) if bench.smoke else (chosen, (32, 2), (32, 8), (64, 1), (64, 2), (64, 4), (128, 1))
        ):
            triton_kernels.GRADIENT_BLOCK, triton_kernels.GRADIENT_STATES = block, states
            try:
                triton_kernels.scan_backward(y, *tensors, kept)  # compiled
                timing = bench.milliseconds(lambda: triton_kernels.scan_backward(y, *tensors, kept))  # noqa: B023
            finally:
                triton_kernels.GRADIENT_BLOCK, triton_kernels.GRADIENT_STATES = chosen
            yield {"shape": shape, "channels": block, "states": states, "backward": timing}


def accuracy(bench: Bench) -> Iterator[dict]:
    """How far bfloat16 products lead a 40-frame rollout away from float32 ones, with random weights."""
    for name, config in networks(bench)[: len(NETWORKS)]:
        model, context = build(bench, config, bench.ours), frames(bench, config, config.context, 1)
        outputs = []
        for dtype in (torch.float32, bench.dtype):
            with torch.inference_mode(), autocast(bench.device, dtype):
                outputs.append(torch.stack(list(rollout(model, context, 1 if bench.smoke else 40))).float())
        difference = (outputs[0] - outputs[1]).abs().flatten(1).amax(1)
        yield {"network": name, "largest_difference": difference.max().item(), "last": difference[-1].item()}


def release(bench: Bench) -> None:
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


# ----------------------------------------------------------------------------------------------------------------------
# Results


def machine(bench: Bench) -> dict:
    commit = ""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    with contextlib.suppress(OSError):  # there is no git
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
        )
        commit = described.stdout.strip()
    facts = {
        "device": platform.machine(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "triton", "mamba-ssm")},
        "commit": commit or "unknown",
        "ours": bench.ours,
        "published": bench.published_name,
        "mamba": scan.why_unavailable("mamba", bench.device) or "yes",
    }
    if bench.device.type == "cuda":
        properties = torch.cuda.get_device_properties(bench.device)
        facts |= {
            "device": properties.name, "processors": properties.multi_processor_count,
            "memory_gb": properties.total_memory / 1e9, "cuda": torch.version.cuda,
        }  # fmt: skip
    return facts


def table(results: dict) -> str:
    """The Markdown table of a result: ours against the published computation."""
    about, against = results["machine"], results["machine"]["published"]
    lines = [
        f"{about['device']}, PyTorch {about['versions']['torch']}, Triton {about['versions']['triton']}, commit "
        f"{about['commit']}. Reference: {against}.",
    ]
    best = results["ceilings"][0] if results.get("ceilings") else None
    if best is not None:
        lines.append(
            f"The card copies {best['copy_gb_per_s']:.0f} GB/s and multiplies bfloat16 matrices at "
            f"{best['bf16_tflop_per_s']:.0f} TFLOP/s."
        )
    lines += ["", "| | ours | reference | ratio |", "|---|---:|---:|---:|"]

    def row(label: str, ours: float | None, reference: float | None, digits: int, larger_is_better: bool) -> None:
        if ours is None:
            return
        full = other.get("out_of_memory") or "out_of_memory_at_batch" in other
        missing = "out of memory" if full else "not measured"
        shown = missing if reference is None else f"{reference:.{digits}f}"
        ratio = "" if not reference or not ours else f"{ours / reference if larger_is_better else reference / ours:.1f}"
        lines.append(f"| {label} | {ours:.{digits}f} | {shown} | {ratio} |")

    for result in results.get("steps", []):
        if result["name"] != "ours":
            continue
        name, other = result["network"], partner(results["steps"], result["network"], against)
        latency = other.get("latency", {}).get("ms")
        row(f"{name}, one step at batch 1, ms", result.get("latency", {}).get("ms"), latency, 2, False)
        row(f"{name}, frames/s at the best batch", result.get("frames_per_s"), other.get("frames_per_s"), 0, True)
        if best is not None and result.get("tflop_per_s"):
            share = 100 * result["tflop_per_s"] / best["bf16_tflop_per_s"]
            lines.append(f"| {name}, the same as a share of the card's products | {share:.1f} % | | |")
    for result in results.get("training", []):
        if result["name"] not in ("ours", "ours, low memory"):
            continue
        other = partner(results["training"], result["network"], against)
        label = f"{result['network']}, training at batch {result['batch']}{result['name'][4:]}"
        row(f"{label}, clips/s", result.get("clips_per_s"), other.get("clips_per_s"), 2, True)
        row(f"{label}, peak memory, GB", result.get("peak_gb"), other.get("peak_gb"), 1, False)
    return "\n".join(lines)


def partner(results: list[dict], network: str, name: str) -> dict:
    """What the reference did; nothing where the time was over before."""
    return next((r for r in results if r["network"] == network and r["name"] == name), {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=(*SECTIONS, "accuracy"))
    parser.add_argument("--quick", action="store_true", help="vmrnn-d-mmnist alone, what matters most first")
    parser.add_argument("--repeats", type=int, help="default: 20, or 5 with --quick")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/<card>.json")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the table of a result, measure nothing")
    parser.add_argument("--smoke", action="store_true", help="try the script itself, tiny and on the CPU")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return 0
    if not options.smoke and not torch.cuda.is_available():
        print("no GPU: PyTorch finds none on this machine, and this benchmark measures nothing else", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.smoke else "cuda")
    ours = "triton" if scan.why_unavailable("triton", device) is None else scan.pick_backend("auto", device)
    published = "mamba" if scan.why_unavailable("mamba", device) is None else "torch"
    repeats = 1 if options.smoke else options.repeats or (5 if options.quick else 20)
    bench = Bench(device, repeats, options.smoke, ours, published, options.quick)
    results: dict = {"machine": machine(bench)}
    out = options.out or Path(__file__).parent / "results" / f"{results['machine']['device'].replace(' ', '-')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    measure = {
        "ceilings": ceilings, "scans": scans, "steps": steps, "training": training, "kernels": kernels,
        "gradients": gradients, "accuracy": accuracy,
    }  # fmt: skip
    sections = (
        ("ceilings", "kernels", "steps", "training", "scans", "gradients") if options.quick else (*SECTIONS, "accuracy")
    )
    for name in options.only or sections:
        begin = time.perf_counter()
        results[name] = []
        for result in measure[name](bench):
            results[name].append(result)
            temporary = out.with_name(out.name + ".part")  # after each result: what was measured is not lost
            temporary.write_text(json.dumps(results, indent=2) + "\n")
            temporary.replace(out)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
