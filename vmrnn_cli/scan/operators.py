"""The operators as PyTorch sees them: forward, backward and shapes without data (fake); formulas.py counts their FLOPs.

Notation: B batch, H x W grid of tokens, L = H*W, D inner width, N states, R rank of dt, K = 4 directions.
The functions to call are in `vmrnn_cli.scan`; nothing here converts types or chooses a backend.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

Context = Any  # torch.autograd.function.FunctionCtx plus what is stored on it
_SCAN_INPUTS = "Tensor x, Tensor x_dbl, Tensor dt_weight, Tensor dt_bias, Tensor A_logs, Tensor Ds"


def _module(backend: str) -> Any:
    """The module of a backend, imported only when it runs: few machines have what `triton` needs."""
    return importlib.import_module({"torch": ".blocked"}.get(backend, f".{backend}"), __package__)


def _scan_function(backend: str, direction: str) -> Any:
    return getattr(_module(backend), f"scan_{direction}" if backend in ("native", "triton") else direction)


def _full_precision(t: Tensor) -> torch.autocast:
    """Autocast, which may be on around us, must not reach the matrix products inside a scan."""
    return torch.autocast(t.device.type, enabled=False)


_its_device = torch.cuda.device_of  # Triton launches on the current GPU, wherever the tensors are


def _empty(t: Tensor, shape: Any) -> Tensor:
    """What a scan makes: float32 whatever comes in, float64 for float64."""
    return t.new_empty(shape, dtype=torch.promote_types(t.dtype, torch.float32))


def _differentiable(forward: Any, backward: Any, tensors: int) -> None:
    """Let an operator's gradients be those of another, which takes the gradient of its result and all its inputs.

    tensors : how many of the inputs are tensors and come first
    """

    def save(ctx: Context, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.others = inputs[tensors:]  # a default may be left out

    def gradients(ctx: Context, d_output: Tensor) -> tuple:
        return (*backward(d_output, *ctx.saved_tensors, *ctx.others), *(None for _ in ctx.others))

    forward.register_autograd(gradients, setup_context=save)


# ----------------------------------------------------------------------------------------------------------------------
# What the operators run, which inference calls without them


def run_scan(inputs: tuple[Tensor, ...], backend: str, keep: bool) -> tuple[Tensor, Tensor]:
    """As `selective_scan`, of its six tensors."""
    with _full_precision(inputs[0]), _its_device(inputs[0]):
        return _scan_function(backend, "forward")(*inputs, keep)


def run_conv(x: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
    """As `conv_silu`."""
    with _its_device(x):
        return _module(backend).conv_forward(x, weight, bias)


def run_gate(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str) -> Tensor:
    """As `norm_gate`."""
    with _its_device(y):
        return _module(backend).gate_forward(y, z, weight, bias, eps)


# ----------------------------------------------------------------------------------------------------------------------
# Selective scan


@torch.library.custom_op(
    "vmrnn::selective_scan",
    mutates_args=(),
    schema=f"({_SCAN_INPUTS}, str backend, bool keep) -> (Tensor y, Tensor states)",
)
def selective_scan(
    x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, backend: str, keep: bool
) -> tuple[Tensor, Tensor]:
    """y, and with `keep` the states that the backend's backward pass wants (else an empty tensor)."""
    return run_scan((x, x_dbl, dt_weight, dt_bias, A_logs, Ds), backend, keep)


@selective_scan.register_fake
def _(
    x: Tensor, x_dbl: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, backend: str, keep: bool
) -> tuple[Tensor, Tensor]:
    shape = _module(backend).kept_shape(x.shape, len(dt_weight), A_logs.shape[-1]) if keep else (0,)
    return _empty(x, x.shape), _empty(x, shape)


