"""Where and how precisely a model runs: names from the command line to PyTorch's, or one clear line why not."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The device to use; "auto" is CUDA where there is one, else the CPU.

    Raises:
        InputError: no such device, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"there is no device '{name}'", "use auto, cpu, cuda or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device '{name}' was asked for, but PyTorch finds no such GPU", "use --device cpu, or see `vmrnn doctor`"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("PyTorch finds no Apple GPU", "use --device cpu")
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise InputError(
            "a GPU that a process has used is lost to those that are forked from it",
            'start them anew: multiprocessing.get_context("spawn")',
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"vmrnn does not run on '{name}'", "use auto, cpu, cuda or mps")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of the matrix products; "auto" is bfloat16 on NVIDIA GPUs that have it, else float32.

    The scan and the recurrent state are float32 always. float32 is meant in convolutions, too: there PyTorch would
    round to ten bits (TF32) on GPUs, and no longer does so in this process.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        name = "bfloat16" if fast else "float32"
    if name not in DTYPES:
        raise InputError(f"there is no precision '{name}'", f"use auto, {' or '.join(DTYPES)}")
    if name == "float32" and device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    return DTYPES[name]


def in_words(device: torch.device, dtype: torch.dtype) -> str:
    """Both in words: "cpu (2 threads), float32"."""
    where = f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)
    what = str(dtype).removeprefix("torch.")
    if dtype == torch.bfloat16 and device.type == "cpu" and not _multiplies_bfloat16():
        what += " (emulated by this processor: slower than float32)"
    return f"{where}, {what}"


def _multiplies_bfloat16() -> bool:
    """Whether this processor does; true where it is not known."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # not in older PyTorch
    return able.get("architecture") != "x86_64" or able["avx512_bf16"] or able["amx_bf16"]


def autocast(device: torch.device, dtype: torch.dtype, *, cache: bool = True) -> AbstractContextManager[None]:
    """Matrix products in `dtype` inside the block, cast weights kept until its end; nothing changes for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype, cache_enabled=cache)


def set_threads(threads: int | None) -> int:
    """Set how many CPU threads compute, and return the number; None leaves PyTorch's choice.

    In a process that was forked from one that computes it stays at one: see `mind_forks`.
    """
    mind_forks()
    if threads is not None:
        if not 1 <= threads <= 1024:
            raise InputError(f"{threads} is no number of threads", f"give one from 1 to {os.cpu_count()}")
        torch.set_num_threads(1 if _forked else threads)
    return torch.get_num_threads()


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc reuse what is freed instead of returning it: about a tenth of the time that networks take on CPUs."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
            mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD, at its maximum


_forked = False  # from a process that had threads of PyTorch's


@functools.cache
def mind_forks() -> None:
    """Let processes that are forked from this one compute on one thread.

    The threads of this one are not copied with it, and what waits for them waits for ever.
    """
    if hasattr(os, "register_at_fork"):  # Windows cannot fork
        os.register_at_fork(after_in_child=_compute_alone)


def _compute_alone() -> None:
    global _forked
    _forked = True
    torch.set_num_threads(1)
