"""Test, measure and train on a machine with a GPU: one call that ends in time, and keeps what it found at any moment.

    python benchmarks/gpu_all.py --data MNIST_FOLDER --out runs/gpu                      # ten minutes
    python benchmarks/gpu_all.py --data MNIST_FOLDER --out runs/gpu --resume runs/gpu --only d
    python benchmarks/gpu_all.py --rehearse --out /tmp/rehearsal                         # all of it, tiny, on a CPU

Four phases, each in processes of its own with a time limit, so that one that breaks costs only itself:

    a   60 s   what is there; the first launch of each kernel, by many processes at once, as compiling takes longest
    b   90 s   tests/test_gpu.py, each test in a process of its own: a GPU that failed once fails whatever comes after
    c   75 s   benchmarks/gpu.py --quick
    d          benchmarks/gpu_train.py for the rest, with the kernels that passed

In the folder of results there are `log.txt` (what all processes said), `results.json` (rewritten after every process),
`speed.json` (of phase c) and the checkpoint of phase d: eight files at most, none larger than 16 MiB.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
LIMITS = {"a": 60.0, "b": 90.0, "c": 75.0}  # seconds
MARGIN = 15.0  # seconds between the end of the training and that of the budget
LEAST = 30.0  # seconds that a training is worth starting for
WIDTHS = (256, 512, 1024)  # inner widths of the published VMRNN-D
CHOICES = 5  # among constants of the scan's kernels
KERNELS = ("scan", "conv_silu", "norm_gate")
TESTS = {  # what a test of tests/test_gpu.py speaks for
    "test_scan_matches_the_definition_and_itself": ("scan",),
    "test_other_numbers_of_states": ("scan",),
    "test_convolution_and_gate": ("conv_silu", "norm_gate"),
    "test_training_follows_the_same_gradient": ("scan",),
    "test_a_recorded_step_is_the_step": ("graph",),
    "test_a_recorded_training_step_is_the_step": ("graph",),
    "test_forecasts_are_those_of_the_cpu": ("scan",),
}


# ----------------------------------------------------------------------------------------------------------------------
# Processes


@dataclasses.dataclass
class Job:
    """A process to run. `kernels` is what it speaks for."""

    name: str
    command: list[str]
    kernels: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    """What became of a job: `ended` is passed, failed, stopped (out of time) or skipped; `found` what it told."""

    job: Job
    ended: str
    seconds: float
    output: str
    found: dict[str, Any]
    status: int | None = None

    def blamed(self) -> tuple[str, ...]:
        """The kernels that failed, if they did, and not a missing package, say."""
        begun = self.found.get("begun", True) and self.status not in (2, 3, 4, 5)  # by pytest: no test failed
        return self.job.kernels if self.ended == "failed" and begun else ()

    def facts(self) -> dict[str, Any]:
        """For results.json."""
        short = {"ended": self.ended, "seconds": round(self.seconds, 1), **self.found}
        return short if self.ended in ("passed", "skipped") else short | {"output": self.output[-600:]}


def found_in(output: str) -> dict[str, Any]:
    """What a process told in lines like `found: {...}`, the later over the earlier."""
    found: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("found: "):
            with contextlib.suppress(ValueError):  # cut short
                found |= json.loads(line.removeprefix("found: "))
    return found


def run_jobs(
    jobs: Iterable[Job], until: float, *, workers: int, log: Path, done: Callable[[Outcome], None], live: bool = False
) -> list[Outcome]:
    """Run jobs, some at a time in their order, until a moment of `time.monotonic()`; then stop what still runs.

    done : called with each outcome at once
    live : the output goes to the log as it comes, not when a job has ended; for one job at a time
    """
    waiting, outcomes = list(jobs), []
    running: list[Running] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or running:
                late = time.monotonic() >= until
                while waiting and len(running) < workers and not late:
                    job = waiting.pop(0)
                    running.append(Running(job, log if live else Path(folder) / f"{len(waiting)}.txt"))
                for one in list(running):
                    if one.process.poll() is None and not late:
                        continue
                    running.remove(one)
                    outcomes.append(one.end())
                    if not live:
                        with log.open("a") as stream:
                            last = outcomes[-1]
                            stream.write(
                                f"\n=== {one.job.name}: {last.ended} after {last.seconds:.1f} s\n{last.output}"
                            )
                    done(outcomes[-1])
                if late:
                    for job in waiting:
                        outcomes.append(Outcome(job, "skipped", 0.0, "", {}))
                        done(outcomes[-1])
                    break
                time.sleep(0.05)
        finally:  # interrupted: nothing runs on alone
            for one in running:
                one.end()
    return outcomes


class Running:
    """A job's process, and where its output goes."""

    def __init__(self, job: Job, path: Path) -> None:
        self.job, self.path, self.begin = job, path, time.monotonic()
        self.start = path.stat().st_size if path.exists() else 0
        environment = os.environ | {"PYTHONPATH": _python_path(), "PYTHONUNBUFFERED": "1"} | job.environment
        with path.open("ab") as stream:
            self.process = subprocess.Popen(
                job.command, cwd=TOP, env=environment, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def end(self) -> Outcome:
        """What became of it; if it still runs, it and all that it started are stopped."""
        status = self.process.poll()
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            output = stream.read().decode(errors="replace")
        ended = "stopped" if status is None else "failed" if status else "passed"
        return Outcome(self.job, ended, time.monotonic() - self.begin, output, found_in(output), status)


def _python_path() -> str:
    return os.pathsep.join([str(TOP), *filter(None, [os.environ.get("PYTHONPATH")])])


# ----------------------------------------------------------------------------------------------------------------------
# What the processes of phase a do


def tell(**facts: Any) -> None:
    print("found: " + json.dumps(facts), flush=True)


def look() -> None:
    """What is there: machine, versions, the card, and which of our modules cannot be imported."""
    import importlib
    import importlib.metadata
    import pkgutil
    import platform

    versions = {}
    for package in ("torch", "triton", "numpy", "mamba-ssm", "pytest", "scikit-image"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    compilers = [name for name in ("cc", "gcc", "clang", "nvcc", "git") if shutil.which(name)]
    tell(python=platform.python_version(), machine=platform.machine(), cores=os.cpu_count(), versions=versions)
    tell(programs=compilers)
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info(0)
        tell(
            card=card.name, capability=[card.major, card.minor], processors=card.multi_processor_count,
            memory_gb=total / 1e9, free_gb=free / 1e9, cuda=torch.version.cuda,
        )  # fmt: skip
    import vmrnn_cli

    failing = {}
    for module in pkgutil.walk_packages(vmrnn_cli.__path__, "vmrnn_cli."):
        if module.name.endswith("__main__") or "._" in module.name:  # the latter are C, and no modules
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:  # whatever it is, it is a finding
            failing[module.name] = f"{type(error).__name__}: {error}"
    tell(imports_failing=failing)
    from vmrnn_cli import scan

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tell(backends={name: scan.why_unavailable(name, device) or "yes" for name in scan.BACKENDS})


def launch(kernel: str, width: int, choice: int, rehearse: bool) -> None:
    """Run a kernel forward and backward with one choice of its constants, and compare it with PyTorch in float64.

    Inputs in bfloat16, as in training, which then finds the kernels compiled; many images, then one image in chunks;
    without gradients, too. What float32 makes of them is tested in phase b.
    """
    tell(begun=False)
    import torch
    from gpu import scan_inputs

    from vmrnn_cli.scan import triton as kernels

    device = torch.device("cpu" if rehearse else "cuda")
    torch.zeros(1, device=device)
    tell(begun=True)
    if kernel == "scan":
        for tuned in (kernels._scan_kernel, kernels._adjoint_kernel):
            tuned.configs = tuned.configs[choice : choice + 1]
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for B, H, W in ((1, 2, 3),) if rehearse else ((64, 4, 4), (1, 8, 8)):
        if kernel == "scan":
            inputs = scan_inputs(B, H, W, width, device, torch.float32, 2 if rehearse else 16)
            inputs = [*(t.bfloat16() for t in inputs[:2]), *inputs[2:]]
        elif kernel == "conv_silu":
            shapes = (B, H, W, width), (width, 1, 3, 3), (width,)
            x, *weights = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
            inputs = [x.bfloat16(), *weights]
        else:
            y, z = (torch.randn(B, H, W, width, generator=generator).to(device) for _ in range(2))
            scale, shift = (torch.randn(width, generator=generator).to(device) for _ in range(2))
            inputs = [y, z.bfloat16(), scale, shift]
        results = []
        for backend in ("triton", "torch"):
            leaves = [t.detach().to(t.dtype if backend == "triton" else torch.float64) for t in inputs]
            leaves = [t.requires_grad_() for t in leaves]
            output = _apply(kernel, leaves, backend)
            # A loss whose gradient is no constant, and that hardly magnifies how an output is rounded.
            loss = (output.to(torch.float64) * torch.linspace(0.5, 1.5, width, device=device)).sum()
            results.append([output, *torch.autograd.grad(loss, leaves)])
        with torch.no_grad():
            _apply(kernel, inputs, "triton")
        distances = [
            ((got.double() - want).norm() / want.norm().clamp(min=1e-30)).item()
            for got, want in zip(*results, strict=True)
        ]
        worst = max(worst, *(d if d == d else float("inf") for d in distances))
        tell(distance=worst)
        if worst > 2e-2:
            sys.exit(f"{kernel} is wrong: {distances}")


def _apply(kernel: str, inputs: list, backend: str) -> Any:
    from torch import nn

    from vmrnn_cli import scan

    if kernel == "scan":
        return scan.selective_scan(*inputs, backend)
    if kernel == "conv_silu":
        return scan.conv_silu(*inputs, backend)
    y, z, weight, bias = inputs
    norm = nn.LayerNorm(len(weight), device=y.device)
    del norm.weight, norm.bias  # parameters, which would be other leaves than these
    norm.weight, norm.bias = weight, bias
    return scan.norm_gate(y, z, norm, backend)


# ----------------------------------------------------------------------------------------------------------------------
# The phases


class Call:
    """One call: its options, its time and what it has found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, options.out
        self.began, self.end = time.monotonic(), time.monotonic() + options.budget
        self.log, self.workers = self.out / "log.txt", os.cpu_count() or 1
        self.results: dict[str, Any] = {"arguments": sys.argv[1:], "began": time.strftime("%Y-%m-%d %H:%M:%S")}
        self.failed: set[str] = set()

    def write(self) -> None:
        temporary = self.out / "results.json.part"
        temporary.write_text(json.dumps(self.results, indent=1) + "\n")
        temporary.replace(self.out / "results.json")

    def limit(self, letter: str) -> float:
        """The moment when a phase is stopped."""
        seconds = self.options.budget if self.options.rehearse else LIMITS[letter]  # a CPU that is busy takes long
        return min(self.end - MARGIN, time.monotonic() + seconds)

    def phase(
        self, letter: str, jobs: list[Job], workers: int, until: float | None = None, *, live: bool = False
    ) -> list[Outcome]:
        """Run the jobs of a phase, and keep what each finds."""
        known = self.results.setdefault(letter, {})
        began = time.monotonic()

        def done(outcome: Outcome) -> None:
            known[outcome.job.name] = outcome.facts()
            self.failed |= set(outcome.blamed())
            self.write()

        until = until or self.limit(letter)
        outcomes = run_jobs(jobs, until, workers=workers, log=self.log, done=done, live=live)
        counts = {end: sum(o.ended == end for o in outcomes) for end in ("passed", "failed", "stopped", "skipped")}
        said = ", ".join(f"{count} {end}" for end, count in counts.items() if count)
        self.say(f"{letter}: {said}, {time.monotonic() - began:.0f} s")
        for outcome in outcomes:
            if outcome.ended == "failed":
                last = [line for line in outcome.output.splitlines() if line.strip()][-1:]
                self.say(f"   {outcome.job.name} failed: {''.join(last)[:200]}")
        return outcomes

    def say(self, line: str) -> None:
        print(line, flush=True)
        with self.log.open("a") as stream:
            stream.write(line + "\n")

    # ---- a, b, c, d

    def a(self) -> None:
        """What is there, and first launches."""
        own = [sys.executable, str(HERE / "gpu_all.py")]
        rehearse = ["--rehearse"] if self.options.rehearse else []
        environment = {"TRITON_INTERPRET": "1"} if rehearse else {}
        jobs = [Job("look", [*own, "--look"])]
        widths = (8,) if rehearse else WIDTHS
        for kernel in () if rehearse else KERNELS[1:]:
            for width in widths:
                jobs.append(Job(f"{kernel} {width}", [*own, "--launch", kernel, str(width), "0"], (kernel,)))
        for choice in range(1 if rehearse else CHOICES):  # these take long
            for width in widths:
                command = [*own, "--launch", "scan", str(width), str(choice), *rehearse]
                jobs.append(Job(f"scan {width}, choice {choice}", command, ("scan",), environment))
        self.phase("a", jobs, self.workers)

    def b(self) -> None:
        """tests/test_gpu.py, test by test."""
        device = {"VMRNN_TEST_GPU": "cuda"}
        if self.options.rehearse:
            device = {"VMRNN_TEST_GPU": "cpu", "TRITON_INTERPRET": "1"}
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default"]
        environment = {**device, "OMP_NUM_THREADS": "2"}
        until = self.limit("b")
        collect = Job("list", [*pytest, "--collect-only", "tests/test_gpu.py"], (), device)
        (listed,) = self.phase("b", [collect], 1, until)
        names = [line for line in listed.output.splitlines() if line.startswith("tests/test_gpu.py::")]
        if self.options.rehearse:
            names = [name for name in names if "other_numbers_of_states[1]" in name]
        jobs = []
        for name in names:
            short = name.partition("::")[2]
            jobs.append(Job(short, [*pytest, name], TESTS.get(short.partition("[")[0], ()), environment))
        self.phase("b", jobs, self.workers, until)

    def c(self) -> None:
        """benchmarks/gpu.py --quick."""
        command = [sys.executable, str(HERE / "gpu.py"), "--out", str(self.out / "speed.json")]
        rehearse = self.options.rehearse
        job = Job(
            "gpu.py", [*command, *(["--smoke", "--only", "ceilings"] if rehearse else ["--quick"])], (),
            {"TRITON_INTERPRET": "1"} if rehearse else {},
        )  # fmt: skip
        self.phase("c", [job], 1, live=True)

    def d(self) -> None:
        """The training, on the fastest path that passed; where it breaks, on the next."""
        known = self.results.setdefault("d", {})
        resume = self.options.resume
        for way in ways(self.failed, mamba="mamba-ssm" in self._versions(), rehearse=self.options.rehearse):
            seconds = self.end - MARGIN - time.monotonic()
            if not self.options.rehearse and seconds < LEAST:
                self.say("d: too little time is left")
                return
            with tempfile.TemporaryDirectory() as folder:
                report = Path(folder) / "report.json"
                command = [sys.executable, str(HERE / "gpu_train.py"), str(self.options.data), "--out", str(self.out)]
                command += ["--report", str(report), *way, *self.options.train]
                command += ["--resume", str(resume)] if resume else []
                if self.options.rehearse:
                    command += ["--tiny", "--device", "cpu", "--clips", "8", "--every", "0"]
                    command += ["--eval", "4", "--test", "6", "--seconds", str(seconds)]
                else:
                    command += ["--until", str(time.time() + seconds)]
                began = time.monotonic()
                (outcome,) = run_jobs(
                    [Job("gpu_train.py", command)], self.end - MARGIN / 3, workers=1, log=self.log,
                    done=lambda _: None, live=True,
                )  # fmt: skip
                told = json.loads(report.read_text()) if report.exists() else {}
            known[" ".join(way)] = outcome.facts() | told
            self.write()
            last = "".join([line for line in outcome.output.splitlines() if line.strip()][-1:])[:200]
            self.say(f"d: {' '.join(way)}: {outcome.ended} after {time.monotonic() - began:.0f} s: {last}")
            if outcome.ended == "passed":
                return
            if told.get("progress", {}).get("steps"):  # it was under way: not all is lost
                resume = self.out

    def _versions(self) -> dict[str, str]:
        return self.results.get("a", {}).get("look", {}).get("versions", {})


def ways(failed: set[str], *, mamba: bool = False, rehearse: bool = False) -> list[list[str]]:
    """Options of gpu_train.py for each way to train, the fastest first, without what failed (kernels, or the graph)."""
    plain = [kernel for kernel in KERNELS[1:] if kernel in failed]
    graphs = [[]] if "graph" not in failed else []
    found: list[list[str]] = []
    if rehearse:
        return [["--scan", "auto"], ["--scan", "torch", "--no-graph"]]
    if "scan" not in failed:
        for without in (plain, list(KERNELS[1:])):
            found += [["--scan", "triton", *(["--plain", *without] if without else []), *graph] for graph in graphs]
        found.append(["--scan", "triton", *(["--plain", *plain] if plain else []), "--no-graph"])
    if mamba:
        found += [["--scan", "mamba", *graph] for graph in [*graphs, ["--no-graph"]]]
    found += [["--scan", "torch", *graph] for graph in [*graphs, ["--no-graph"]]]
    return [way for number, way in enumerate(found) if way not in found[:number]]


def make_digits(folder: Path) -> None:
    """MNIST's files with a few drawn digits in them, for the rehearsal."""
    import struct

    import numpy as np

    from vmrnn_cli.data.moving_mnist import FILES
    from vmrnn_cli.digits import draw_digit

    images = np.stack([draw_digit(value, np.random.default_rng(value)) for value in range(10)])
    for name in FILES.values():
        (folder / name).write_bytes(struct.pack(">IIII", 0x803, *images.shape) + images.tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with MNIST's four idx files, gzipped or not")
    parser.add_argument("--out", type=Path, default=TOP / "runs" / "gpu", help="the folder of results")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="the training goes on from the checkpoint there")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds for all of it")
    parser.add_argument("--only", nargs="+", choices="abcd", default=list("abcd"))
    parser.add_argument("--train", default="", metavar="OPTIONS", help="of gpu_train.py: --train='--lr 0.004'")
    parser.add_argument("--rehearse", action="store_true", help="all of it on a CPU, tiny")
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--launch", nargs=3, metavar=("KERNEL", "WIDTH", "CHOICE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look:
        look()
        return 0
    if options.launch:
        kernel, width, choice = options.launch
        launch(kernel, int(width), int(choice), options.rehearse)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through what ends the processes
    with tempfile.TemporaryDirectory() as folder:
        if options.rehearse:
            sys.path.insert(0, str(TOP))
            make_digits(Path(folder))
            options.data = Path(folder)
        elif "d" in options.only:  # it comes last: say at once what it lacks
            for prefix in ("train-images", "t10k-images"):
                if options.data is None or not any(options.data.glob(f"{prefix}-idx3-ubyte*")):
                    parser.error("the training wants --data, a folder with MNIST's idx files of images")
            if options.resume and not (options.resume / "network-1.safetensors").exists():
                parser.error(f"there is no checkpoint in {options.resume}")
        options.out.mkdir(parents=True, exist_ok=True)
        options.out, options.data = options.out.resolve(), options.data and options.data.resolve()
        options.resume = options.resume and options.resume.resolve()
        options.train = shlex.split(options.train)
        call = Call(options)
        call.log.write_text("")
        for letter in options.only:
            try:
                getattr(call, letter)()
            except Exception as error:  # costs only this phase
                call.results.setdefault(letter, {})["error"] = f"{type(error).__name__}: {error}"
                call.say(f"{letter}: {type(error).__name__}: {error}")
            call.write()
    print(f"results in {options.out}, {time.monotonic() - call.began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