@torch.library.custom_op(
    "vmrnn::selective_scan_backward",
    mutates_args=(),
    schema=f"(Tensor dy, {_SCAN_INPUTS}, Tensor states, str backend)"
    " -> (Tensor dx, Tensor dx_dbl, Tensor d_dt_weight, Tensor d_dt_bias, Tensor dA_logs, Tensor dDs)",
)
def selective_scan_backward(dy: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """Gradients of the six inputs of `selective_scan`."""
    *tensors, backend = inputs
    with _full_precision(dy), _its_device(dy):
        gradients = _scan_function(backend, "backward")(dy, *tensors)
    return tuple(gradient.contiguous() for gradient in gradients)


@selective_scan_backward.register_fake
def _(dy: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in inputs[:6])


def _save_scan(ctx: Context, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6], output[1])
    ctx.backend = inputs[6]
    ctx.set_materialize_grads(False)  # the states have none, and zeros in their place would be as large


def _backward_scan(ctx: Context, dy: Tensor | None, _: None) -> tuple:
    if dy is None:
        return (None,) * 8
    return (*torch.ops.vmrnn.selective_scan_backward(dy, *ctx.saved_tensors, ctx.backend), None, None)


selective_scan.register_autograd(_backward_scan, setup_context=_save_scan)


def scan_flops(B: int, L: int, D: int, N: int, R: int, K: int = 4) -> int:
    """Floating-point operations of one selective scan, an exponential counted as one.

    Per token, channel and direction: 2R for dt, 7 per state (delta A, exp, u B, decay and add, C and add), and 4 for
    the bias, u and the skip connection. Softplus is left out, as elementwise work is elsewhere.
    """
    return B * L * D * K * (7 * N + 2 * R + 4)


# ----------------------------------------------------------------------------------------------------------------------
# Depthwise convolution + SiLU


@torch.library.custom_op(
    "vmrnn::conv_silu",
    mutates_args=(),
    schema='(Tensor x, Tensor weight, Tensor bias, str backend="native") -> Tensor',
)
def conv_silu(x: Tensor, weight: Tensor, bias: Tensor, backend: str = "native") -> Tensor:
    """SiLU(depthwise 3x3 convolution) of x (B, H, W, D) -> (B, H, W, D)."""
    return run_conv(x, weight, bias, backend)


@conv_silu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, backend: str = "native") -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "vmrnn::conv_silu_backward",
    mutates_args=(),
    schema='(Tensor dy, Tensor x, Tensor weight, Tensor bias, str backend="native")'
    " -> (Tensor dx, Tensor d_weight, Tensor d_bias)",
)
def conv_silu_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, backend: str = "native"
) -> tuple[Tensor, ...]:
    """Gradients of the inputs of `conv_silu`."""
    with _its_device(dy):
        return tuple(gradient.contiguous() for gradient in _module(backend).conv_backward(dy, x, weight, bias))


@conv_silu_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, backend: str = "native") -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, weight, bias))


_differentiable(conv_silu, torch.ops.vmrnn.conv_silu_backward, tensors=3)


# ----------------------------------------------------------------------------------------------------------------------
# LayerNorm + gate


@torch.library.custom_op(
    "vmrnn::norm_gate",
    mutates_args=(),
    schema='(Tensor y, Tensor z, Tensor weight, Tensor bias, float eps, str backend="native") -> Tensor',
)
def norm_gate(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str = "native") -> Tensor:
    """LayerNorm(y) * SiLU(z), all (B, H, W, D), in the type of z."""
    return run_gate(y, z, weight, bias, eps, backend)


@norm_gate.register_fake
def _(y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str = "native") -> Tensor:
    return z.new_empty(z.shape)


@torch.library.custom_op(
    "vmrnn::norm_gate_backward",
    mutates_args=(),
    schema='(Tensor d_out, Tensor y, Tensor z, Tensor weight, Tensor bias, float eps, str backend="native")'
    " -> (Tensor dy, Tensor dz, Tensor d_weight, Tensor d_bias)",
)
def norm_gate_backward(
    d_out: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str = "native"
) -> tuple[Tensor, ...]:
    """Gradients of the inputs of `norm_gate`."""
    with _its_device(d_out):
        return _module(backend).gate_backward(d_out, y, z, weight, bias, eps)


@norm_gate_backward.register_fake
def _(
    d_out: Tensor, y: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str = "native"
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (y, z, weight, bias))


_differentiable(norm_gate, torch.ops.vmrnn.norm_gate_backward, tensors=4)
