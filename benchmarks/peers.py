"""Ours and others' networks on this machine: seconds a clip, the same clip, the same number of frames, in one run.

    git clone https://github.com/chengtan9907/OpenSTL && pip install timm
    python benchmarks/peers.py OpenSTL --threads 2 --json peers.json
    python benchmarks/peers.py --table peers.json            # README's table

The others are built by OpenSTL's own code, with the settings of its configs/kth: ConvLSTM, PredRNN, SimVP with gSTA and
TAU. None has seen any training, which changes no speed. Each run goes through all networks once, `--repeats` times, and
the median counts. On a machine that others use, `--clock processor` counts the time that this process computed, all its
threads together; it says little of more than one thread.
"""

from __future__ import annotations

import argparse
import importlib
import json
import runpy
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vmrnn_cli import benchmark, weights
from vmrnn_cli.networks import NETWORKS, build
from vmrnn_cli.predictor import Predictor

GIVEN, AHEAD, SIDE = 10, 20, 128
PEERS = ("ConvLSTM", "PredRNN", "SimVP_gSTA", "TAU")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def settings(openstl: Path, name: str) -> dict[str, Any]:
    folder = openstl / "configs" / "kth"
    file = folder / "simvp" / f"{name}.py" if name.startswith("SimVP") else folder / f"{name}.py"
    return {key: value for key, value in runpy.run_path(str(file)).items() if not key.startswith("_")}


def recurrent(models: Any, name: str, given: dict[str, Any], clip: torch.Tensor) -> Any:
    """ConvLSTM or PredRNN: the frame's patches are its channels, and the last half of the frames is masked."""
    p = given["patch_size"]
    hidden = [int(width) for width in given["num_hidden"].split(",")]
    configs = SimpleNamespace(**given, in_shape=(GIVEN, 1, SIDE, SIDE), pre_seq_length=GIVEN, aft_seq_length=AHEAD)
    model = getattr(models, f"{name}_Model")(len(hidden), hidden, configs).eval()
    patches = clip.unflatten(3, (-1, p)).unflatten(5, (-1, p))  # (B, T, C, h, p, w, p)
    patches = patches.permute(0, 1, 3, 5, 4, 6, 2).flatten(4)  # (B, T, h, w, p p C)
    frames = torch.cat([patches, torch.zeros_like(patches[:, :1]).expand(-1, AHEAD, -1, -1, -1)], 1)
    mask = torch.zeros_like(frames[:, : AHEAD - 1])
    return model, lambda: model(frames, mask, return_loss=False)


def convolutional(models: Any, name: str, given: dict[str, Any], clip: torch.Tensor) -> Any:
    """SimVP or TAU: as many frames out as in, so that it goes on from its own."""
    model = models.SimVP_Model(in_shape=(GIVEN, 1, SIDE, SIDE), **given).eval()

    def forecast() -> None:
        frames = clip
        for _ in range(AHEAD // GIVEN):
            frames = model(frames)

    return model, forecast


def ours(name: str, dtype: str, clip: torch.Tensor) -> Any:
    model = weights.load(name) if weights.is_bundled(name) else build(NETWORKS[name])
    predictor = Predictor(model, dtype=dtype)
    return model, lambda: predictor.batch(clip.numpy(), AHEAD)


def measure(openstl: Path | None, names: list[str], repeats: int, clock: str) -> list[dict]:
    clip = torch.rand(1, GIVEN, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    works, parameters = {}, {}
    for name in names:
        if name in PEERS:
            assert openstl is not None, "name a checkout of OpenSTL"
            models = importlib.import_module("openstl.models")

            make = convolutional if name in ("SimVP_gSTA", "TAU") else recurrent
            model, works[name] = make(models, name, settings(openstl, name), clip)
        else:
            known, _, dtype = name.partition(":")
            model, works[name] = ours(known, dtype or "float32", clip)
        parameters[name] = sum(p.numel() for p in model.parameters())
    times: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for run in range(repeats + 1):  # the first warms up
            for name, work in works.items():
                begin = CLOCKS[clock]()
                work()
                times[name] += [CLOCKS[clock]() - begin]
                print(f"{run} {name} {times[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return [
        {"name": name, "s": statistics.median(each[1:]), "s_min": min(each[1:]), "parameters": parameters[name]}
        for name, each in times.items()
    ]


def table(result: dict) -> str:
    machine, of = result["machine"], {"wall": "seconds", "processor": "seconds of one thread"}[result["clock"]]
    head = (
        f"{machine['processor']}, {machine['threads']} thread(s), torch {machine['torch']}, 10 -> 20 frames of 128x128,"
    )
    head += f" median of {result['repeats']}; `python benchmarks/peers.py OpenSTL --clock {result['clock']}`:"
    rows = [
        f"| {each['name'].replace('_', ' ').replace(':', ', ')} | {each['s']:.2f} | {each['parameters'] / 1e6:.1f} |"
        for each in sorted(result["results"], key=lambda each: -each["s"])
    ]
    return "\n".join([head, "", f"| | {of} a clip | million parameters |", "|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("openstl", type=Path, nargs="?", help="a checkout of OpenSTL")
    parser.add_argument("--networks", nargs="+", help="of OpenSTL's and ours, NAME or NAME:bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="write it there")
    parser.add_argument("--table", type=Path, help="print the table of an earlier result")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    torch.set_num_threads(options.threads)
    if options.openstl:
        sys.path.insert(0, str(options.openstl))
    names = options.networks or [
        *(PEERS if options.openstl else ()), "vmrnn-b-kth", "vmrnn-b-kth:bfloat16", "vmrnn-d-motion",
    ]  # fmt: skip
    results = measure(options.openstl, names, options.repeats, options.clock)
    result = {"machine": benchmark.machine(), "clock": options.clock, "repeats": options.repeats, "results": results}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))
    print(table(result))


if __name__ == "__main__":
    main()
