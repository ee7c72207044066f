"""Options that several commands share, each written once, and what they say before long work.

Nothing here imports PyTorch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

import typer

from ..text import printable
from ..weights import registry

if TYPE_CHECKING:
    from ..readings import Declared

MODEL, CLIP, DATA, OUTPUT = "Model", "Clip", "Data", "Output"  # panels of --help


def option(panel: str | None, text: str, *names: str, default: Any = None, **more: Any) -> Any:
    """An option of a command, shown in a panel of --help."""
    return typer.Option(default, *names, help=text, rich_help_panel=panel, **more)


def renamed(name: str) -> str:
    """The name that an option or a command has now: what typer calls `token_normalize_func`."""
    return {"horizon": "frames"}.get(name, name)


class Described(Protocol):
    """What people are told of before long work: a data set, weights on a device, a training."""

    def describe(self) -> list[str]:
        """Say in a line or a few what it is, and what to beware of."""


def announce(*things: Described) -> None:
    """Tell people what is about to be worked with."""
    print(*(printable(line) for thing in things for line in thing.describe()), sep="\n", file=sys.stderr)


def declared(layout: str | None, value_range: str | None, missing: str | None) -> Declared:
    """What is said of arrays and images. Raises InputError if it cannot be."""
    from ..readings import Declared  # which imports NumPy

    return Declared.parse(layout, value_range, missing)


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

DATASET = option(DATA, "Force kth, moving-mnist, taxibj, grid, clips or folder. (default: by what is there)")
SIDE = option(DATA, "Side of the squares that clips from a folder are scaled and cut to.", "--size", metavar="S|SxS")
LAYOUT = option(DATA, "Which axis of an array is what: THWC, say. (default: by its shape)", metavar="LAYOUT")
RANGE = option(
    DATA, "Which values are black and white: 0,4095, say. (default: by their type)", "--range", metavar="LO,HI"
)
MISSING = option(DATA, "The value that stands for none: -9999, say. NaN always does.", metavar="V")
