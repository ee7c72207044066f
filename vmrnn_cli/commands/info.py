"""`vmrnn info`: parameters and compute, as the paper counts and as they are."""

from __future__ import annotations

from typing import Any

import typer

from ..config import MotionConfig
from ..networks import NETWORKS
from .options import DEBUG, JSON

_CARRIED_ON = "how the frame is carried on"


def info(
    what: str | None = typer.Argument(
        None,
        metavar="[WEIGHTS or NETWORK]",
        help=f"What --weights takes, or the name of a network: {', '.join(NETWORKS)}. (default: as `vmrnn predict`)",
    ),
    flops: bool = typer.Option(False, "--flops", help="Also count operations."),
    size: str | None = typer.Option(None, metavar="WxH", help="Count for frames of this size. (default: as trained)"),
    as_json: bool = JSON,
    debug: bool = DEBUG,
) -> None:
    """Show a network: its shape, its parameters, and with --flops what a step and a clip cost."""
    facts = _facts(what, size)
    if as_json:
        import json

        print(json.dumps(facts))
        return
    labels = {
        "parameters_published": "  as published",
        "macs_per_step_published": "multiply-accumulates per step, as published",
        "macs_per_clip_published": "multiply-accumulates per clip, as published",
        "flops_per_step": "floating-point operations per step, scan included",
        "flops_per_clip": "floating-point operations per clip, scan included",
    }
    for key, value in facts.items():
        if "per_" in key and not flops:
            continue
        plain = ", ".join(map(str, value)) if isinstance(value, list) else value
        text = f"{value:,}" if isinstance(value, int) and value > 9999 else plain
        print(f"{labels.get(key, key.replace('_', ' ')):<50} {text}")
    if flops:
        steps = facts["flops_per_clip"] // facts["flops_per_step"]
        print(
            "\nAs published: convolutions, linear layers and einsums of one forward pass, one per multiply-accumulate;"
            "\nthe scan, norms and elementwise work left out. The parameters as published include tensors never used."
            f"\nA clip is {facts['context']} frames in, {facts['horizon']} out, {steps} steps."
        )
        if facts["predicts"] == _CARRIED_ON:
            print("Counted is what decides; the search for motion and the drawing are left out.")


def _facts(what: str | None, size: str | None) -> dict[str, Any]:
    from .. import flops as count
    from .. import published, scan, weights
    from ..devices import pick_device
    from ..errors import InputError
    from ..frames import parse_size
    from ..networks import build

    name = weights.default_name() if what is None else what
    untrained = name in NETWORKS and not weights.is_bundled(name)
    model = build(NETWORKS[name]) if untrained else weights.load(name)
    config = model.config
    chosen = parse_size(size) if size is not None else config.image_size
    grid = config.image_size if chosen is None else (chosen, chosen) if isinstance(chosen, int) else chosen
    if min(grid) < config.patch_size:
        raise InputError(f"frames of {grid[1]}x{grid[0]} are smaller than a patch of the model", "give a larger --size")
    rehearsed = config.context - config.context // 2 if isinstance(config, MotionConfig) else config.context - 1
    steps = rehearsed + config.horizon
    macs, operations = count.published_macs_per_step(config, grid), count.flops_per_step(config, grid)
    device = pick_device("auto")
    return {
        "name": name,
        "variant": config.variant,
        "image_channels": config.image_channels,
        "image_size": list(grid),
        "patch_size": config.patch_size,
        "embed_dim": config.embed_dim,
        "depths": [*config.depths, *config.depths_up],
        "predicts": _CARRIED_ON if isinstance(config, MotionConfig) else "the frame",
        "context": config.context,
        "horizon": config.horizon,
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_published": published.published_parameters(model),
        "macs_per_step_published": macs,
        "macs_per_clip_published": macs * steps,
        "flops_per_step": operations,
        "flops_per_clip": operations * steps,
        "scan_backend": scan.pick_backend("auto", device, config.d_state, model.rank),
        "device": str(device),
    }
