r"""Score a bundled weights folder and write what people should know: its model card and its entry in the registry.

    python examples/training/describe_weights.py vmrnn-b-mmnist --data mnist --limit 1000 \
        --trained-on "Moving MNIST" --short "moving digits, 64x64 gray, 10 -> 10" \
        --budget minutes=80 --budget "machine=2 CPU threads" \
        --clip examples/digits.npz [--curve curve.csv] [--notes notes.md] --kind digits --same-size

`curve.csv` has lines of minutes, clips, MSE: the card shows it as curve.png, and a forecast of the clip beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

from vmrnn_cli import data, predict, weights
from vmrnn_cli.cards import model_card
from vmrnn_cli.errors import run_script
from vmrnn_cli.evaluate import evaluate
from vmrnn_cli.networks import WEIGHTS_NAME
from vmrnn_cli.outputs import atomic_path
from vmrnn_cli.predictor import Predictor


def main() -> None:
    """Write README.md in the weights folder, and registry.json beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--trained-on", required=True)
    parser.add_argument("--short", required=True)
    parser.add_argument("--budget", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--curve", type=Path)
    parser.add_argument("--clip", type=Path, help="a clip to show a forecast of")
    parser.add_argument("--notes", type=Path, help="Markdown that is put at the end of the card")
    parser.add_argument("--default", action="store_true", help="the weights that predict takes by itself")
    parser.add_argument("--kind", choices=("footage", "digits", "grid"), default="footage", help="what clips they fit")
    parser.add_argument("--units", action="append", help="of grids that they fit; default those it had")
    parser.add_argument("--same-size", action="store_true", help="they fit frames of their own size only")
    options = parser.parse_args()

    folder = weights.bundled_folder() / options.name
    model = weights.load(folder)
    context, horizon = model.config.context, model.config.horizon
    source = data.DataSource(options.data)
    clips = source.clips(
        options.split, context=context, horizon=horizon, size=min(model.config.image_size),
        divided_by=model.config.divided_by, learned=weights.learned(model.config, options.name, source.units),
    )  # fmt: skip
    result = evaluate(Predictor(model), clips, context=context, horizon=horizon, limit=options.limit)
    summary, budget = result.summary(), dict(entry.split("=", 1) for entry in options.budget)

    judged_on = f"the {options.split} split of {clips.name}"
    card = model_card(model.config, options.trained_on, judged_on, budget, summary, licence="apache-2.0")
    if options.clip is not None:
        predict(options.clip, weights=model).save(folder / "forecast.png", overwrite=True)
        card += f"\nA forecast of {options.clip.name}, which is drawn:\n\n![Forecast](forecast.png)\n"
    if options.curve is not None:
        draw_curve(options.curve, folder / "curve.png")
        card += "\nMSE on evaluation clips while it trained:\n\n![Learning curve](curve.png)\n"
    if options.notes is not None:
        card += "\n" + options.notes.read_text()
    with atomic_path(folder / "README.md", overwrite=True) as temporary:
        temporary.write_text(card)

    path = weights.bundled_folder() / weights.REGISTRY_NAME
    registry = json.loads(path.read_text())
    last = summary["baseline_last_frame"]
    fits: dict[str, object] = {"kind": options.kind, "channels": model.config.image_channels}
    if units := options.units or registry.get(options.name, {}).get("fits", {}).get("units"):
        fits["units"] = units
    if options.same_size:
        fits["sizes"] = [list(model.config.image_size)]
    if options.default:
        registry = {options.name: {}} | registry  # the first in the list too
        for entry in registry.values():
            entry.pop("default", None)
    registry[options.name] = {
        "data": options.short,
        "budget": ", ".join(f"{v} {k}" if k in ("minutes", "clips") else v for k, v in budget.items()),
        "metrics": f"MSE {summary['mse']:.4g} (last frame repeated {last['mse']:.4g}), SSIM {summary['ssim']:.3f} "
        f"({last['ssim']:.3f}) on {summary['clips']} clips",
        "licence": "Apache-2.0",
        "sha256": hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest(),
        "fits": fits,
        **({"default": True} if options.default else {}),
    }
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(registry, indent=2) + "\n")
    print(card)


def draw_curve(table: Path, picture: Path) -> None:
    """The learning curve: lines of minutes, clips, MSE."""
    minutes, clips, mse = np.loadtxt(table, delimiter=",", ndmin=2).T
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(minutes, mse, ".-")
    axes.set(xlabel="minutes", ylabel="MSE per frame")
    axes.set_title(f"{mse[-1]:.4g} after {clips[-1]:,.0f} clips", loc="right", fontsize=10)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    run_script(main)
