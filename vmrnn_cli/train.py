"""Train a VMRNN: one loop, resumable at every checkpoint, on one machine or many.

Notation: B batch, T time, C channels, H x W pixels. A clip is (T, C, H, W) with T = context + horizon; the network
predicts frames 2 .. T of it, and the loss covers them all.

A run folder holds `config.toml` (as used), `state.pt` and the one before it (everything that a resumed run needs),
`checkpoint.safetensors` (the weights in `state.pt`), `best/` (a weights folder), `metrics.csv`, `curves.png`,
`report.html` and `samples/`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from . import data, interrupts, pretrained, weights
from .cards import code_version, model_card
from .config import NetworkConfig, VMRNNConfig
from .devices import autocast, keep_freed_memory, pick_dtype
from .errors import InputError, NotFiniteError, VMRNNError
from .evaluate import FAST, Evaluation, evaluate
from .model import VMRNN
from .motion_loss import MotionLoss
from .motion_network import MotionVMRNN
from .networks import NETWORKS, adapted, build, config_from_dict, config_to_dict
from .optim import make_optimizers
from .outputs import atomic_path, locked, make_folder, remove_leftovers
from .predictor import Predictor
from .ranks import Ranks
from .readings import Declared
from .recipes import TrainConfig, config_to_toml, loss_terms
from .run_state import STATE_NAME, has_state, read_state, write_state

if TYPE_CHECKING:
    from .networks import Network

SETTINGS_NAME, CHECKPOINT_NAME = "config.toml", "checkpoint.safetensors"


# ----------------------------------------------------------------------------------------------------------------------
# The computation of one step


class RolloutLoss(nn.Module):
    """The loss of a batch of clips, all in one forward pass so that DistributedDataParallel sees one."""

    def __init__(self, model: VMRNN, loss: str, *, low_memory: bool, burn_in: int = 0) -> None:
        super().__init__()
        self.model, self.low_memory, self.burn_in = model, low_memory, burn_in
        self.terms = loss_terms(loss, "VMRNN")

    def forward(self, clips: Tensor, context: int, forced: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) in [0, 1], and for each time step beyond the context and clip whether the true frame goes in
        (T - context, B) -> the mean loss over outputs 2 .. T, less the first `burn_in` of them.
        """
        frames = clips.transpose(0, 1)  # (T, B, C, H, W)
        states, outputs, frame = None, [], frames[0]
        for step in range(len(frames) - 1):
            if step < context:
                frame = frames[step]
            elif forced is not None:
                frame = torch.where(forced[step - context, :, None, None, None], frames[step], frame)
            if self.low_memory:
                frame, states = checkpoint(self.model, frame, states, use_reentrant=False)
            else:
                frame, states = self.model(frame, states)
            outputs.append(frame.float())
        return self._loss(torch.stack(outputs[self.burn_in :]), frames[1 + self.burn_in :])

    def _loss(self, outputs: Tensor, truth: Tensor) -> Tensor:
        terms: dict[str, Callable[[], Tensor]] = {
            "mse": lambda: F.mse_loss(outputs, truth),
            "l1": lambda: F.l1_loss(outputs, truth),
            "ssim": lambda: 1 - structural_similarity(outputs, truth),
            # Cross-entropy has the same minimum as MSE, and no flat region where the final sigmoid begins to saturate.
            "bce": lambda: -(truth * outputs.clamp(1e-6).log() + (1 - truth) * (1 - outputs).clamp(1e-6).log()).mean(),
        }
        return torch.stack([weight * terms[name]() for name, weight in self.terms.items()]).sum()


