"""What a training run is to be, and in which folder: options, a file of settings and an earlier part, put together."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import data, outputs, train, weights
from .config import MotionConfig
from .errors import InputError, os_failures
from .frames import parse_side
from .readings import Declared
from .recipes import RECIPES, TrainConfig, make_config
from .run_state import has_state


def plan(
    options: Mapping[str, Any], config: Path | None, out: Path | None, *, resume: bool, fresh: bool = True
) -> tuple[TrainConfig, Path, bool]:
    """Put together the settings of a run, its folder, and whether it goes on from a checkpoint there.

    Args:
        options: of `vmrnn train`, by name; None where they are not given. Others than settings are ignored.
        config: a TOML file of settings, which options go over.
        out: the run's folder; default runs/DATA-PRESET.
        resume: go on from the last checkpoint there. Where torchrun starts the processes anew, this is done anyway.
        fresh: refuse a folder that holds a run already, unless it is gone on with.

    Raises:
        InputError: no data, a setting that cannot be, or a folder that cannot be written.
    """
    flags = {"horizon": options["frames"], "range": options["value_range"], **options}
    flags = {field.name: flags.get(field.name) for field in dataclasses.fields(TrainConfig)}
    path = None if flags["data"] is None else str(flags["data"])
    flags |= {
        "data": path,
        "size": parse_side(flags["size"]),
        "select": flags["select"] or None,
        "max_time": parse_time(flags["max_time"]),
    }
    given = read_toml(config) if config else {}
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if not resume:
        flags |= _initial(flags, given)
    settings = make_config(given, flags, file=config)
    if not settings.data and not (resume and out):
        raise InputError("there is no data", "name some with --data, or a run to go on with: --resume --out runs/NAME")
    folder = out or Path("runs") / f"{Path(outputs.given_name(Path(settings.data))).stem}-{settings.preset}"
    resume = resume or (restarted and has_state(folder))
    if resume and (folder / train.SETTINGS_NAME).exists():  # the run's own settings, under what is given now
        kept = folder / train.SETTINGS_NAME
        settings = make_config(given, flags, read_toml(kept), file=config, before_file=kept)
    if not settings.data:
        raise InputError(f"{folder / train.SETTINGS_NAME} names no data", "name some with --data")
    _check_folder(folder, fresh=fresh and not (resume or restarted))
    return settings, folder, resume


def _initial(flags: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a fresh run begins with: clips and grids with our own weights that fit them, unless told otherwise."""
    if flags["init"] == "none":
        usual = weights.default_name() if not (flags["preset"] or "preset" in given) else None
        return {"init": "", "preset": flags["preset"] or usual}
    init = flags["init"] or given.get("init")
    if init and init not in tuple(RECIPES) and not (flags["preset"] or "preset" in given):
        return _recipe_of(init)
    told = any(flags[name] or name in given for name in ("init", "preset"))
    path, dataset = flags["data"] or given.get("data"), flags["dataset"] or given.get("dataset")
    if told or not path:
        return {}
    if data.is_series(Path(path), dataset or None):
        said = {key: flags[key] or given.get(key) for key in ("range", "missing", "variable", "select", "transform")}
        source = data.DataSource(Path(path), dataset or None, Declared.parse(None, said.pop("range"), **said))
        name = weights.default_name(source.first_frame(), source.units)
        return {"init": name, **_recipe_of(name)}
    return {"init": weights.default_name()} if data.is_footage(Path(path), dataset) else {}


def _recipe_of(name: str) -> dict[str, str]:
    """The preset for weights that carry the picture on and have no recipe of their name; nothing for others."""
    if name in RECIPES or not isinstance(weights.load(name).config, MotionConfig):
        return {}
    return {"preset": weights.default_name()}


def _check_folder(folder: Path, *, fresh: bool) -> None:
    """Refuse a folder that cannot be written, or that holds a run where a fresh one is to begin."""
    outputs.check_folder(folder, "--out")
    if not (fresh and folder.exists()):
        return
    if has_state(folder):
        raise InputError(f"{folder} already holds a run", "pass --resume to go on with it, or another --out")
    # What a run leaves that ended before its first checkpoint.
    started = re.compile(r"config\.toml|metrics\.csv|curves\.png|report\.html|samples|events\.out\..*|\.vmrnn-.*")
    other = [path.name for path in folder.iterdir() if not started.fullmatch(path.name)]
    if other:
        raise InputError(f"{folder} is not empty: it holds {min(other)}", "name another --out")


def parse_time(text: str | None) -> float | None:
    """Seconds of "90s", "25m" or "2h"; None for None. Raises InputError for anything else."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"'{text}' is no time", "write it as 90s, 25m or 2h")
    return seconds


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a TOML file. Raises InputError if it cannot be read."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with os_failures(f"cannot read {path}"), path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}", "write key = value lines") from None
