"""Train a VMRNN on moving digits, all of it on one GPU: clips are drawn there, and a whole step is one CUDA graph.

    python benchmarks/gpu_train.py MNIST_FOLDER --out runs/gpu --seconds 400
    python benchmarks/gpu_train.py MNIST_FOLDER --out runs/gpu --resume runs/gpu --seconds 400 --test 10000
    python benchmarks/gpu_train.py --resume runs/gpu --export vmrnn-d-mmnist    # a weights folder, half precision

The published VMRNN-D, where a training is many short spells: each ends in time, and the next goes on from its last
checkpoint. How far the schedule is goes by the clips seen in all spells together. Without `--clips` it ends with the
spell, as fast as this card turns out to be; the next spell stretches it and goes on from the middle.

What a step is, on paper. A clip of 10 + 10 frames is 19 steps of the network. Forward and backward, a clip takes

    0.28 TFLOP of matrix products           0.4 ms at 800 TFLOP/s (an H100, bfloat16)
    10.8e9 exponentials                     2.9 ms at 16 a clock, 132 processors and 1.75 GHz: of 16 states and 4
                                            directions, once forward, once for the adjoint, twice for the gradients
    15 GB written or read                   5.0 ms at 3.0 TB/s: some 350 bytes a token and inner channel of each block,
                                            most of it what the four directions write apart and what the backward
                                            pass keeps (see `vmrnn_cli.scan.triton`)

so no more than 200 clips a second. An H200, which copies at 4.3 TB/s, took 24 of 10 + 10 frames in batches of 20, and
64 of 6 + 2: of a step, the scan's gradients take 38 %, the scan 16 %, its adjoint 11 %, and 9 % a product in float32,
that of the gradients of `dt_weight` (`benchmarks/results/NVIDIA-H200.json`). A recorded step has some 25,000 kernels,
0.05 s of launching alone even in a graph, so that small batches hardly take less time. Unrecorded, PyTorch would need
one or two seconds to launch them.

Notation: B batch, T time, C channels, H x W pixels, N digits, S places of a digit in a clip. A clip is (T, C, H, W).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vmrnn_cli import networks, pretrained, scan
from vmrnn_cli.data.moving_mnist import SIZE, TEST_SEED, VAL_DIGITS, find_digits, read_digits
from vmrnn_cli.devices import autocast, pick_device, pick_dtype
from vmrnn_cli.digits import DIGIT_SIZE, STEP
from vmrnn_cli.errors import InputError, VMRNNError
from vmrnn_cli.flops import flops_per_step
from vmrnn_cli.gpu import Record, record_cuda_graph
from vmrnn_cli.model import VMRNN, VMRNNConfig, rollout
from vmrnn_cli.optim import muon_parameters, orthogonalise
from vmrnn_cli.outputs import atomic_path
from vmrnn_cli.recipes import TrainConfig
from vmrnn_cli.train import RolloutLoss, learning_rate

# As the trainings of vmrnn-d-mmnist-small found it: batches of 32; short clips at a high rate, then ever longer ones at
# a falling rate; no loss where nothing tells yet how the digits move. Orthogonal updates want the same rate in a wider
# network. No drop path: no clip comes twice.
RECIPE = TrainConfig(
    preset="vmrnn-d-mmnist", batch_size=32, lr=0.008, loss="mse+bce", burn_in=2, warmup=0.01, plateau=0.4, ema=0.995,
    curriculum=[[0.25, 6, 2], [0.45, 6, 6], [0.75, 6, 10]],
)  # fmt: skip
NETWORK = dataclasses.replace(networks.NETWORKS["vmrnn-d-mmnist"], drop_path=0.0)
TINY_RECIPE = dataclasses.replace(RECIPE, batch_size=2, context=3, horizon=2, burn_in=1, curriculum=[[0.5, 2, 2]])
TINY = VMRNNConfig("D", 1, (SIZE, SIZE), 4, 16, (1,), (1,), d_state=2, context=3, horizon=2)
PIECE = 16 * 2**20 - 2**17  # bytes of tensors in a file of a checkpoint
BATCH = 100  # of an evaluation
MOMENTUM = 0.95
PLAIN = ("conv_silu", "norm_gate")
RAMP = 20  # steps over which a spell's rate rises: the momentum may be lost, and is that of other weights in any case


# ----------------------------------------------------------------------------------------------------------------------
# Digits


class Digits:
    """Clips of two moving digits, drawn where the network is. Every digit lies there, with a rim of black."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        """images : uint8 (N, 28, 28)."""
        self.device = device
        self.rimmed = torch.from_numpy(np.pad(images, ((0, 0), (1, 1), (1, 1)))).to(device)  # (N, 30, 30)

    def draw(self, clips: int, frames: int, generator: torch.Generator) -> Tensor:
        """Clips by the law of `vmrnn_cli.data.moving_mnist.make_clip`: float32 (B, T, 1, H, W) in [0, 1]."""
        uniform = functools.partial(torch.rand, generator=generator, device=self.device, dtype=torch.float64)
        which = torch.randint(len(self.rimmed), (clips, 2), generator=generator, device=self.device)
        return self.paint(which, corners(uniform(clips, 2, 2), uniform(clips, 2) * (2 * math.pi), frames)) / 255

    def test(self, clips: Iterable[int], frames: int) -> Tensor:
        """The clips of `vmrnn_cli.data.moving_mnist.MovingMNIST` with these numbers: uint8 (B, T, 1, H, W)."""
        which, positions, angles = [], [], []
        for number in clips:
            rng = np.random.default_rng((TEST_SEED, number))
            for _ in range(2):
                which.append(rng.integers(len(self.rimmed)))
                positions.append(rng.random(2))
                angles.append(rng.random() * 2 * np.pi)
        position = torch.from_numpy(np.stack(positions)).view(-1, 2, 2).to(self.device)
        angle = torch.from_numpy(np.stack(angles)).view(-1, 2).to(self.device)
        return self.paint(torch.tensor(which, device=self.device).view(-1, 2), corners(position, angle, frames))

    def paint(self, which: Tensor, corners: Tensor) -> Tensor:
        """Digits number `which` (B, 2) with their corners at (B, 2, T, 2): uint8 (B, T, 1, H, W)."""
        places = torch.arange(SIZE, device=self.device)
        inside = (places - corners[..., None]).clamp(-1, DIGIT_SIZE) + 1  # (B, 2, T, 2, S): place in the rimmed digit
        rows, columns = inside.unbind(3)
        drawn = self.rimmed[which[:, :, None, None, None], rows[..., :, None], columns[..., None, :]]
        return drawn.amax(1)[:, :, None]  # the brighter pixel shows


def corners(position: Tensor, angle: Tensor, frames: int) -> Tensor:
    """Top left corners of digits that start at `position` (B, 2, 2), y and x in [0, 1], and go at `angle` (B, 2).

    (B, 2, T, 2) integers. In float64, as on the CPU: a corner is where a digit's position is cut to whole pixels.
    """
    velocity = STEP * torch.stack([angle.sin(), angle.cos()], dim=-1)
    path = []
    for _ in range(frames):
        position = position + velocity
        velocity = torch.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = position.clamp(0, 1)
        path.append(position)
    return (torch.stack(path, dim=2) * (SIZE - DIGIT_SIZE)).long()


def load_digits(folder: Path, device: torch.device) -> tuple[Digits, Digits]:
    """Those to train on, and those of the test split, from a folder with MNIST's idx files."""
    found = []
    for split in ("train", "test"):
        path = find_digits(folder, split)
        if path is None:
            raise InputError(f"{folder} has no {split} digits", "name a folder with MNIST's idx files")
        found.append(read_digits(path))
    train, test = found
    kept = min(VAL_DIGITS, len(train) // 10)  # the validation split's
    return Digits(train[: len(train) - kept], device), Digits(test, device)


# ----------------------------------------------------------------------------------------------------------------------
# A step


class BatchedMuon:
    """`vmrnn_cli.optim.Muon` in a form that a graph can record: matrices of one shape are one batch, and the rate is a
    tensor.

    rate : (), the step length, changed in place
    dtype : of the matrix products that orthogonalise
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        rate: Tensor,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        groups: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            groups.setdefault(parameter.shape, []).append(parameter)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros_like(torch.stack(list(group))) for group in self.groups]  # (matrices, ..., R, C)
        self.rate, self.weight_decay, self.dtype, self.share = rate, weight_decay, dtype, MOMENTUM

    @torch.no_grad()
    def step(self, gradients: dict[nn.Parameter, Tensor]) -> None:
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([gradients[parameter] for parameter in group])
            momentum.mul_(self.share).add_(gradient)
            update = orthogonalise((gradient + self.share * momentum).to(self.dtype)).float()
            scale = max(1.0, group[0].shape[-2] / group[0].shape[-1]) ** 0.5
            torch._foreach_mul_(group, 1 - self.rate * self.weight_decay)
            torch._foreach_add_(group, list((update * (-scale * self.rate)).unbind()))

    def momentum_of(self, parameter: nn.Parameter) -> Tensor:
        """The part of the momenta that belongs to a parameter, a view."""
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            for mine, part in zip(group, momentum.unbind(), strict=True):
                if mine is parameter:
                    return part
        raise KeyError


class Training:
    """A network, its running average and its optimizers, and their step, recorded for clips of one shape at a time.

    Nothing in `update` waits for the GPU, makes a choice by a tensor's value or moves a tensor that is used again:
    rates are tensors that change in place, and a gradient that is not finite becomes an update by the momentum alone.
    """

    def __init__(
        self, network: VMRNNConfig, recipe: TrainConfig, device: torch.device, dtype: torch.dtype, record: Record | None
    ) -> None:
        """record : makes a replay of work, see `vmrnn_cli.gpu`; None runs the work itself, every time."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.dtype, self.record_graph = recipe, device, dtype, record
        self.model = VMRNN(network).to(device).train()
        self.average = VMRNN(network).to(device).requires_grad_(False).eval()
        self.average.load_state_dict(self.model.state_dict())
        self.loss = RolloutLoss(self.model, recipe.loss, low_memory=False, burn_in=recipe.burn_in)
        self.parameters = list(self.model.parameters())
        matrices, self.others = muon_parameters(self.model)
        self.rate, self.adam_rate, self.new = (torch.zeros((), device=device) for _ in range(3))
        on_gpu = device.type == "cuda"
        products = torch.bfloat16 if on_gpu else torch.float32  # of CPUs, few multiply in bfloat16
        self.muon = BatchedMuon(matrices, self.rate, recipe.weight_decay, products)
        self.adam = torch.optim.AdamW(
            self.others, lr=self.adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True, capturable=on_gpu
        )
        self._make_adam_state()
        self.kept = 0.0  # bytes that the backward pass keeps of a step of the network for one clip; 0: not known yet
        self.told = torch.zeros(2, device=device)  # loss and gradient norm of the last step
        self.clips = torch.empty(0)
        self.replay: Callable[[], None] | None = None

    @functools.cached_property
    def flops(self) -> int:
        """Operations of a step of the network for one frame."""
        return flops_per_step(self.model.config, self.model.config.image_size)

    def _make_adam_state(self) -> None:
        """What AdamW would make in its first step, which must not be the recorded one."""
        for parameter in self.others:
            parameter.grad = torch.zeros_like(parameter)
        self.adam.step()  # at a rate of 0
        for parameter in self.others:
            self.adam.state[parameter]["step"].zero_()

    def tensors(self) -> list[Tensor]:
        """All that a step changes."""
        adam = [tensor for state in self.adam.state.values() for tensor in state.values()]
        return [*(p.data for p in self.parameters), *self.average.parameters(), *self.muon.momenta, *adam]

    def gradients(self, clips: Tensor, context: int, parts: int) -> tuple[Tensor, list[Tensor]]:
        """The loss of a batch (B, T, C, H, W) and its gradients, over `parts` of the batch one after the other."""
        total, gradients = torch.zeros((), device=self.device), None
        for part in clips.chunk(parts):
            with autocast(self.device, self.dtype):
                loss = self.loss(part, context) / parts
            # Not `backward`: gradients in .grad would have to keep their places from one recording to the next.
            found = torch.autograd.grad(loss, self.parameters)
            gradients = list(found) if gradients is None else torch._foreach_add(gradients, found)
            total = total + loss.detach()
        assert gradients is not None
        # Laid out like their parameters: that of a channels-last convolution has other strides where a size is 1.
        return total, [g.reshape(-1).view(p.shape) for g, p in zip(gradients, self.parameters, strict=True)]

    def update(self, context: int, parts: int) -> None:
        """One whole step over `self.clips`."""
        loss, gradients = self.gradients(self.clips, context, parts)
        norm = nn.utils.get_total_norm(gradients)
        scale = (self.recipe.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        scale = torch.where(norm.isfinite(), scale, torch.zeros_like(norm))
        gradients = [gradient.nan_to_num(0.0, 0.0, 0.0) * scale for gradient in gradients]
        by_parameter = dict(zip(self.parameters, gradients, strict=True))
        self.muon.step(by_parameter)
        for parameter in self.others:
            parameter.grad = by_parameter[parameter]
        self.adam.step()
        with torch.no_grad():
            averages = list(self.average.parameters())
            difference = torch._foreach_sub(list(self.parameters), averages)
            torch._foreach_mul_(difference, self.new)
            torch._foreach_add_(averages, difference)
            self.told.copy_(torch.stack([loss, norm]))

    def parts_that_fit(self, context: int, horizon: int) -> int:
        """Into how many parts a batch is cut so that what its backward pass keeps fits on the card."""
        if self.device.type != "cuda":
            return 1
        self._forget()
        steps = context + horizon - 1
        if not self.kept:
            # Of a whole batch, if it fits, for which kernels are compiled and chosen in any case.
            batch = self.recipe.batch_size
            while not self.kept:
                try:
                    self.kept = self._peak(batch, context, horizon) / (batch * steps)
                except torch.OutOfMemoryError:
                    if batch == 1:
                        raise
                    batch = (batch + 1) // 2
        room = 0.75 * torch.cuda.mem_get_info()[0]
        sizes = [n for n in range(1, self.recipe.batch_size + 1) if self.recipe.batch_size % n == 0]
        fitting = [n for n in sizes if n * steps * self.kept < room]
        return self.recipe.batch_size // max(fitting, default=1)

    def _peak(self, batch: int, context: int, horizon: int) -> int:
        """Bytes that the gradients of a batch take at most, beyond what is held already."""
        clips = torch.rand(batch, context + horizon, *self.clip_shape(), device=self.device)
        self._release()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        self.gradients(clips, context, 1)
        return torch.cuda.max_memory_allocated() - held

    def clip_shape(self) -> tuple[int, int, int]:
        config = self.model.config
        return (config.image_channels, *config.image_size)

    def _forget(self) -> None:
        """Let go of the graph before and of the gradients that lie in its memory."""
        self.replay = None
        for parameter in self.others:
            parameter.grad = None
        self._release()

    def _release(self) -> None:
        """Give all freed memory back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def prepare(self, clips: Tensor, context: int) -> int:
        """Make `replay` a step over clips like these (B, T, C, H, W); into how many parts it cuts the batch."""
        parts = self.parts_that_fit(context, clips.shape[1] - context)
        while True:
            try:
                self.record(clips, context, parts)
                return parts
            except torch.OutOfMemoryError:
                if parts >= len(clips):
                    raise
            parts *= 2

    def record(self, clips: Tensor, context: int, parts: int) -> None:
        """Make `replay` a step over clips like these, which are only looked at: recording leaves no trace.

        Raises:
            VMRNNError: the recorded step does not compute what the step computes.
        """
        self._forget()
        self.clips = clips.clone()
        work = functools.partial(self.update, context, parts)
        if self.record_graph is None:
            self.replay = work
            return
        want: list[Tensor] = []

        def watched() -> None:
            work()
            if not want:  # the first of the runs before the recording
                want.append(self.told.clone())

        saved = [tensor.clone() for tensor in self.tensors()]
        try:
            replay = self.record_graph(watched)
            torch._foreach_copy_(self.tensors(), saved)
            replay()
            recorded, unrecorded = self.told.tolist(), want[0].tolist()
        finally:
            torch._foreach_copy_(self.tensors(), saved)
        for name, a, b in zip(("loss", "gradient norm"), recorded, unrecorded, strict=True):
            if not abs(a - b) <= 0.05 * abs(b):
                raise VMRNNError(f"the recorded step has a {name} of {a}, and unrecorded {b}", "try --no-graph")
        self.replay = replay

    def step(self, clips: Tensor, rate: float, keep: float) -> tuple[float, float]:
        """Take one step over clips of the recorded shape: loss and gradient norm. Waits for the GPU.

        rate : of Muon; AdamW has a quarter
        keep : share of the average that stays
        """
        assert self.replay is not None, "record first"
        self.clips.copy_(clips)
        self.rate.fill_(rate)
        self.adam_rate.fill_(rate / 4)
        self.new.fill_(1 - keep)
        self.replay()
        loss, norm = self.told.tolist()
        return loss, norm


def work_again(work: Callable[[], None]) -> Callable[[], None]:
    """What stands for `record_cuda_graph` where there is no GPU: as many runs before, and the work itself."""
    for _ in range(3):
        work()
    return work


@torch.inference_mode()
def evaluate(training: Training, clips: Iterator[Tensor]) -> dict[str, Any]:
    """Squared error summed over a frame, of the averaged network and of the last frame repeated: means over clips.

    clips : batches, uint8 (B, T, C, H, W)
    """
    context, sums, count = training.recipe.context, [], 0
    for batch in clips:
        frames = batch.transpose(0, 1).float() / 255  # (T, B, C, H, W)
        truth = frames[context:]
        with autocast(training.device, training.dtype):
            outputs = torch.stack(list(rollout(training.average, frames[:context], len(truth)))[context - 1 :])
        repeated = frames[context - 1].expand_as(truth)
        errors = [(forecast - truth).double().square().sum((1, 2, 3, 4)) for forecast in (outputs, repeated)]
        sums.append(torch.stack(errors))  # (2, horizon)
        count += batch.shape[0]
    mean = (torch.stack(sums).sum(0) / count).tolist()
    return {
        "clips": count,
        "mse": float(np.mean(mean[0])),
        "last_frame_mse": float(np.mean(mean[1])),
        "mse_per_frame": mean[0],
    }


def in_batches(digits: Digits, count: int, frames: int, size: int = BATCH) -> Iterator[Tensor]:
    """The first `count` test clips."""
    for first in range(0, count, size):
        yield digits.test(range(first, min(first + size, count)), frames)


# ----------------------------------------------------------------------------------------------------------------------
# The schedule


@dataclasses.dataclass
class Spell:
    """How long to train, and what to tell whom."""

    out: Path
    seconds: float
    every: float  # seconds between checkpoints
    clips: int  # of the whole schedule; 0: as many as there will be
    test: int  # test clips at the end
    judged: int  # test clips at each checkpoint
    report: Path | None

    def tell(self, facts: dict[str, Any]) -> None:
        """Write what is known so far."""
        if self.report is not None:
            with atomic_path(self.report, overwrite=True) as path:
                path.write_text(json.dumps(facts, indent=1) + "\n")


def stage(recipe: TrainConfig, share: float) -> tuple[int, int]:
    """Context and horizon of the clips where `share` of the schedule is done."""
    for until, context, horizon in recipe.curriculum:
        if share < until:
            return int(context), int(horizon)
    return recipe.context, recipe.horizon


def network_steps(recipe: TrainConfig, first: float, total: float) -> float:
    """How many steps of the network the clips from number `first` to `total` take, over which the schedule spreads."""
    steps, begin = 0.0, 0.0
    for until, context, horizon in [*recipe.curriculum, [1.0, recipe.context, recipe.horizon]]:
        steps += (context + horizon - 1) * max(0.0, until * total - max(first, begin * total))
        begin = until
    return steps


class Pace:
    """How far the schedule is: by the clips of all spells, of as many as `--clips` says or as there will be in time."""

    def __init__(self, recipe: TrainConfig, spell: Spell, before: dict[str, Any]) -> None:
        self.recipe, self.total = recipe, spell.clips
        self.steps, self.taken, self.began = 0, 0, 0.0
        # Unless told otherwise, take it that this spell will be as long as those before.
        self.at = before["clips"] / self.total if self.total else before["share"] / 2

    def over(self, clips: int) -> bool:
        """Whether there were as many clips as there should be."""
        return bool(self.total) and clips >= self.total

    def took(self, steps: int) -> None:
        """A batch was so many steps of the network."""
        if self.taken == 0:  # the first step is slow, and what came before no part of the pace
            self.began = time.monotonic()
        else:
            self.steps += steps
        self.taken += 1

    def share(self, clips: int, left: float) -> float:
        """Of the schedule, after `clips` and with `left` seconds to go; it never goes back."""
        total = float(self.total)
        if not total and self.taken > 10:
            speed = self.steps / (time.monotonic() - self.began)
            total = reachable(self.recipe, clips, speed * left)
        if total:
            self.at = max(self.at, min(1.0, clips / total))
        return self.at


def reachable(recipe: TrainConfig, first: float, steps: float) -> float:
    """How many clips there will be in all if after the first `first` of them there are `steps` steps of the network."""
    low, high = first, first + steps + 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if network_steps(recipe, first, middle) < steps else (low, middle)
    return low


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints


def _packed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A byte a number, each row of a matrix by its own scale; vectors as they are."""
    if tensor.dim() < 2:
        return {name: tensor.clone()}
    scale = tensor.abs().amax(-1, keepdim=True) / 127
    return {name: (tensor / scale.clamp(min=1e-30)).round().to(torch.int8), f"{name}/scale": scale}


def _unpacked(name: str, tensors: dict[str, Tensor]) -> Tensor:
    scale = tensors.get(f"{name}/scale")
    return tensors[name].float() if scale is None else tensors[name].float() * scale


def save_checkpoint(folder: Path, training: Training, progress: dict[str, Any]) -> None:
    """Write `network-1.safetensors` and so on, and `momentum-1.safetensors`, none larger than 16 MiB.

    The average is in half precision, as weights are shipped; the weights are what they differ from it by, a byte a
    number, as is Muon's momentum; AdamW's state is in bfloat16. The momentum may be left behind where little can be
    carried: it is that of some twenty steps.
    """
    network: dict[str, Tensor] = {}
    for (name, parameter), average in zip(
        training.model.named_parameters(), training.average.parameters(), strict=True
    ):
        network[f"average.{name}"] = average.detach().half()
        network |= _packed(f"weights.{name}", parameter.detach() - network[f"average.{name}"].float())
    names = {parameter: name for name, parameter in training.model.named_parameters()}
    for parameter in training.others:
        for moment in ("exp_avg", "exp_avg_sq"):
            network[f"{moment}.{names[parameter]}"] = training.adam.state[parameter][moment].bfloat16()
    momentum: dict[str, Tensor] = {}
    for group in training.muon.groups:
        for parameter in group:
            momentum |= _packed(f"momentum.{names[parameter]}", training.muon.momentum_of(parameter))
    for kind, tensors in (("network", network), ("momentum", momentum)):
        pieces = _pieces(tensors)
        header = {"progress": json.dumps(progress), "pieces": str(len(pieces))}
        for number, piece in enumerate(pieces, 1):
            with atomic_path(folder / f"{kind}-{number}.safetensors", overwrite=True) as path:
                path.write_bytes(save({name: t.cpu().contiguous() for name, t in piece.items()}, header))


def _pieces(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in as few files as they fit in, each with the first that has room for it."""
    pieces: list[dict[str, Tensor]] = [{}]
    room = [PIECE]
    for name, tensor in tensors.items():
        need = tensor.nbytes + len(name) + 100  # the latter for its entry in the header
        number = next((number for number, left in enumerate(room) if need <= left), len(pieces))
        if number == len(pieces):
            pieces.append({})
            room.append(PIECE)
        pieces[number][name] = tensor
        room[number] -= need
    return pieces


def read_pieces(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors of a checkpoint and how far it was; None if there are none.

    Raises:
        InputError: pieces are missing, or not of one checkpoint.
    """
    tensors: dict[str, Tensor] = {}
    headers = []
    for path in sorted(folder.glob(f"{kind}-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            headers.append(file.metadata())
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    if not headers:
        return None
    if any(header != headers[0] for header in headers) or len(headers) != int(headers[0]["pieces"]):
        raise InputError(f"the {kind} in {folder} is not whole", "give all its pieces, of one checkpoint")
    return tensors, json.loads(headers[0]["progress"])


def load_checkpoint(folder: Path, training: Training) -> dict[str, Any]:
    """Put a checkpoint into a training, and return how far it was.

    Raises:
        InputError: there is none, or one of another network.
    """
    found = read_pieces(folder, "network")
    if found is None:
        raise InputError(f"there is no checkpoint in {folder}", "leave out --resume to begin")
    tensors, progress = found
    if VMRNNConfig(**progress["network"]) != training.model.config:
        raise InputError(f"the checkpoint in {folder} is of another network", "give the options that it was begun with")
    momentum, _ = read_pieces(folder, "momentum") or ({}, None)
    names = {parameter: name for name, parameter in training.model.named_parameters()}
    with torch.no_grad():
        for parameter, average in zip(training.parameters, training.average.parameters(), strict=True):
            name = names[parameter]
            average.copy_(tensors[f"average.{name}"].float())
            parameter.copy_(tensors[f"average.{name}"].float() + _unpacked(f"weights.{name}", tensors))
        for parameter in training.others:
            state = training.adam.state[parameter]
            state["step"].fill_(progress["steps"])
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment].copy_(tensors[f"{moment}.{names[parameter]}"].float())
        for group in training.muon.groups:
            for parameter in group:
                name = f"momentum.{names[parameter]}"
                if name in momentum:
                    training.muon.momentum_of(parameter).copy_(_unpacked(name, momentum))
    return progress


def export(folder: Path, target: Path) -> None:
    """The average of a checkpoint as a weights folder, in half precision."""
    found = read_pieces(folder, "network")
    if found is None:
        raise InputError(f"there is no checkpoint in {folder}", "name one with --resume")
    tensors, progress = found
    model = VMRNN(VMRNNConfig(**progress["network"]))
    model.load_state_dict({name: tensors[f"average.{name}"].float() for name in model.state_dict()})
    target.mkdir(parents=True, exist_ok=True)
    pretrained.save_model(model, target, half=True)


# ----------------------------------------------------------------------------------------------------------------------
# A spell


def run(
    spell: Spell, training: Training, train: Digits, test: Digits, progress: dict[str, Any], facts: dict[str, Any]
) -> None:
    """Train until the time is over; evaluations and checkpoints at the beginning, on the way and at the end.

    progress : how far the training was; see `new_progress`
    facts : what else to tell; gets the speeds

    Raises:
        VMRNNError: gradients stay without finite values, or a recording goes wrong.
    """
    recipe, began, before = training.recipe, time.monotonic(), dict(progress)
    generator = torch.Generator(training.device).manual_seed(recipe.seed + before["clips"])
    pace = Pace(recipe, spell, before)
    shape, told, taken, lost = (0, 0), {}, 0, 0
    # The first evaluation takes longer, as kernels are chosen: no measure of what the last one will take.
    evaluate(training, in_batches(test, min(BATCH, spell.judged), recipe.context + recipe.horizon))
    took = judge(spell, training, test, progress, facts, spell.judged)
    next_save = time.monotonic() + spell.every
    while True:
        now = time.monotonic()
        left = spell.seconds - (now - began) - 3 - 1.3 * took * (1 + spell.test / spell.judged)
        if left <= 0 or pace.over(progress["clips"]):
            break
        share = pace.share(progress["clips"], left)
        context, horizon = stage(recipe, share)
        clips = train.draw(recipe.batch_size, context + horizon, generator)
        if shape != (context, horizon):
            shape = (context, horizon)
            parts = training.prepare(clips, context)
            told = facts.setdefault("speeds", {}).setdefault(f"{context} -> {horizon}", {"clips": 0, "seconds": 0.0})
            told |= {"parts": parts, "record_s": time.monotonic() - now}
            print(f"{context} -> {horizon} frames in {parts} part(s), recorded in {told['record_s']:.1f} s", flush=True)
        begin = time.monotonic()
        taken += 1
        rate = recipe.lr * learning_rate(recipe, share) * min(1.0, taken / RAMP)
        keep = min(recipe.ema, (1 + progress["steps"]) / (10 + progress["steps"]))
        loss, norm = training.step(clips, rate, keep)
        end = time.monotonic()
        lost = 0 if math.isfinite(norm) else lost + 1
        if lost == 20:
            raise VMRNNError("twenty gradients in turn were not finite", "lower --lr, and go on from the checkpoint")
        pace.took(recipe.batch_size * (context + horizon - 1))
        progress |= {
            "clips": progress["clips"] + recipe.batch_size, "steps": progress["steps"] + 1, "share": share,
            "seconds": before["seconds"] + end - began,
        }  # fmt: skip
        told["clips"] += recipe.batch_size
        told["seconds"] += end - begin
        told["clips_per_s"] = told["clips"] / told["seconds"]
        told["tflop_per_s"] = told["clips_per_s"] * 3 * (context + horizon - 1) * training.flops / 1e12
        if training.device.type == "cuda":
            told["reserved_gb"] = torch.cuda.memory_reserved() / 1e9
        if taken in (1, 2, 5, 10, 20) or taken % 50 == 0:
            print(
                f"step {progress['steps']}, {progress['clips']} clips, {context} -> {horizon}: loss {loss:.4f}, "
                f"gradient {norm:.3f}, rate {rate:.5f}, {told['clips_per_s']:.1f} clips/s, share {share:.3f}",
                flush=True,
            )
        if end >= next_save:
            took = judge(spell, training, test, progress, facts, spell.judged)
            next_save = time.monotonic() + spell.every
    judge(spell, training, test, progress, facts, spell.judged)
    if spell.test:
        judge(spell, training, test, progress, facts, spell.test)


def judge(
    spell: Spell, training: Training, test: Digits, progress: dict[str, Any], facts: dict[str, Any], count: int
) -> float:
    """Evaluate on test clips, write a checkpoint and tell; how many seconds that took."""
    begin = time.monotonic()
    scores = evaluate(training, in_batches(test, count, training.recipe.context + training.recipe.horizon))
    if not math.isfinite(scores["mse"]):
        raise VMRNNError("the forecasts are not finite", "lower --lr, and begin again or go on from before")
    if count == spell.judged:
        history = [point for point in progress["history"] if point["clips"] < progress["clips"]]
        point = {key: progress[key] for key in ("clips", "steps", "seconds", "share")}
        progress["history"] = [*history, point | {"mse": scores["mse"]}]
    else:
        progress["test"] = scores
    save_checkpoint(spell.out, training, progress)
    spell.tell(facts | {"progress": progress, "scores": scores})
    print(
        f"after {progress['clips']} clips and {progress['seconds']:.0f} s: MSE {scores['mse']:.2f} over {count} test "
        f"clips (last frame repeated {scores['last_frame_mse']:.1f})",
        flush=True,
    )
    return time.monotonic() - begin


def new_progress(network: VMRNNConfig) -> dict[str, Any]:
    """Of a training that begins. `share` is that of the schedule, `history` the evaluations of all spells."""
    start: dict[str, Any] = {"clips": 0, "steps": 0, "seconds": 0.0, "share": 0.0, "history": []}
    return start | {"network": dataclasses.asdict(network)}


def build(options: argparse.Namespace) -> Training:
    """The training that the options ask for."""
    network, recipe = (TINY, TINY_RECIPE) if options.tiny else (NETWORK, RECIPE)
    recipe = dataclasses.replace(
        recipe, lr=options.lr or recipe.lr, batch_size=options.batch or recipe.batch_size, seed=options.seed
    )
    device = pick_device(options.device)
    if device.type == "cuda" and device.index is not None:  # "cuda" alone means the current one
        torch.cuda.set_device(device)
    for name in options.plain:  # PyTorch's operations in the place of a kernel that fails
        plain = getattr(scan, name)
        setattr(scan, name, lambda *inputs, plain=plain: plain(*inputs[:-1], "torch"))
    record: Record | None = None
    if options.graph:
        # A step takes seconds to run unrecorded: no more than kernels and libraries need to be ready.
        record = functools.partial(record_cuda_graph, warm_ups=2) if device.type == "cuda" else work_again
    training = Training(network, recipe, device, pick_dtype("auto", device), record)
    training.model.scan_backend = training.average.scan_backend = options.scan
    return training


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a folder with MNIST's idx files, gzipped or not")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="where checkpoints go")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on from the checkpoint in a folder")
    parser.add_argument("--seconds", type=float, default=400.0, help="from start to end")
    parser.add_argument("--until", type=float, help="when to end instead, in seconds since 1970")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--clips", type=int, default=0, help="of the whole schedule; default: it ends with this spell")
    parser.add_argument("--eval", type=int, default=500, metavar="N", help="test clips at every checkpoint")
    parser.add_argument("--test", type=int, default=0, metavar="N", help="test clips at the end")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scan", default="auto", help="backend of the scan and its neighbours")
    parser.add_argument("--plain", nargs="+", default=[], choices=PLAIN, help="these without their kernels")
    parser.add_argument("--no-graph", dest="graph", action="store_false", help="launch every kernel of every step anew")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--report", type=Path, help="a JSON file, written anew at every checkpoint")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the weights of --resume, and do not train")
    parser.add_argument("--tiny", action="store_true", help="a network of no use, to try this script")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    began = time.monotonic()
    try:
        if options.export:
            export(options.resume or options.out, options.export)
            return 0
        if options.data is None:
            raise InputError("there is nothing to train on", "name a folder with MNIST's idx files")
        options.out.mkdir(parents=True, exist_ok=True)
        training = build(options)
        progress = new_progress(training.model.config)
        if options.resume:
            progress = load_checkpoint(options.resume, training)
            print(f"goes on after {progress['clips']} clips and {progress['seconds']:.0f} s", flush=True)
        train, test = load_digits(options.data, training.device)
        facts = {"scan": options.scan, "plain": options.plain, "graph": options.graph, "resumed_at": progress["clips"]}
        left = options.until - time.time() if options.until else options.seconds - (time.monotonic() - began)
        spell = Spell(options.out, left, options.every, options.clips, options.test, options.eval, options.report)
        run(spell, training, train, test, progress, facts)
    except VMRNNError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