def structural_similarity(x: Tensor, y: Tensor, window: int = 7) -> Tensor:
    """Mean SSIM of frames (..., C, H, W) in [0, 1] (Wang et al., 2004), differentiable.

    Over square windows that lie within the frame; of 7 pixels as in `vmrnn_cli.metrics`, or as many as there are.
    """
    window = min(window, *x.shape[-2:])
    window -= window % 2 == 0
    x, y = x.flatten(0, -4), y.flatten(0, -4)  # (T*B, C, H, W)
    means = F.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y]), window, stride=1)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = means.chunk(5)
    unbiased = window**2 / max(1, window**2 - 1)
    var_x, var_y, cov = (
        unbiased * (product - a * b)
        for product, a, b in ((mean_xx, mean_x, mean_x), (mean_yy, mean_y, mean_y), (mean_xy, mean_x, mean_y))
    )
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (brightness * (2 * cov + c2) / (var_x + var_y + c2)).mean()


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Share of the full rate at a point of the run, `progress` in [0, 1]."""
    if progress < config.warmup:
        return config.warmup_from + (1 - config.warmup_from) * progress / config.warmup
    left = min(1.0, max(0.0, (1 - progress) / (1 - config.plateau))) if config.plateau < 1 else 1.0
    shape = left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return config.final_lr + (1 - config.final_lr) * shape


def seed_of(*numbers: int) -> int:
    """One seed of several numbers: Python's hash of their tuple, as every run that is to be resumed has drawn by it.

    Only text is hashed with a salt; tuples of integers are not, and alike in every CPython since 3.8 on 64 bits.
    """
    return hash(numbers)


def _made_for(network: NetworkConfig) -> str:
    height, width = network.image_size
    return f"{width}x{height}, {network.context} -> {network.horizon} frames"


def _distributed(loss: nn.Module) -> DistributedDataParallel:
    """The same, averaging its gradients over all processes."""
    for parameter in loss.parameters():
        # The gradient of a channels-last convolution has another stride where a size is 1, and PyTorch warns of it.
        parameter.register_hook(lambda gradient: gradient.reshape(-1).view(gradient.shape))
    return DistributedDataParallel(loss)


def make_loss(model: Network, config: TrainConfig) -> RolloutLoss | MotionLoss:
    """What a batch of clips costs. Networks that carry the picture on have a loss of their own."""
    if isinstance(model, MotionVMRNN):
        return MotionLoss(model, config.loss)
    return RolloutLoss(model, config.loss, low_memory=config.memory == "low", burn_in=config.burn_in)


# ----------------------------------------------------------------------------------------------------------------------
# The run


@dataclass
class Progress:
    """Where a run is. All that changes apart from tensors."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # next batch of the epoch
    clips: int = 0
    seconds: float = 0.0
    best: float = math.inf


@dataclass(frozen=True)
class Report:
    """What the run tells after a step, for whoever shows it."""

    progress: Progress
    loss: float
    lr: float
    grad_norm: float
    clips_per_s: float
    share: float  # of the run that is done
    evaluation: dict[str, Any] | None = None


