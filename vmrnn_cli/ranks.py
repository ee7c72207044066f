"""The processes that work together under torchrun, or the one that works alone."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from .devices import pick_device
from .errors import InputError

DAY = timedelta(days=1)  # patience for ranks whose shares take unequal time; torchrun ends all of them if one dies
T = TypeVar("T")


class Ranks:
    """A process among those that work together.

    rank : its number
    world : how many there are
    device : where it computes; under torchrun a GPU of its own among those of its machine
    """

    def __init__(self, device: str, timeout: timedelta | None = None) -> None:
        """Meet the others.

        device : as `pick_device` takes it
        timeout : how long to wait for another rank; None as PyTorch sets it

        Raises:
            InputError: no such device, or the environment does not say where the others are.
        """
        self.world, self.rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
        if self.world > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        self.device = pick_device(device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)
        if self.world > 1 and not dist.is_initialized():
            # What lies in main memory (flags, objects) is exchanged by gloo on GPU machines too.
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            try:
                dist.init_process_group(backend, timeout=timeout)
            except ValueError as error:
                raise InputError(
                    f"WORLD_SIZE is {self.world}, but {error}", "start the processes with torchrun"
                ) from None

    def leave(self) -> None:
        """Wait until all ranks are done, and part; the last thing that a command does with them."""
        with contextlib.suppress(RuntimeError):  # another rank that waited for us may be gone already
            self.any(False)
            if self.world > 1:
                dist.destroy_process_group()

    def max(self, value: float) -> float:
        """The largest value of any rank."""
        if self.world == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest.item()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.max(float(flag)))

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a scalar over the ranks."""
        if self.world > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.world
        return value.item()

    def gather(self, own: T) -> list[T]:
        """What every rank has, in the order of the ranks; each gets it all."""
        everyone: list[T] = [own] * self.world
        if self.world > 1:
            dist.all_gather_object(everyone, own)
        return everyone


def _number(variable: str, default: int) -> int:
    """What torchrun says in a variable of the environment."""
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise InputError(f"{variable} is {text!r}", "start the processes with torchrun, or unset it")
    return int(text or default)
