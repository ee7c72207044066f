"""The 2-D selective scan of SS2D and its two neighbours, each one call with interchangeable backends.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states, R rank of dt, K = 4 directions
(0 rows, 1 columns, 2 rows reversed, 3 columns reversed).

For each direction k, over its tokens l in the order in which it visits them (paper, section 3.1; Mamba's S6):

    delta_l = softplus(dt_weight[k] @ dt_r_l + dt_bias[k])              A = -exp(A_logs[k])
    s_l     = exp(delta_l * A) * s_{l-1} + delta_l * B_l * x_l          y_l = <C_l, s_l> + Ds[k] * x_l

and the four results are added where they belong. No direction is ever flipped or transposed in memory, and no
(B, L, D, N) tensor exists outside `reference`. The state is float32 whatever the inputs are (float64 for float64).

Backends: `native` (C, for CPUs), `triton` (NVIDIA GPUs), `mamba` (the kernel of the package mamba-ssm, as the published
code calls it, on NVIDIA GPUs), `torch` (blocked, any device and float type), `reference` (the definition as a loop).
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from . import cells, mamba, native, operators

BACKENDS = ("native", "triton", "mamba", "torch", "reference")  # "auto" takes the first that can run
_GPU_ONLY = ("triton", "mamba")
_CAPABILITY = {"triton": (7, 5), "mamba": (8, 0)}
_TRITON_STATES, _TRITON_RANK = 64, 128


def why_unavailable(backend: str, device: torch.device | str, d_state: int = 16, rank: int = 1) -> str | None:
    """Why `backend` cannot run N = `d_state` and R = `rank` on `device`, in words, or None if it can."""
    if backend not in BACKENDS:
        return f"there is no such backend (known: auto, {', '.join(BACKENDS)})"
    if backend == "native":
        if torch.device(device).type != "cpu":
            return "it runs on the CPU only"
        if d_state > native.MAX_STATES:
            return f"it is compiled for up to {native.MAX_STATES} states, not {d_state}"
        if rank > native.MAX_RANK:
            return f"it is compiled for a rank of dt up to {native.MAX_RANK}, not {rank}"
        return native.why_unavailable()
    if backend in _GPU_ONLY and not (backend == "triton" and torch.device(device).type == "cpu" and _interpreted()):
        if torch.device(device).type != "cuda":
            return "it runs on NVIDIA GPUs only"
        if not torch.cuda.is_available():
            return "PyTorch finds no GPU"
        least = _CAPABILITY[backend]
        if torch.cuda.get_device_capability(device) < least:
            return f"it needs a GPU of compute capability {least[0]}.{least[1]} or later"
    if backend == "triton":
        if d_state > _TRITON_STATES or rank > _TRITON_RANK:
            return f"its registers hold up to {_TRITON_STATES} states and a rank of dt up to {_TRITON_RANK}"
        return _why_no_triton() or _why_no_launch(str(device))
    if backend == "mamba":
        return mamba.why_unavailable()
    return None


def _interpreted() -> bool:
    """Whether Triton's own switch makes its kernels run on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@functools.cache
def _why_no_triton() -> str | None:
    try:
        installed = importlib.import_module("triton").__version__  # its package has several names
    except ModuleNotFoundError:
        return "the package triton is not installed (a CUDA build of PyTorch brings it on Linux)"
    except Exception as error:  # a broken installation fails in its own ways
        return f"triton is installed but its import fails: {type(error).__name__}: {error}"
    if tuple(int(part) for part in installed.split(".")[:2]) < (3, 3):
        return f"it needs Triton 3.3 or later, as PyTorch 2.7 and later bring it; this is {installed}"
    try:
        importlib.import_module(".triton", __name__)
    except Exception as error:
        return f"triton {installed} is installed but our kernels' import fails: {type(error).__name__}: {error}"
    return None


@functools.cache
def _why_no_launch(device: str) -> str | None:
    """Triton builds its launcher with a C compiler when a kernel first runs: try one before a model needs it."""
    kernels = importlib.import_module(".triton", __name__)
    try:
        kernels.conv_forward(*(torch.zeros(shape, device=device) for shape in ((1, 1, 1, 1), (1, 1, 3, 3), (1,))))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        return f"its first kernel fails: {type(error).__name__}: {reason} (it needs a C compiler and Python's headers)"
    return None


def pick_backend(backend: str, device: torch.device | str, d_state: int = 16, rank: int = 1) -> str:
    """The backend that runs: `backend` itself, or for "auto" the fastest one that can.

    Raises:
        InputError: the named backend cannot run here; says why.
    """
    if backend == "auto":
        on_gpu = torch.device(device).type == "cuda"
        names = [name for name in BACKENDS if on_gpu or name not in _GPU_ONLY]  # never the interpreter
        return next(name for name in names if why_unavailable(name, device, d_state, rank) is None)
    reason = why_unavailable(backend, device, d_state, rank)
    if reason is not None:
        raise InputError(f"scan backend '{backend}' is not available: {reason}", "use `auto`, or see `vmrnn doctor`")
    return backend


