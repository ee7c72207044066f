"""`vmrnn compare`: several weights on the same clips, with intervals of their differences."""

from __future__ import annotations

import json
from collections import ChainMap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .. import interrupts
from ..errors import InputError
from ..text import printable
from ..weights import registry
from . import options, reports
from .options import DATA, MODEL, option

if TYPE_CHECKING:
    from ..batch import Loaded
    from ..data import ClipDataset, DataSource
    from ..evaluate import Scores
    from ..pages.report import Album

_WEIGHTS = option(
    MODEL,
    "Two or more, one after the other, each as for `vmrnn eval`.",
    metavar="A B ...",
    autocompletion=lambda: list(registry()),
)


def compare(
    given: typer.Context,
    more: list[str] = typer.Argument(None, metavar="WEIGHTS", hidden=True),
    data: Path = option(DATA, "As for `vmrnn eval`.", default=...),
    dataset: str | None = options.DATASET,
    split: str = option(DATA, "train, val, test or all.", default="test"),
    size: str | None = options.SIDE,
    limit: int | None = option(DATA, "Use only the first so many clips.", min=1),
    batch_size: int = option(DATA, "Clips at once.", default=16, min=1),
    context: int | None = option(options.CLIP, "How many frames to start from. (default: as the first was trained)"),
    frames: int | None = option(options.CLIP, "How many frames to predict. (default: as the first was trained)"),
    weights: list[str] | None = _WEIGHTS,
    scan: str = options.SCAN,
    device: str = options.DEVICE,
    dtype: str = options.DTYPE,
    threads: int | None = options.THREADS,
    report: Path | None = options.REPORT,
    overwrite: bool = options.OVERWRITE,
    as_json: bool = options.JSON,
    quiet: bool = options.QUIET,
    debug: bool = options.DEBUG,
) -> None:
    """Score several weights on the same clips, and tell what their differences are, with paired intervals."""
    names = _different([*(weights or []), *(more or [])])
    given.params |= {"weights": names, "more": []}
    reports.check(report, overwrite)
    with interrupts.deferred():
        from .. import batch, devices
        from ..data import DataSource
        from ..frames import parse_side
        from ..ranks import DAY, Ranks

    side = parse_side(size)
    devices.set_threads(threads)
    source = DataSource(data, dataset)
    ranks = Ranks(device, DAY)
    shown = ranks.rank == 0 and not (as_json or quiet)
    loaded = [batch.load(name, device=str(ranks.device), dtype=dtype, scan_backend=scan) for name in names]
    first = loaded[0].predictor.model.config
    context = first.context if context is None else context
    frames = first.horizon if frames is None else frames
    clips = _open(source, loaded, split, context, frames, side)
    if shown:
        options.announce(clips, *loaded)
    total = min(len(clips), limit or len(clips))
    album = reports.album(report, clips, limit, context)
    settings = {"context": context, "horizon": frames, "batch_size": batch_size, "limit": limit, "ranks": ranks}
    scores, summary = _score(_labelled(loaded, names), clips, album, total, shown, settings)
    played = ChainMap(*ranks.gather(album.clips if album else {}))
    ranks.leave()
    if ranks.rank:
        return  # every rank has the whole result, one tells it
    summary = {"data": str(data), "split": split, "clips": total, "context": context, "horizon": frames, **summary}
    print(json.dumps(summary)) if as_json else _print(summary)
    if report is not None:
        from ..outputs import atomic_path
        from ..pages.report import write_comparison

        known = reports.facts(summary, clips, loaded)
        with atomic_path(report, overwrite) as path:
            write_comparison(path, summary, scores, played, known, options.typed(given))


def _different(names: list[str]) -> list[str]:
    """The names, if they are two or more, each given once."""
    if len(names) < 2:
        raise InputError(f"{len(names)} weights make no comparison", "name two or more after --weights")
    if len(set(names)) < len(names):
        raise InputError(f"{max(names, key=names.count)} is named twice", "name different ones after --weights")
    return names


def _labelled(loaded: list[Loaded], names: list[str]) -> dict[str, Loaded]:
    """The weights by their short names, or as they were given where these are not unlike."""
    short = [each.name for each in loaded]
    return dict(zip(short if len(set(short)) == len(short) else names, loaded, strict=True))


def _score(
    loaded: dict[str, Loaded], clips: ClipDataset, album: Album | None, total: int, shown: bool,
    settings: dict[str, Any],
) -> tuple[dict[str, Scores], dict[str, Any]]:  # fmt: skip
    """The scores of all weights, and what is to be told of them; `settings` are those of `evaluate`."""
    from .. import evaluate as evaluation

    results: dict[str, Any] = {}
    for place, (label, each) in enumerate(loaded.items()):
        if album is not None:
            album.begin(label, place)
        progress = reports.counter(total, of=f"{printable(label)}: ") if shown else None
        rivals = () if place else ("baseline_last_frame",)
        results[label] = evaluation.evaluate(
            each.predictor, clips, rivals=rivals, watch=album, progress=progress, **settings
        )  # fmt: skip
    scores = {label: result.model for label, result in results.items()}
    first = next(iter(results.values()))
    summary = {
        "weights": {label: each.summary(first.groups) for label, each in scores.items()},
        "baseline_last_frame": first.baselines["baseline_last_frame"].summary(first.groups),
        "differences": evaluation.compared(scores, first.groups),
    }
    return scores, summary


def _open(
    source: DataSource, loaded: list[Loaded], split: str, context: int, frames: int, side: int | None
) -> ClipDataset:  # fmt: skip
    """The clips of the first weights, if they are all others' as well."""
    from ..evaluate import open_clips

    config = loaded[0].predictor.model.config
    clips = open_clips(source, config, split, context, frames, side, name=loaded[0].name)
    *_, H, W = clips.clip_shape
    side = side or (W if H == W else None)  # what is not square is no clip of a folder, and taken as it is
    for other in loaded[1:]:
        theirs = open_clips(source, other.predictor.model.config, split, context, frames, side, name=other.name)
        for what, mine, other_s in (
            ("shape", clips.clip_shape, theirs.clip_shape), ("divisor", clips.divided_by, theirs.divided_by),
            ("range", clips.seen.get("range"), theirs.seen.get("range")),
        ):  # fmt: skip
            if mine != other_s:
                raise InputError(
                    f"{loaded[0].name} takes clips of {what} {mine} and {other.name} of {other_s}",
                    "compare weights for the same data",
                )
    return clips


def _print(summary: dict[str, Any]) -> None:
    from .. import metrics, score_text

    last = summary["baseline_last_frame"]
    reports.print_scores(summary, {**summary["weights"], "last frame repeated": last})
    for pair in summary["differences"]:
        of, less = printable(pair["of"]), printable(pair["less"])  # names may be of files
        print(f"{of} less {less}: lower MSE on {pair['lower_mse_on']:.0%} of the clips")
        for name in last["per_frame"]:
            value, around = score_text.difference(pair[name], name)
            print(f"  {metrics.NAMES[name]:<24} {value:>10}{f'  ({around})' if around else ''}")
