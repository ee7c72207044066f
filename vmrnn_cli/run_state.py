"""The state of a training run on disk: `state.pt` and the one before it, both PyTorch's zip files of plain containers.

A zip file has a checksum of each of its parts. What does not fit its checksums, or is not the state of a run with such
networks and optimizers, is passed over for the state before.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .networks import build, config_from_json, config_to_dict
from .optim import make_optimizers
from .outputs import atomic_path

STATE_NAME, PREVIOUS_STATE_NAME = "state.pt", "state-previous.pt"
_COUNTS = ("step", "epoch", "batch", "clips")


def has_state(out: Path) -> bool:
    """Whether a run folder has something to resume from; killed while saving, only the state before."""
    return any((out / name).exists() for name in (STATE_NAME, PREVIOUS_STATE_NAME))


def write_state(out: Path, state: dict[str, Any]) -> None:
    """Write a state; the one before is kept. Raises VMRNNError if the disk is full."""
    content = io.BytesIO()  # given a file, PyTorch does not say that the disk is full
    torch.save(state, content)
    path = out / STATE_NAME
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_bytes(content.getbuffer())
        if path.exists():
            path.replace(out / PREVIOUS_STATE_NAME)  # killed here, a run resumes from the one before


def read_state(out: Path) -> dict[str, Any]:
    """The newest state of a run folder that is whole; under "passed over", what was wrong with a newer one, or None.

    Raises:
        InputError: there is none.
    """
    wrong = []
    for path in (out / STATE_NAME, out / PREVIOUS_STATE_NAME):
        if not path.exists():
            continue
        try:
            state = _read(path)
        except Exception as error:  # whatever damage makes of a zip file, of pickled containers and of what they hold
            wrong.append(f"{path} is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
            continue
        return state | {"passed over": "; ".join(wrong) or None}
    what = "; ".join(wrong) or f"there is no checkpoint in {out}"
    raise InputError(what, "check the folder, or start the run without --resume")


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        if (part := file.testzip()) is not None:
            raise ValueError(f"{part} does not fit its checksum")
    state = torch.load(path, map_location="cpu", weights_only=True)
    _is(isinstance(state, dict), "its content")
    _is({"config", "network", "progress", "model", "ema", "optimizers"} <= state.keys(), "its list of parts")
    network = json.dumps({"architecture": "VMRNN", **state["network"]})  # older ones do not say
    config = config_from_json(network, path)
    state["network"] = config_to_dict(config)
    _check_progress(state["progress"])
    tensors = state["model"]
    _is(isinstance(tensors, Mapping), "model")
    _is(sum((*config.depths, *config.depths_up)) <= len(tensors), "the number of its tensors")
    with torch.device("meta"):  # shapes only
        model = build(config)
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for part in ("model", "ema"):
        _is({name: _shape(tensor) for name, tensor in state[part].items()} == own, part)
    _is(isinstance(state["config"], dict) and isinstance(state["config"].get("optimizer"), str), "config")
    optimizers = make_optimizers(model, state["config"]["optimizer"], lr=1.0, weight_decay=0.0)
    _is(len(state["optimizers"]) == len(optimizers), "the number of optimizers")
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        _check_optimizer(optimizer, saved)
    return state


def _is(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"{what} is not that of a run")


def _check_progress(progress: dict[str, Any]) -> None:
    counts = [progress[name] for name in _COUNTS]
    _is(progress.keys() == {*_COUNTS, "seconds", "best"}, "progress")
    _is(all(type(count) is int and 0 <= count < 2**53 for count in counts), "progress")
    _is(all(type(progress[name]) in (int, float) for name in ("seconds", "best")), "progress")
    _is(0 <= progress["seconds"] < math.inf and progress["best"] >= 0, "progress")


def _shape(tensor: Any) -> Any:
    return tensor.shape if isinstance(tensor, Tensor) and tensor.dtype == torch.float32 else None


def _check_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Refuse what its `load_state_dict` would take and its next step would stumble over."""
    _is(len(saved["param_groups"]) == len(optimizer.param_groups), "an optimizer's number of groups")
    shapes: dict[int, torch.Size] = {}
    for group, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        _is(len(theirs["params"]) == len(group["params"]), "an optimizer's number of parameters")
        shapes |= {number: p.shape for number, p in zip(theirs["params"], group["params"], strict=True)}
        for name, value in group.items():
            numbers = value if isinstance(value, tuple) else (value,)
            given = theirs[name] if isinstance(value, tuple) else (theirs[name],)
            if all(isinstance(number, float) for number in numbers):
                _is(len(given) == len(numbers) and all(0 <= float(number) < math.inf for number in given), name)
    for number, slots in saved["state"].items():
        tensors = {name: slot for name, slot in slots.items() if name != "step"}
        _is(tensors.keys() <= {"exp_avg", "exp_avg_sq", "momentum"} and bool(tensors), "an optimizer's memory")
        _is(("exp_avg" in tensors) == ("exp_avg_sq" in tensors) == ("step" in slots), "an optimizer's memory")
        _is(all(_shape(slot) == shapes[number] for slot in tensors.values()), "an optimizer's memory")
        _is(0 <= float(slots.get("step", 0)) < math.inf, "an optimizer's step")