def in_words(backend: str, device: torch.device | str, d_state: int, rank: int) -> str:
    """A backend in words; where a GPU does without a kernel of its own, why."""
    if backend == "native":
        return f"native ({native.load().instruction_set})"
    if backend == "torch" and torch.device(device).type == "cuda":
        reason = why_unavailable("triton", device, d_state, rank)
        return f"torch (slow on GPUs; triton is not available: {reason})" if reason else "torch (slow on GPUs)"
    return backend


def selective_scan(
    x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, backend: str
) -> Tensor:
    """Scan in four directions and sum.

    Args:
        x: (B, H, W, D), any float type.
        x_dbl: (B, H, W, K, R + 2N), per direction dt_r, B, C, all read at the token's own place.
        dt_weight: (K, D, R).
        dt_bias: (K, D).
        A_logs: (K*D, N).
        Ds: (K*D,).
        backend: a name of `BACKENDS`, see `pick_backend`.

    Returns:
        (B, H, W, D), float32 (float64 for float64 inputs).
    """
    inputs: tuple[Tensor, ...] = (x, x_dbl, dt_weight, dt_bias, A_logs, Ds)
    if x.dtype == torch.float64 and backend != "reference":  # the others compute in float32
        backend = "torch"
    if backend == "mamba":
        with torch.autocast(x.device.type, enabled=False):
            return mamba.selective_scan(*inputs)
    if x.dtype != torch.float64 and backend != "triton":  # Triton's kernels convert as they load
        inputs = tuple(t.float() for t in inputs)
    if may_call_directly(*inputs):
        y, _ = operators.run_scan(inputs, backend, False)
        return y
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    y, _ = operators.selective_scan(*inputs, backend, keep)
    return y


def may_call_directly(*tensors: Tensor) -> bool:
    """Whether nobody but us looks at what is computed: no gradient, compiler, tracer, transform or dispatch mode.

    Then kernels are called past PyTorch's dispatcher, which takes longer than a small kernel does, and whose first call
    of an operator written in Python imports a compiler.
    """
    return not (
        (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(type(t) not in (Tensor, torch.nn.Parameter) for t in tensors)
    )


def _is_fused(backend: str, t: Tensor) -> bool:
    """Whether a backend has its own kernels for the scan's neighbours in this type."""
    return (backend == "native" and t.dtype == torch.float32) or (backend == "triton" and t.dtype != torch.float64)


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, backend: str) -> Tensor:
    """SiLU of a depthwise 3x3 convolution: x (B, H, W, D), weight (D, 1, 3, 3), bias (D,) -> (B, H, W, D)."""
    if bias is not None and _is_fused(backend, x):
        if may_call_directly(x, weight, bias):
            return operators.run_conv(x, weight, bias, backend)
        return operators.conv_silu(x, weight, bias, backend)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=x.shape[-1])
    return F.silu(y).permute(0, 2, 3, 1)


def norm_gate(y: Tensor, z: Tensor, norm: torch.nn.LayerNorm, backend: str) -> Tensor:
    """LayerNorm(y) * SiLU(z): y (B, H, W, D) from the scan, z (B, H, W, D) -> (B, H, W, D) in the type of z."""
    if _is_fused(backend, z):
        if may_call_directly(y, z, norm.weight, norm.bias):
            return operators.run_gate(y, z, norm.weight, norm.bias, norm.eps, backend)
        return operators.norm_gate(y, z, norm.weight, norm.bias, norm.eps, backend)
    return norm(y).to(z.dtype) * F.silu(z)


def cell(blocks: Iterable[Any], tokens: Tensor, hidden: Tensor, state: Tensor) -> tuple[Tensor, Tensor] | None:
    """A cell's step in one go: its VSS blocks, and the gate behind them; None where that cannot be.

    It can on CPUs in float32, where nothing is learnt and nobody looks inside; sums of products are taken in another
    order than PyTorch's.

    Args:
        blocks: the cell's `model.VSB`.
        tokens: (B, H, W, E).
        hidden: the hidden state before, (B, H, W, E).
        state: the state of the cell before, likewise.

    Returns:
        The new hidden state and the new state of the cell, (B, H, W, E) each.
    """
    inputs = (tokens, hidden, state)
    if torch.is_grad_enabled() or any(t.dtype != torch.float32 or t.device.type != "cpu" for t in inputs):
        return None
    if torch.is_autocast_enabled("cpu") or not may_call_directly(*inputs):
        return None
    blocks = list(blocks)
    scans = [(block.ss2d.scan_backend, tokens.device, block.ss2d.A_logs.shape[-1], block.ss2d.rank) for block in blocks]
    if any(pick_backend(*scan) != "native" for scan in scans):
        return None
    return cells.forward(blocks, *inputs)
