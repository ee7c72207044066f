"""Options that several commands share, each written once, and what they say before long work.

Nothing here imports PyTorch.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any, Protocol

import typer

from ..text import printable
from ..weights import registry

MODEL, CLIP, DATA, GRID, OUTPUT = "Model", "Clip", "Data", "Grid", "Output"  # panels of --help


def option(panel: str | None, text: str, *names: str, default: Any = None, **more: Any) -> Any:
    """An option of a command, shown in a panel of --help."""
    return typer.Option(default, *names, help=text, rich_help_panel=panel, **more)


def renamed(name: str) -> str:
    """The name that an option or a command has now: what typer calls `token_normalize_func`."""
    return {"horizon": "frames"}.get(name, name)


def typed(given: typer.Context) -> str:
    """The command with what was given to it, as one would type it again; without what only says what it prints."""
    words = ["vmrnn", str(given.info_name)]
    for parameter in given.command.params:
        source = given.get_parameter_source(str(parameter.name))
        value = given.params.get(str(parameter.name))
        if (
            source is None
            or source.name != "COMMANDLINE"
            or parameter.name in ("debug", "quiet", "as_json", "overwrite")
        ):
            continue
        words += [max(parameter.opts, key=len)] if parameter.param_type_name == "option" else []
        words += [str(each) for each in (value if isinstance(value, list) else [value]) if not isinstance(each, bool)]
    return shlex.join(words)


class Described(Protocol):
    """What people are told of before long work: a data set, weights on a device, a training."""

    def describe(self) -> list[str]:
        """Say in a line or a few what it is, and what to beware of."""


def announce(*things: Described) -> None:
    """Tell people what is about to be worked with."""
    print(*(printable(line) for thing in things for line in thing.describe()), sep="\n", file=sys.stderr)


DEBUG = option(None, "Show tracebacks instead of one-line errors.", "--debug", default=False)
QUIET = option(None, "Print nothing but results and errors.", "--quiet", "-q", default=False)
JSON = option(None, "Print one JSON object and nothing else.", "--json", default=False)
OVERWRITE = option(OUTPUT, "Replace existing outputs.", "--overwrite", default=False)
REPLACE = option(None, "Replace what is there.", "--overwrite", default=False)  # where that is all there is to output

WEIGHTS = option(
    MODEL,
    "Bundled name, folder, .safetensors, published .pth/.pt, or Hub id owner/name\\[@revision]. "
    "(default: bundled ones that fit)",
    autocompletion=lambda: list(registry()),
)
SCAN = option(MODEL, "Scan: auto, native, torch, reference, triton or mamba.", default="auto")
DEVICE = option(MODEL, "auto, cpu, cuda or mps.", default="auto")
DTYPE = option(MODEL, "auto, float32 or bfloat16, of the matrix products.", default="auto")
THREADS = option(MODEL, "CPU threads.")

CONTEXT = option(CLIP, "How many frames to start from. (default: as trained)")
FRAMES = option(CLIP, "How many frames to predict. (default: as trained)")

REPORT = option(
    OUTPUT, "Write a page of it: scores, curves, and clips that play. Opens without a network.", metavar="FILE.html"
)

DATASET = option(DATA, "Force kth, moving-mnist, taxibj, grid, clips or folder. (default: by what is there)")
SIDE = option(DATA, "Side of the squares that clips from a folder are scaled and cut to.", "--size", metavar="S|SxS")
LAYOUT = option(DATA, "Which axis of an array is what: THWC, say. (default: by its shape)", metavar="LAYOUT")
RANGE = option(
    DATA, "Which values are black and white: 0,4095, say. (default: by their type)", "--range", metavar="LO,HI"
)
VARIABLE = option(GRID, "Of a file with several.", metavar="NAME")
SELECT = option(
    GRID, "Of a dimension besides time and space, only this: level=850. (default: one after the other)", metavar="DIM=V"
)
HOLDOUT = option(
    GRID, "Events to validate by, by file or name, with commas. (default: the last tenth of them)", metavar="NAME"
)
GAPS = option(GRID, "Where scans are missing among the given ones: refuse or interpolate. (default: refuse)")
MATCH = option(
    GRID,
    "Give forecasts the values of the last frame again, in the places where they are likely. (default: of rain only)",
    "--match/--no-match",
)
TRANSFORM = option(GRID, "Of skewed values: none, log, sqrt or dB. (default: dB for rain rates, none for others)")
MISSING = option(DATA, "The value that stands for none: -9999, say. NaN always does.", metavar="V")