class Trainer:
    """A training run in a folder. `fit` yields a `Report` after each step."""

    def __init__(self, config: TrainConfig, out: Path, *, resume: bool = False) -> None:
        self.config, self.out, self._resumed = config, out, resume
        state = read_state(out) if resume else None
        self.ranks = Ranks(config.device)
        self.device = self.ranks.device
        self.dtype = pick_dtype(config.dtype, self.device)
        keep_freed_memory()
        torch.manual_seed(config.seed)
        self._warnings: list[str] = []
        self._judged_on = "the evaluation split"
        initial = None
        if config.init:  # of a run that is resumed, what it began with may be gone
            initial = build(config_from_dict(state["network"])) if state else weights.load(config.init).train()
        self._channels = initial.config.image_channels if initial else 1  # of frames from a folder of videos
        self._init_config = initial.config if initial else None
        c = config
        declared = Declared.parse(
            c.layout, c.range, c.missing, variable=c.variable, select=c.select, transform=c.transform
        )
        self._source = data.DataSource(Path(config.data), config.dataset or None, declared)
        self.train_set = self._open("train", augment=config.augment)
        self.eval_set = self._open_eval()
        if config.batch_size % self.ranks.world:
            raise InputError(
                f"a batch of {config.batch_size} cannot be shared by {self.ranks.world} processes",
                "change --batch-size",
            )
        self.batches_per_epoch = len(self.train_set) // config.batch_size
        if not self.batches_per_epoch:
            raise InputError(
                f"a batch of {config.batch_size} is larger than the data ({len(self.train_set)} clips)",
                "give a smaller --batch-size",
            )
        self.model = self._make_model(state, initial).to(self.device)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = make_optimizers(self.model, config.optimizer, lr=config.lr, weight_decay=config.weight_decay)
        self.base_rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        self.progress = Progress()
        self.stop = False
        self._changes = ""
        if state is not None:
            if state["passed over"]:
                self._warnings.append(f"warning: {state['passed over']}; going on from the one before")
            self._load(state)
        loss = make_loss(self.model, config)
        self.loss: nn.Module = _distributed(loss) if self.ranks.world > 1 else loss

    def _open(self, split: str, *, augment: bool = False) -> data.ClipDataset:
        c, of_grids = self.config, self._known_of_grids()
        clips = self._source.clips(
            split, context=c.context, horizon=c.horizon, size=c.size or None, channels=self._channels, augment=augment,
            crop=c.crop or (c.size if of_grids else None) or None, weigh_sets=c.weigh_sets, holdout=c.holdout,
            **of_grids,
        )  # fmt: skip
        if not (augment and c.scenes):
            return clips
        _, C, H, W = clips.clip_shape
        if C != 1 or H != W:  # as grids have it
            self._warnings.append(f"no scenes of moving layers: they are made of square gray clips, not {C}x{H}x{W}")
            return clips
        if of_grids:
            return data.ClipsAndWeather(clips, c.scenes)
        return data.ClipsAndScenes(clips, c.scenes, c.context)

    def _known_of_grids(self) -> dict[str, Any]:
        """What the weights to start from know of grids in such units, which others must not find anew; else nothing."""
        if not self._source.is_series:
            return {}
        before = self._init_config
        if before is None:
            return {"divided_by": 1.0}
        known = weights.learned(before, "", self._source.units, declared=True)
        return {"divided_by": before.divided_by, "learned": known}

    def _open_eval(self) -> data.ClipDataset:
        """The validation split, else the test split, else, for want of any other, the training split."""
        why: list[str] = []
        for split in ("val", "test"):
            try:
                clips = self._open(split)
            except InputError as error:
                if self.config.holdout:
                    raise
                why.append(error.what)
                continue
            if clips.has_own_split:
                return clips
            why.append(f"{clips.name} has no {split} split of its own")
        self._warnings.append(f"warning: evaluating on training clips, as {why[-1]}")
        self._judged_on = "training clips"
        return self._open("train")

    def _make_model(self, state: dict[str, Any] | None, initial: Network | None) -> Network:
        c = self.config
        if state is not None and initial is not None:
            return initial
        _, channels, height, width = self.eval_set.clip_shape  # training clips may be cut to less
        made_for: dict[str, Any] = {"image_size": (height, width), "context": c.context, "horizon": c.horizon}
        made_for |= {"divided_by": self._divided_by(), **self.train_set.seen}
        if initial is None:
            return build(adapted(NETWORKS[c.preset], image_channels=channels, **made_for))
        before, initial.config = initial.config, adapted(initial.config, **made_for)
        if isinstance(before, VMRNNConfig) and before.image_channels != channels:
            raise InputError(
                f"the weights want {before.image_channels} channels and the data has {channels}", "change --init"
            )
        if _made_for(before) != _made_for(initial.config):
            self._warnings.append(f"{c.init} was made for {_made_for(before)}; now {_made_for(initial.config)}")
        return initial

    def _divided_by(self) -> float:
        """Of grids with coordinates what the weights had, which then is their range."""
        before = self._init_config
        kept = before.divided_by if before is not None and self._source.is_grid and not self._source.has_range else 1.0
        return self.train_set.divided_by or kept

    def describe(self) -> list[str]:
        """What is about to happen, a line each."""
        parameters = sum(p.numel() for p in self.model.parameters())
        lines = [*self.train_set.describe(), *self.eval_set.describe(), *self._warnings]
        lines.append(
            f"{self.config.preset}: VMRNN-{self.model.config.variant}, {parameters:,} parameters, on "
            f"{self._averaged().runs_on}, {self.ranks.world} process(es)"
        )
        if self.config.init and not self.progress.step:
            lines.append(f"starting from {self.config.init}")
        if self.progress.step:
            lines.append(f"resuming {self.out} at step {self.progress.step}{self._changes}")
        return lines

    def dry_run(self) -> list[str]:
        """Take two steps over whole clips, change nothing on disk, and tell what they cost."""
        self.config = dataclasses.replace(self.config, curriculum=[])  # the costliest steps are what must fit
        clips = self._clips()
        self._step(next(clips))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the choice among kernels took more
        begin = time.monotonic()
        self._step(next(clips))
        seconds = time.monotonic() - begin
        return [
            f"peak memory {peak_gib(self.device):.2f} GiB",
            f"{seconds:.2f} s a step, {seconds * self.batches_per_epoch / 60:.1f} min an epoch of "
            f"{self.batches_per_epoch} steps",
            f"would write to {self.out}: {SETTINGS_NAME}, {STATE_NAME}, {CHECKPOINT_NAME}, best/, metrics.csv, "
            "curves.png, report.html, samples/",
        ]

    @contextlib.contextmanager
    def folder(self) -> Iterator[None]:
        """Make the run's folder, or clear it of what a killed run left, and keep other runs out while the block lasts.

        Raises:
            InputError: another run is writing there, or has been while this one began.
        """
        make_folder(self.out)
        with locked(self.out, inside=True):
            if not self._resumed and has_state(self.out):
                raise InputError(f"{self.out} already holds a run", "pass --resume to go on with it, or another --out")
            for folder in (self.out, self.out / "best", self.out / "samples"):
                remove_leftovers(folder)
            with atomic_path(self.out / SETTINGS_NAME, overwrite=True) as path:
                path.write_text(config_to_toml(self.config), "utf-8", "backslashreplace")
            yield

    # ---- steps

    def total_steps(self) -> int | None:
        """Steps of the whole run, None where only time limits it."""
        limits = self.config.steps, self.config.epochs * self.batches_per_epoch
        return min(filter(None, limits), default=None)

    def share(self) -> float:
        """How much of the run is done, in [0, 1]; by steps if they are limited, so that speed plays no part."""
        total = self.total_steps()
        done = self.progress.step / total if total else self.progress.seconds / self.config.max_time
        return min(1.0, done)

    def fit(self) -> Iterator[Report]:
        """Train to the end of the run, or until `stop` is set; checkpoint on the way and at the end.

        Raises:
            VMRNNError: the loss is not finite; says at which step and where the last good checkpoint is.
        """
        begin, before = time.monotonic(), self.progress.seconds
        evaluation: dict[str, Any] | None = None
        for clips in self._clips():
            self.stop = self.ranks.any(self.stop)
            if self.stop or self._finished():
                break
            started = time.monotonic()
            loss, norm, rate = self._step(clips)
            p = self.progress
            p.step, p.batch, p.clips = p.step + 1, p.batch + 1, p.clips + self.config.batch_size
            if p.batch == self.batches_per_epoch:
                p.epoch, p.batch = p.epoch + 1, 0
            # Of the slowest rank: by time, too, all ranks decide alike.
            p.seconds = self.ranks.max(before + time.monotonic() - begin)
            speed = self.config.batch_size / (time.monotonic() - started)
            evaluation = None
            if p.step % self.config.eval_every == 0 or self._finished():
                evaluation = self.evaluate()
            yield Report(dataclasses.replace(p), loss, rate, norm, speed, self.share(), evaluation)
            if p.step % self.config.checkpoint_every == 0:
                self.save()  # after the report, so that no log lacks a step that the checkpoint has
        self.save()

    def _finished(self) -> bool:
        late = bool(self.config.max_time) and self.progress.seconds >= self.config.max_time
        return late or self.share() >= 1.0

    def _clips(self) -> Iterator[Tensor]:
        """Batches of this rank, (B, T, C, H, W) float32 in [0, 1], from where the run is; without end."""
        c = self.config
        for epoch in itertools.count(self.progress.epoch):
            batches = data.batches(
                self.train_set, c.batch_size, seed=c.seed, epoch=epoch, start=self.progress.batch, workers=c.workers,
                rank=self.ranks.rank, world=self.ranks.world,
            )  # fmt: skip
            for batch in batches:
                yield batch.to(self.device, non_blocking=True)

    def _step(self, clips: Tensor) -> tuple[float, float, float]:
        """One update: loss, gradient norm and learning rate."""
        c, share = self.config, self.share()
        # What is random in a step (drop path) depends on its number: a resumed run draws the same.
        torch.manual_seed(seed_of(c.seed, self.progress.step, self.ranks.rank))
        rate = learning_rate(c, share)
        for base, group in zip(self.base_rates, self._groups(), strict=True):
            group["lr"] = base * rate
        stage = next(([given, ahead] for until, given, ahead in c.curriculum if share < until), [c.context, c.horizon])
        context, horizon = min(int(stage[0]), c.context), min(int(stage[1]), c.horizon)
        clips = clips[:, : context + horizon]
        with autocast(self.device, self.dtype):
            loss = self.loss(clips, context, self._forced(clips, context, share))
        value = self.ranks.mean(loss)
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value} at step {self.progress.step + 1}")
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), c.clip_norm or math.inf))
        if not math.isfinite(norm):  # an update would spoil the weights
            raise self._diverged(f"the gradient's norm is {norm} at step {self.progress.step + 1}")
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._update_ema()
        return value, norm, rate * c.lr

    def _diverged(self, what: str) -> VMRNNError:
        saved = f"{self.out / STATE_NAME}" if (self.out / STATE_NAME).exists() else "none was written yet"
        return VMRNNError(what, f"lower --lr, or go on with --resume from the last good checkpoint ({saved})")

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _forced(self, clips: Tensor, context: int, share: float) -> Tensor | None:
        """Which inputs beyond the context are true frames: ever fewer. A resumed run draws the same."""
        if share >= self.config.teacher_forcing:
            return None
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, self.progress.step, self.ranks.rank, 1))
        drawn = torch.rand(clips.shape[1] - context, clips.shape[0], generator=generator)
        return (drawn < 1 - share / self.config.teacher_forcing).to(self.device)

    @torch.no_grad()
    def _update_ema(self) -> None:
        keep = min(self.config.ema, (1 + self.progress.step) / (10 + self.progress.step)) if self.config.ema else 0.0
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - keep)

    # ---- evaluation

    def _averaged(self) -> Predictor:
        return Predictor(self.ema, device=str(self.device), dtype=self.config.dtype)

    def evaluate(self) -> dict[str, Any]:
        """Score the averaged weights on evaluation clips, a share on each rank; rank 0 keeps the best in `best/`.

        The clips are spread over the split: neighbours show the same person where they come from footage.

        Raises:
            VMRNNError: the forecasts are not finite.
        """
        c = self.config
        try:
            scores = evaluate(
                self._averaged(), self.eval_set, context=c.context, horizon=c.horizon,
                batch_size=min(c.batch_size, -(-c.eval_clips // self.ranks.world)),  # so that no rank is idle
                limit=c.eval_clips, spread=True, names=FAST, keep_worst=1, ranks=self.ranks,
            )  # fmt: skip
        except NotFiniteError as error:
            raise self._diverged(f"{error.what} at step {self.progress.step}") from error
        summary = scores.summary()
        better = summary["mse"] < self.progress.best
        self.progress.best = min(summary["mse"], self.progress.best)
        if self.ranks.rank == 0:
            self._write_sample(scores)
            if better:
                self._write_best(summary)
        return summary

    def _write_best(self, summary: dict[str, Any]) -> None:
        folder = self.out / "best"
        make_folder(folder)
        pretrained.save_model(self.ema, folder, half=False)
        with atomic_path(folder / "README.md", overwrite=True) as path:
            path.write_text(self._card(summary), "utf-8", "backslashreplace")

    def _card(self, summary: dict[str, Any]) -> str:
        c, p = self.config, self.progress
        budget = {
            "steps": p.step,
            "clips": p.clips,
            "minutes": f"{p.seconds / 60:.1f}",
            "machine": f"{self.device}, {torch.get_num_threads()} threads, {self.ranks.world} process(es)",
            "recipe": f"{c.optimizer}, rate {c.lr}, batch {c.batch_size}, loss {c.loss}, EMA {c.ema}, seed {c.seed}",
            "code": code_version(),
        }
        return model_card(
            self.model.config, self.train_set.name, f"{self._judged_on} of {self.eval_set.name}", budget, summary
        )

    def _write_sample(self, scores: Evaluation) -> None:
        folder = self.out / "samples"
        make_folder(folder)
        forecast = scores.worst[0].forecast(f"step {self.progress.step}")
        forecast.save(folder / f"step-{self.progress.step:07d}.png", overwrite=True)

    # ---- checkpoints

    def save(self) -> None:
        """Write the state of the run and its weights; the state before is kept. Rank 0 only."""
        if self.ranks.rank:
            return
        make_folder(self.out)
        state = {
            "config": {**vars(self.config), "data": str(Path(self.config.data).resolve())},
            "network": config_to_dict(self.model.config),
            "data": self._data_seen(),
            "progress": vars(self.progress),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        write_state(self.out, state)
        pretrained.save_tensors(self.model, self.out / CHECKPOINT_NAME)

    def _load(self, state: dict[str, Any]) -> None:
        for what, mine, theirs in (
            ("network", config_to_dict(self.model.config), state["network"]),
            ("data", self._identity(vars(self.config)), self._identity(state["config"])),
            ("data", self._data_seen(), state.get("data") or self._data_seen()),  # older checkpoints do not say
        ):
            different = [key for key in mine if json.dumps(mine[key]) != json.dumps(theirs.get(key))]
            if different:
                raise InputError(
                    f"{self.out} was trained with another {what}: "
                    + ", ".join(f"{key} was {theirs.get(key)!r} and is {mine[key]!r}" for key in different),
                    "resume with the options it had, or start a new run with --out",
                )
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        decays = [group["weight_decay"] for group in self._groups()]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for group, decay in zip(self._groups(), decays, strict=True):  # what is given now counts
            group["weight_decay"] = decay
        self.progress = Progress(**state["progress"])
        before = {**state["config"], "data": self.config.data, "init": self.config.init}
        changed = [key for key, value in vars(self.config).items() if key in before and before[key] != value]
        self._changes = "".join(f", {key} was {before[key]} and is {getattr(self.config, key)}" for key in changed)

    def _data_seen(self) -> dict[str, Any]:
        """What shows that a path holds other data than before."""
        seen = {"number of clips": len(self.train_set), "clip shape": list(self.train_set.clip_shape)}
        c = self.config
        of_grids = {"variable": c.variable, "select": c.select, "transform": c.transform, "holdout": c.holdout}
        return seen | (of_grids if self._source.is_series else {})

    @staticmethod
    def _identity(config: dict[str, Any]) -> dict[str, Any]:
        """What must not change between the parts of a run."""
        same = ("dataset", "context", "horizon", "size", "crop", "batch_size", "optimizer", "seed")
        return {"data": str(Path(config["data"]).resolve()), **{key: config[key] for key in same}}


def handle_signals(trainer: Trainer) -> None:
    """Let a signal that asks to end end the run after the current step, with a checkpoint; a later one at once.

    Signals that come together mean the same: a terminal that closes, and those who tidy up after it, send several.
    """
    first = math.inf

    def stop(number: int, frame: object) -> None:
        nonlocal first
        if time.monotonic() - first > interrupts.TOGETHER:
            raise KeyboardInterrupt
        first, trainer.stop = min(first, time.monotonic()), True

    for number in interrupts.signals():
        signal.signal(number, stop)


def peak_gib(device: torch.device) -> float:
    """The most memory that this process has had, in GiB: the GPU's on one; NaN on Windows, which does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
