"""`vmrnn data`: download public data sets, make one, or look after decoded videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from ..errors import InputError
from ..text import printable
from .options import DEBUG, JSON, REPLACE

app = typer.Typer(no_args_is_help=True, help="Download or make data sets, or look after decoded videos.")


@app.command()
def get(
    what: str = typer.Argument(..., metavar="moving-mnist|kth|taxibj", help="The data set."),
    folder: Path = typer.Argument(..., metavar="DIR", help="Where its files go."),
    debug: bool = DEBUG,
) -> None:
    """Download a public data set.

    Run it again after an interruption: it goes on where it stopped.
    """
    from ..data.download import download

    download(what, folder, lambda line: print(printable(line)))


@app.command()
def make(
    what: str = typer.Argument(..., metavar="moving-mnist", help="The data set."),
    out: Path = typer.Argument(
        ..., metavar="OUT.npy", help="A test file of the published shape, (20, N, 64, 64) uint8."
    ),
    clips: int = typer.Option(10_000, min=1, help="How many clips."),
    seed: int = typer.Option(0, min=0, help="Of digits and paths."),
    digits: str = typer.Option("drawn", help="'drawn' by us, or an idx file, or a folder with MNIST's test digits."),
    overwrite: bool = REPLACE,
    debug: bool = DEBUG,
) -> None:
    """Make a Moving MNIST test file, from MNIST's digits or from digits that are drawn here."""
    if what != "moving-mnist":
        raise InputError(f"'{what}' cannot be made", "make moving-mnist")

    import numpy as np

    from ..data import moving_mnist
    from ..digits import draw_digit
    from ..outputs import check_target

    if out.suffix.lower() != ".npy":
        raise InputError(f"{out} is no .npy file", "end its name in .npy")
    check_target(out, overwrite)
    if digits == "drawn":
        rng = np.random.default_rng(seed)
        images = np.stack([draw_digit(number % 10, rng) for number in range(500)])
    else:
        given = Path(digits)
        path = given if given.is_file() else moving_mnist.find_digits(given, "test")
        if path is None:
            raise InputError(f"{digits} has no {moving_mnist.FILES['test']}", "give a folder with MNIST's idx files")
        images = moving_mnist.read_digits(path)
    moving_mnist.write_test_file(out, images, clips, seed, overwrite=overwrite)
    print(f"wrote {printable(out)}: {clips} clips of 20 frames")


@app.command()
def cache(
    clear: bool = typer.Option(False, "--clear", help="Remove them. No run should be using them meanwhile."),
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """List the decoded videos that training and evaluation keep, and what room they take."""
    import json

    from ..data import cache as decoded

    videos: list[dict[str, Any]] = []
    for path in decoded.cached_files():
        whole = decoded.open_cached(path, verify=False)
        shape = list(whole.shape) if whole else None
        videos.append({"file": path.name, "shape": shape, "bytes": path.stat().st_size})
        if clear:
            path.unlink()
    total = sum(video["bytes"] for video in videos)
    if as_json:
        facts = {"folder": str(decoded.cache_folder()), "bytes": total, "cleared": clear, "videos": videos}
        print(json.dumps(facts))
        return
    for video in videos:
        size = "x".join(map(str, video["shape"] or ["incomplete"]))
        print(f"{printable(video['file'])}  {size:<20} {video['bytes'] / 1e6:9.1f} MB")
    done = "removed from" if clear else "in"
    print(f"{len(videos)} decoded videos, {total / 1e6:.1f} MB, {done} {printable(decoded.cache_folder())}")
