"""A recurrent cell of VSS blocks in C, a call for each block: what inference on CPUs runs in place of the modules.

Notation: B batch, H x W grid of tokens, L = H*W, E embedding width, D = 2E inner width, N states, R rank of dt, K = 4
directions.

A small network's step is bound by what lies between its operators. So layer norms, projections, convolution, scan and
gate of a block are one call, which uses the same threads as `native`; sums have one order, whatever the number of
threads. The weights of the projections are laid out for it once, and again when they change.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import native

# The block's modules, and where the kernel's weights are in them.
_MODULES = {
    "norm": nn.LayerNorm, "mix": nn.Linear, "ss2d.in_proj": nn.Linear, "ss2d.conv2d": nn.Conv2d,
    "ss2d.out_norm": nn.LayerNorm, "ss2d.out_proj": nn.Linear,
}  # fmt: skip
_WEIGHTS = {
    "norm_weight": "norm.weight", "norm_bias": "norm.bias", "mix": "mix.weight", "mix_bias": "mix.bias",
    "in_proj": "ss2d.in_proj.weight", "conv_weight": "ss2d.conv2d.weight", "conv_bias": "ss2d.conv2d.bias",
    "x_proj": "ss2d.x_proj_weight", "dt_weight": "ss2d.dt_projs_weight", "dt_bias": "ss2d.dt_projs_bias",
    "A_logs": "ss2d.A_logs", "Ds": "ss2d.Ds", "gate_weight": "ss2d.out_norm.weight",
    "gate_bias": "ss2d.out_norm.bias", "out_proj": "ss2d.out_proj.weight",
}  # fmt: skip
_PROJECTIONS = ("mix", "in_proj", "x_proj", "out_proj")
_ALONE = 2**15  # numbers in a block's tokens up to which one thread is enough, where there is no team


class _BlockJob(ctypes.Structure):
    _fields_ = native.fields(
        "next tasks failed B H W E D R N threads",
        "",
        "eps gate_eps",
        "team tokens hidden norm_weight norm_bias mix mix_bias in_proj conv_weight conv_bias x_proj dt_weight dt_bias"
        " A_logs Ds gate_weight gate_bias out_proj xz x x_dbl y out",
    )


class _CellJob(ctypes.Structure):
    _fields_ = native.fields("next tasks failed", "count", "", "o cell hidden new_cell")


class _Plan(NamedTuple):
    """A block as the kernel takes it.

    modules : each of its modules, and the dictionary and the name under which it was
    places : the same of its parameters
    versions : where the parameters were, and how often they had been changed, when this was made
    job : all that stays from call to call
    held : the tensors that the job points to
    """

    modules: list[tuple[nn.Module, dict[str, Any], str]]
    places: list[tuple[dict[str, Any], str]]
    versions: list[tuple[int, int]]
    job: _BlockJob
    held: list[Tensor]


_plans: weakref.WeakKeyDictionary[nn.Module, _Plan] = weakref.WeakKeyDictionary()


def forward(blocks: Iterable[Any], tokens: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor] | None:
    """The new hidden state and the new state of the cell, each (B, H, W, E); None where the modules have to run.

    Args:
        blocks: the cell's `model.VSB`, whose scan is to be native.
        tokens: (B, H, W, E), as the others float32 on the CPU, of which nothing wants a gradient.
        hidden: likewise.
        cell: likewise.
    """
    team, threads = native.team_address(), torch.get_num_threads()
    if not team and threads > 1 and tokens.numel() > _ALONE:
        return None
    library, plans = native.load(), []
    for block in blocks:
        plan = _plan(block, library.panel)
        if plan is None:
            return None
        plans.append(plan)
    out, first, work = tokens.contiguous(), hidden.contiguous(), None
    for plan in plans:
        job = _BlockJob.from_buffer_copy(plan.job)
        job.team, job.threads = team, threads
        out, work = _run(library, job, out, first, work)
    cell = cell.contiguous()
    new_hidden, new_cell, count = torch.empty_like(cell), torch.empty_like(cell), cell.numel()
    library.run("cell_forward", _CellJob(
        tasks=-(-count // 8192), count=count, o=out.data_ptr(), cell=cell.data_ptr(), hidden=new_hidden.data_ptr(),
        new_cell=new_cell.data_ptr(),
    ))  # fmt: skip
    return new_hidden, new_cell


def _run(
    library: native.Library, job: _BlockJob, tokens: Tensor, hidden: Tensor, work: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A block's output, and its work space, which the next block can have."""
    job.B, job.H, job.W, _ = tokens.shape
    rows, D, S = job.B * job.H * job.W, job.D, 4 * (job.R + 2 * job.N)
    if work is None or work.numel() < rows * (4 * D + S):
        work = tokens.new_empty(rows * (4 * D + S))
    out, start = torch.empty_like(tokens), work.data_ptr()
    job.xz, job.x, job.y, job.x_dbl = start, start + 8 * rows * D, start + 12 * rows * D, start + 16 * rows * D
    job.tokens, job.out = tokens.data_ptr(), out.data_ptr()
    job.hidden = hidden.data_ptr() if job.mix else None
    library.call("block_forward", job)
    return out, work


