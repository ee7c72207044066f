"""What defines a training run: its configuration, the published recipes and our own."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError


@dataclass(frozen=True)
class TrainConfig:
    """Everything that defines a run, saved as config.toml. What is None is the preset's or the data's to say."""

    data: str = ""
    dataset: str = ""  # "": by what `data` holds
    layout: str = ""  # which axis of an array is what, "": by its shape
    range: str = ""  # "LO,HI", which of its values are black and white, "": by their type
    missing: str = ""  # the value that stands for none
    variable: str = ""  # of grids, as what follows
    select: list[str] = field(default_factory=list)  # "level=850"
    transform: str = ""
    holdout: str = ""  # events that are not trained on but for validation, "": the last tenth of them
    preset: str = "tiny"
    init: str = ""  # weights to start from
    context: int = 10
    horizon: int = 10
    size: int = 0  # side of the squares that clips from folders are scaled and cut to; 0: as the data set is
    crop: int = 0  # side of the squares that training clips are cut to within those; 0: whole
    weigh_sets: bool = False  # of the sets that a folder's split.csv names, the large ones less often than their share
    scenes: float = 0.0  # share of the training clips that are scenes of moving layers, made of the others
    batch_size: int = 16  # of all machines together
    epochs: int = 0
    steps: int = 0
    max_time: float = 0.0  # seconds
    optimizer: str = "muon"  # or "adam", as published
    lr: float = 0.008  # of Muon; AdamW beside it has a quarter
    weight_decay: float = 0.01
    loss: str = "mse+bce"  # sum of LOSS_TERMS, perhaps with weights: "mse+0.1*ssim"; ssim is 1 - SSIM
    burn_in: int = 0  # so many outputs at the start bear no loss: one frame does not tell how things move
    schedule: str = "linear"  # or "cosine"; how the rate falls to `final_lr` after the warm-up and the plateau
    warmup: float = 0.01  # share of the run
    warmup_from: float = 0.1  # share of the rate
    plateau: float = 0.4  # share of the run
    final_lr: float = 0.01  # share of the rate
    clip_norm: float = 1.0
    ema: float = 0.998
    teacher_forcing: float = 0.0  # share of the run over which true frames give way to the network's own
    curriculum: list[list[float]] = field(default_factory=list)  # [until this share of the run, context, horizon]
    augment: bool = True
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    memory: str = "normal"  # or "low": recompute each time step in the backward pass
    workers: int = 0
    checkpoint_every: int = 200  # steps
    eval_every: int = 1000  # steps
    eval_clips: int = 64


# What the authors used, and our own default for everything else.
PUBLISHED: dict[str, Any] = {
    "optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "schedule": "cosine", "plateau": 0.0, "final_lr": 0.01,
    "clip_norm": 0.0, "ema": 0.0, "augment": False,
}  # fmt: skip
# What networks can be trained for, by architecture: see `train.RolloutLoss` and `motion_loss.MotionLoss`.
LOSS_TERMS = {
    "VMRNN": ("mse", "l1", "bce", "ssim"),
    "MotionVMRNN": ("mse", "l1", "edges", "choice", "texture"),
}
# How the networks of `networks.NETWORKS` are trained: `--preset` names both.
RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {"batch_size": 8, "epochs": 1},
    "vmrnn-b-mmnist": {"batch_size": 8, "max_time": 4800.0, "curriculum": [[0.3, 5, 3], [0.5, 8, 5]]},
    "vmrnn-d-mmnist-small": {"batch_size": 8, "max_time": 4800.0, "curriculum": [[0.2, 5, 3], [0.35, 8, 5]]},
    "vmrnn-d-motion": {
        "size": 128, "batch_size": 8, "horizon": 20, "weigh_sets": True, "scenes": 0.4, "max_time": 7200.0,
        "lr": 0.003, "eval_every": 500, "eval_clips": 80, "loss": "mse+0.5*l1+0.5*edges+0.5*choice+0.2*texture",
    },
    "vmrnn-d-radar": {  # from the weights for footage, that is, from `--init vmrnn-d-motion`
        "size": 160, "batch_size": 6, "horizon": 12, "scenes": 0.25, "max_time": 900.0, "lr": 0.0012,
        "loss": "mse+0.3*l1+0.1*edges",
    },
    "vmrnn-b-bikenyc": {
        "batch_size": 32, "context": 4, "horizon": 4, "loss": "mse", "max_time": 1500.0, "eval_every": 200,
        "eval_clips": 237,
    },
    "vmrnn-d-mmnist": {**PUBLISHED, "loss": "mse+l1", "warmup": 0.0, "plateau": 1.0, "epochs": 2000},
    "vmrnn-b-kth": {**PUBLISHED, "loss": "mse", "warmup": 0.05, "epochs": 100, "horizon": 20, "batch_size": 4},
    "vmrnn-b-taxibj": {  # the rate of its script for one GPU; its configuration has 1e-4, and batches of 4
        **PUBLISHED, "lr": 4e-4, "final_lr": 0.0025, "loss": "mse", "warmup": 0.025, "warmup_from": 0.025,
        "epochs": 200, "context": 4, "horizon": 4,
    },
}  # fmt: skip

_BOUNDS = {
    (1, 2**31): ("batch_size", "context", "horizon", "checkpoint_every", "eval_every", "eval_clips"),
    (0, 2**31): ("epochs", "steps", "size", "crop", "workers", "max_time", "weight_decay", "clip_norm"),
    (0, 2**63 - 1): ("seed",),
    (0, 1): ("scenes", "warmup", "warmup_from", "plateau", "final_lr", "ema", "teacher_forcing"),
}
_CHOICES = {"optimizer": ("muon", "adam"), "schedule": ("linear", "cosine"), "memory": ("normal", "low")}
_LIMITS = {"epochs", "steps", "max_time"}


def make_config(
    file_values: dict[str, Any], flags: dict[str, Any], before: dict[str, Any] | None = None, *,
    file: Path | None = None, before_file: Path | None = None,
) -> TrainConfig:  # fmt: skip
    """The preset, the values of a config file over it, and the command line over both.

    Without a preset, weights to start from bring that of their name, if there is one. Of a run that is resumed,
    `before` is what its config.toml holds, in place of the preset. `file` and `before_file` are where they were read.

    Raises:
        InputError: unknown preset, unknown key (the nearest one is named) or a value of the wrong type.
    """
    before = before or {}

    def place(key: str) -> str:
        """Where a value is from, for messages; nothing for those of the command line."""
        if flags.get(key) is not None or key not in before | file_values:
            return ""
        return f" in {(file if key in file_values else before_file) or 'the config file'}"

    init = flags.get("init") or file_values.get("init")
    usual = init if init in tuple(RECIPES) else TrainConfig.preset
    preset = flags.get("preset") or file_values.get("preset") or before.get("preset") or usual
    if preset not in tuple(RECIPES):  # nor is what cannot be a key
        raise InputError(f"there is no preset '{preset}'{place('preset')}", f"use one of {', '.join(RECIPES)}")
    values = {**(before or RECIPES[preset]), "preset": preset}
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    for key, value in (before | file_values).items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            todo = f"did you mean '{near[0]}'?" if near else f"use some of {', '.join(fields)}"
            raise InputError(f"there is an unknown key '{key}'{place(key)}", todo)
        wanted = list if key in ("curriculum", "select") else type(fields[key].default)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            raise InputError(f"'{key}'{place(key)} is {value!r}", f"give a {wanted.__name__}")
        values[key] = value
    values["preset"] = preset
    values |= {key: value for key, value in flags.items() if value is not None}
    asked = {limit for limit in _LIMITS if flags.get(limit) is not None or limit in file_values}
    if asked:
        values |= dict.fromkeys(_LIMITS - asked, 0)  # limits that were asked for replace the preset's
    config = TrainConfig(**values)
    if not (config.epochs > 0 or config.steps > 0 or config.max_time > 0):
        raise InputError("the run has no end", "give --epochs, --steps or --max-time")
    for (low, high), names in _BOUNDS.items():
        for name in names:
            if not low <= getattr(config, name) <= high:  # nor is NaN
                raise InputError(
                    f"{name}{place(name)} is {getattr(config, name)}", f"give a number from {low} to {high}"
                )
    if not 0 < config.lr < math.inf:
        raise InputError(f"lr{place('lr')} is {config.lr}", "give a number above 0")
    if not all(isinstance(each, str) for each in config.select):
        raise InputError(f"select{place('select')} is {config.select}", 'write it as ["level=850"]')
    for stage in config.curriculum:
        if not _is_stage(stage):
            raise InputError(
                f"{stage}{place('curriculum')} is no stage of a curriculum",
                "write [share of the run, context, horizon]",
            )
    shares = [stage[0] for stage in config.curriculum]
    if shares != sorted(shares):
        raise InputError(f"the stages of the curriculum end at {shares} of the run", "put the earlier ones first")
    shortest = min([config.context, *(int(stage[1]) for stage in config.curriculum)])
    if not 0 <= config.burn_in < shortest:
        raise InputError(
            f"burn_in{place('burn_in')} is {config.burn_in}", f"give less than the context, which is {shortest} frames"
        )
    loss_terms(config.loss)
    for name, known in _CHOICES.items():
        if getattr(config, name) not in known:
            raise InputError(f"there is no {name} '{getattr(config, name)}'{place(name)}", f"use {' or '.join(known)}")
    return config


def _is_stage(stage: Any) -> bool:
    """Whether this is [share of the run, context, horizon]."""
    numbers = isinstance(stage, list) and len(stage) == 3 and all(type(value) in (int, float) for value in stage)
    return numbers and 0 <= stage[0] <= 1 and all(1 <= frames < math.inf for frames in stage[1:])


def loss_terms(loss: str, architecture: str = "") -> dict[str, float]:
    """The terms of a loss and their weights: "mse+0.1*ssim" -> {"mse": 1, "ssim": 0.1}.

    Raises:
        InputError: a term that networks of that architecture (or any) do not have, or a weight that is no positive
            number.
    """
    known = LOSS_TERMS[architecture] if architecture else tuple(dict.fromkeys(sum(LOSS_TERMS.values(), ())))
    terms = {}
    for term in loss.split("+"):
        weight, times, name = term.rpartition("*")
        try:
            value = float(weight) if times else 1.0
        except ValueError:
            value = math.nan
        terms[name.strip()] = math.nan if name.strip() in terms else value  # twice is a slip
    if not (set(terms) <= set(known)) or not all(0 < weight < math.inf for weight in terms.values()):
        what = f"there is no loss '{loss}'" + (f" of a {architecture}" if architecture else "")
        raise InputError(what, f"add up some of {', '.join(known)}, as in mse+0.1*l1")
    return terms


def config_to_toml(config: TrainConfig) -> str:
    """The config as TOML; strings, numbers and booleans are written as JSON writes them."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in vars(config).items())
