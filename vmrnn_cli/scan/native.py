"""The scan and its two neighbours in C, called through a plain C interface.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states (up to 16), R rank of dt, K = 4 directions.

The library is compiled when the package is installed from source, or comes with the wheel, compiled for each platform;
there is one for each instruction set, and the best one this processor runs is loaded at first use. It links no
threading runtime: a kernel is run by a *team* of threads that draw tasks from a shared counter. The team is the one
PyTorch's own OpenMP runtime keeps (so that two pools do not fight over the cores), or Python threads where that runtime
is not GNU-compatible. Results do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
import sysconfig
import threading
from ctypes import c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

MAX_STATES = 16
MAX_RANK = 128
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")  # in the order of vmrnn_instruction_set()
ISA_VARIABLE = "VMRNN_NATIVE_ISA"
_KERNELS = (
    "scan_forward", "scan_backward", "conv_forward", "conv_backward", "gate_forward", "gate_backward", "block_forward",
    "cell_forward",
)  # fmt: skip
_NO_SPACE = "the scan's work space could not be allocated"


def fields(ints: str, longs: str, floats: str, pointers: str) -> list[tuple[str, type]]:
    """The fields of a job, in the order that the structures in C have: int32, int64, float, pointers."""
    kinds = ((ints, c_int32), (longs, c_int64), (floats, c_float), (pointers, c_void_p))
    return [(name, kind) for names, kind in kinds for name in names.split()]


class _ScanJob(ctypes.Structure):
    _fields_ = fields(
        "next tasks failed B H W D R N groups keep",
        "",
        "",
        "x x_dbl dt_weight dt_bias A_logs Ds y states dy dx dx_dbl d_weights",
    )


class _ConvJob(ctypes.Structure):
    _fields_ = fields("next tasks failed B H W D bands", "stride", "", "x weight bias y dy dx d_weights")


class _GateJob(ctypes.Structure):
    _fields_ = fields("next tasks failed D", "rows stride", "eps", "y z weight bias out dout dy dz d_weights")


class Library:
    """One compiled object and the team that runs its kernels."""

    def __init__(self, path: Path, instruction_set: str) -> None:
        self._dll = ctypes.CDLL(str(path))
        if missing := [name for name in _KERNELS if not hasattr(self._dll, f"vmrnn_{name}")]:
            raise OSError(f"{path} is of another version of vmrnn and has no {missing[0]}: install vmrnn again")
        self.instruction_set = instruction_set
        self.lanes: int = self._dll.vmrnn_lanes()
        self.tile: int = self._dll.vmrnn_tile()
        self.panel: int = self._dll.vmrnn_panel()
        self.kernels = {}
        for name in _KERNELS:
            kernel = getattr(self._dll, f"vmrnn_{name}")
            kernel.argtypes, kernel.restype = [c_void_p], None
            self.kernels[name] = (kernel, ctypes.cast(kernel, c_void_p))

    def call(self, name: str, job: ctypes.Structure) -> None:
        """Run one kernel that shares its work among threads itself."""
        self.kernels[name][0](ctypes.byref(job))
        if job.failed:
            raise MemoryError(_NO_SPACE)

    def run(self, name: str, job: ctypes.Structure) -> None:
        """Run one kernel on `torch.get_num_threads()` threads and wait for it."""
        kernel, address = self.kernels[name]
        threads = min(torch.get_num_threads(), job.tasks)
        argument = ctypes.byref(job)
        openmp = _openmp_team()
        if threads == 1:
            kernel(argument)
        elif openmp is not None:
            openmp(address, argument, threads, 0)
        else:
            others = [threading.Thread(target=kernel, args=(argument,)) for _ in range(threads - 1)]
            for other in others:
                other.start()
            kernel(argument)
            for other in others:
                other.join()
        if job.failed:
            raise MemoryError(_NO_SPACE)


@functools.cache
def _openmp_team() -> ctypes._CFuncPtr | None:  # type: ignore[name-defined]
    """`GOMP_parallel(function, data, threads, flags)` of the OpenMP runtime that PyTorch has loaded, if it has one."""
    if os.name != "posix":
        return None
    team = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if team is not None:
        team.argtypes, team.restype = [c_void_p, c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return team


def team_address() -> int | None:
    """Where `_openmp_team` is, for kernels that call it; None without one."""
    team = _openmp_team()
    return None if team is None else ctypes.cast(team, c_void_p).value


def platform_name() -> str:
    """The operating system and the processor that Python is for, as prebuilt objects name them."""
    system = {"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
    # On Windows, Python may be one for another processor, which Windows emulates.
    machine = sysconfig.get_platform().rpartition("-")[2] if system == "windows" else platform.machine()
    return f"{system}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine.lower(), machine.lower()) }"


def object_path(instruction_set: str) -> Path:
    """Where the object for an instruction set is, or would be: compiled here, else as the wheel brings it."""
    here = Path(__file__).with_name(f"_native_{instruction_set}.so")
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    brought = Path(__file__).parent / "prebuilt" / f"{platform_name()}-{instruction_set}{suffix}"
    return here if here.exists() else brought


def origin() -> str:
    """Whose objects run, in words."""
    return f"prebuilt for {platform_name()}" if object_path("baseline").parent.name == "prebuilt" else "compiled here"


@functools.cache
def load(instruction_set: str | None = None) -> Library:
    """Load the best object this processor runs, or the named one.

    Raises:
        OSError: no object was compiled, or the named one is missing or too new for this processor.
    """
    baseline = object_path("baseline")
    if not baseline.exists():
        raise OSError(
            "the native scan was not compiled when vmrnn was installed (no C compiler found), and none came with it "
            f"for {platform_name()}"
        )
    supported = INSTRUCTION_SETS[: 1 + ctypes.CDLL(str(baseline)).vmrnn_instruction_set()]
    wanted = instruction_set or os.environ.get(ISA_VARIABLE)
    if wanted is not None:
        if wanted not in supported or not object_path(wanted).exists():
            raise OSError(f"no native scan for instruction set {wanted!r} on this machine")
        return Library(object_path(wanted), wanted)
    best = next(isa for isa in reversed(supported) if object_path(isa).exists())
    return Library(object_path(best), best)


def why_unavailable() -> str | None:
    """Why the native backend cannot be used, or None if it can."""
    try:
        load()
    except OSError as error:
        return str(error)
    return None


def kept_shape(shape: tuple[int, ...], K: int, N: int) -> tuple[int, ...]:
    """Shape of the states kept for the backward pass, for x of `shape` (B, H, W, D)."""
    B, H, W, D = shape
    lanes, tile = load().lanes, load().tile
    return (B, -(-D // lanes), K, -(-H * W // tile), N, lanes)


def _contiguous(*tensors: Tensor) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def _scan_job(
    x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, **rest: int
) -> _ScanJob:
    B, H, W, D = x.shape
    return _ScanJob(
        B=B, H=H, W=W, D=D, R=dt_weight.shape[-1], N=A_logs.shape[-1], x=x.data_ptr(), x_dbl=x_dbl.data_ptr(),
        dt_weight=dt_weight.data_ptr(), dt_bias=dt_bias.data_ptr(), A_logs=A_logs.data_ptr(), Ds=Ds.data_ptr(), **rest,
    )  # fmt: skip


def scan_forward(
    x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """See `vmrnn_cli.scan.selective_scan`; also the states kept for the backward pass (empty without `keep`)."""
    library = load()
    x, x_dbl, dt_weight, dt_bias, A_logs, Ds = _contiguous(x, x_dbl, dt_weight, dt_bias, A_logs, Ds)
    B, _, _, D = x.shape
    y = torch.empty_like(x)
    states = x.new_empty(kept_shape(x.shape, len(dt_weight), A_logs.shape[-1]) if keep else 0)
    job = _scan_job(
        x, x_dbl, dt_weight, dt_bias, A_logs, Ds,
        tasks=B * -(-D // library.lanes), keep=keep, y=y.data_ptr(), states=states.data_ptr() if keep else 0,
    )  # fmt: skip
    library.run("scan_forward", job)
    return y, states


def scan_backward(
    dy: Tensor, x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, states: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the six inputs of `scan_forward`."""
    library = load()
    dy, x, x_dbl, dt_weight, dt_bias, A_logs, Ds = _contiguous(dy, x, x_dbl, dt_weight, dt_bias, A_logs, Ds)
    B, H, W, D = x.shape
    K, _, R = dt_weight.shape
    N = A_logs.shape[-1]
    # Enough tasks for a few threads even at batch 1; fixed by the shape, so that sums do not depend on the threads.
    groups = min(-(-D // library.lanes), -(-8 // B))
    dx = torch.empty_like(x)
    dx_dbl = x.new_empty(groups, *x_dbl.shape)
    d_weights = x.new_empty(B, D, K, R + 1 + N + 1)
    job = _scan_job(
        x, x_dbl, dt_weight, dt_bias, A_logs, Ds,
        tasks=B * groups, groups=groups, states=states.data_ptr(), dy=dy.data_ptr(), dx=dx.data_ptr(),
        dx_dbl=dx_dbl.data_ptr(), d_weights=d_weights.data_ptr(),
    )  # fmt: skip
    library.run("scan_backward", job)
    by_direction = d_weights.sum(0).transpose(0, 1)  # (K, D, R+1+N+1)
    d_dt, d_bias, dA, dD = by_direction.split([R, 1, N, 1], dim=-1)
    return (
        dx,
        dx_dbl.sum(0) if groups > 1 else dx_dbl[0],
        d_dt,
        d_bias.squeeze(-1),
        dA.reshape(K * D, N),
        dD.reshape(K * D),
    )


def token_stride(x: Tensor) -> tuple[Tensor, int]:
    """x (B, H, W, D) as it is when its tokens are evenly spaced (one half of a wider tensor), else a copy."""
    B, H, W, D = x.shape
    stride = x.stride(2)
    if x.stride() != (H * W * stride, W * stride, stride, 1):
        x, stride = x.contiguous(), D
    return x, stride


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the depthwise 3x3 convolution of x (B, H, W, D), weight (D, 1, 3, 3), bias (D,)."""
    library = load()
    x, stride = token_stride(x)
    weight, bias = _contiguous(weight, bias)
    B, H, W, D = x.shape
    y = x.new_empty(B, H, W, D)
    bands = min(H, -(-8 // B))
    job = _ConvJob(
        tasks=B * bands, B=B, H=H, W=W, D=D, bands=bands, stride=stride,
        x=x.data_ptr(), weight=weight.data_ptr(), bias=bias.data_ptr(), y=y.data_ptr(),
    )  # fmt: skip
    library.run("conv_forward", job)
    return y


def conv_backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the inputs of `conv_forward`."""
    library = load()
    x, stride = token_stride(x)
    dy, weight, bias = _contiguous(dy, weight, bias)
    B, H, W, D = x.shape
    dx, d_weights = x.new_empty(B, H, W, D), x.new_empty(B, D, 10)
    job = _ConvJob(
        tasks=B * -(-D // library.lanes), B=B, H=H, W=W, D=D, stride=stride, x=x.data_ptr(), weight=weight.data_ptr(),
        bias=bias.data_ptr(), dy=dy.data_ptr(), dx=dx.data_ptr(), d_weights=d_weights.data_ptr(),
    )  # fmt: skip
    library.run("conv_backward", job)
    d_weights = d_weights.sum(0)
    return dx, d_weights[:, :9].reshape(weight.shape), d_weights[:, 9]


def gate_forward(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm(y) * SiLU(z), both (B, H, W, D)."""
    library = load()
    z, stride = token_stride(z)
    y, weight, bias = _contiguous(y, weight, bias)
    D = y.shape[-1]
    rows = y.numel() // D
    out = torch.empty_like(y)
    job = _GateJob(
        tasks=min(rows, 16), D=D, rows=rows, stride=stride, eps=eps,
        y=y.data_ptr(), z=z.data_ptr(), weight=weight.data_ptr(), bias=bias.data_ptr(), out=out.data_ptr(),
    )  # fmt: skip
    library.run("gate_forward", job)
    return out


def gate_backward(
    dout: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs of `gate_forward`."""
    library = load()
    z, stride = token_stride(z)
    dout, y, weight, bias = _contiguous(dout, y, weight, bias)
    D = y.shape[-1]
    rows = y.numel() // D
    tasks = min(rows, 16)
    dy, dz, d_weights = torch.empty_like(y), torch.empty_like(y), y.new_empty(tasks, 2, D)
    job = _GateJob(
        tasks=tasks, D=D, rows=rows, stride=stride, eps=eps, y=y.data_ptr(), z=z.data_ptr(), weight=weight.data_ptr(),
        bias=bias.data_ptr(), dout=dout.data_ptr(), dy=dy.data_ptr(), dz=dz.data_ptr(), d_weights=d_weights.data_ptr(),
    )  # fmt: skip
    library.run("gate_backward", job)
    return dy, dz, d_weights[:, 0].sum(0), d_weights[:, 1].sum(0)