def _plan(block: Any, panel: int) -> _Plan | None:
    """How to run a block; None where its modules do more than the kernel knows."""
    plan = _plans.get(block)
    if (
        plan is None
        or any(holder.get(name) is not module for module, holder, name in plan.modules)
        or [_version(holder.get(name)) for holder, name in plan.places] != plan.versions
    ):
        plan = _make_plan(block, panel)
        if plan is None:
            return None
        _plans[block] = plan
    drops = block.drop_path.training and block.drop_path.rate > 0
    listened_to = any(module._forward_hooks or module._forward_pre_hooks for module, _, _ in plan.modules)
    return None if drops or listened_to or block._forward_hooks or block._forward_pre_hooks else plan


def _version(t: Tensor | None) -> tuple[int, int]:
    return (0, 0) if t is None else (t.data_ptr(), t._version)


def _make_plan(block: Any, panel: int) -> _Plan | None:
    modules, places, weights = [], [], {}
    for path, kind in _MODULES.items():
        above, _, name = path.rpartition(".")
        holder = block.get_submodule(above)._modules
        if holder.get(name) is None:
            continue  # `mix`, of all blocks of a cell but the first
        if type(holder[name]) is not kind:
            return None
        modules.append((holder[name], holder, name))
    modules.append((block.ss2d, block._modules, "ss2d"))
    for field, path in _WEIGHTS.items():
        above, _, name = path.rpartition(".")
        if block.mix is None and above == "mix":
            continue
        holder = block.get_submodule(above)._parameters
        t = holder.get(name)
        if type(t) is not nn.Parameter or t.dtype != torch.float32 or t.device.type != "cpu" or t.is_inference():
            return None  # replaced, parametrised, in another type, or of no version
        places.append((holder, name))
        weights[field] = t.detach()
    tensors = {
        field: _packed(t.flatten(0, -2), panel) if field in _PROJECTIONS else t.contiguous()
        for field, t in weights.items()
    }
    K, D, R = weights["dt_weight"].shape
    job = _BlockJob(
        E=weights["in_proj"].shape[1], D=D, R=R, N=weights["A_logs"].shape[1], eps=block.norm.eps,
        gate_eps=block.ss2d.out_norm.eps, **{field: t.data_ptr() for field, t in tensors.items()},
    )  # fmt: skip
    versions = [_version(holder[name]) for holder, name in places]
    return _Plan(modules, places, versions, job, list(tensors.values()))


def _packed(weight: Tensor, panel: int) -> Tensor:
    """(outputs, inputs) -> (panels, inputs, panel), zeros beyond the last output: see product.h."""
    padded = F.pad(weight, (0, 0, 0, -len(weight) % panel))
    return padded.unflatten(0, (-1, panel)).transpose(1, 2).contiguous()
