"""A first forecast, from the command line to the written film, against `import torch`, in processes turn by turn.

    python benchmarks/cold_start.py [--repeats N] [--json]

Aimed at: `import torch` and 2.5 s, on two idle cores.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from vmrnn_cli import benchmark

CLIP = Path(__file__).parents[1] / "examples" / "scene.mp4"
TARGET = 2.5  # seconds


def processor_s(work) -> float:
    """Seconds that the processes which `work` starts compute, all threads together."""
    before = os.times()
    work()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "import torch": ["-c", "import torch"],
            "predict": ["-m", "vmrnn_cli", "predict", CLIP, "-o", Path(folder) / "o.gif", "--overwrite", "--quiet"],
        }
        works = {
            name: functools.partial(subprocess.run, [sys.executable, *map(str, command)], check=True)
            for name, command in commands.items()
        }
        times = benchmark.in_turn(works, options.repeats)
        computed = {name: processor_s(work) for name, work in works.items()}
    more = [a - b for a, b in zip(times["predict"], times["import torch"], strict=True)]
    result = {
        "machine": benchmark.machine(), "import_torch_s": statistics.median(times["import torch"]),
        "predict_s": statistics.median(times["predict"]), "more_s": statistics.median(more), "more_s_min": min(more),
        "target_s": TARGET, "import_torch_processor_s": computed["import torch"],
        "predict_processor_s": computed["predict"], "repeats": options.repeats,
    }  # fmt: skip
    if options.json:
        print(json.dumps(result))
        return
    print(f"import torch {result['import_torch_s']:.2f} s, predict {result['predict_s']:.2f} s")
    print(f"more: {result['more_s']:.2f} s, {result['more_s_min']:.2f} at best; aimed at {TARGET}")
    print(f"computed: {computed['import torch']:.2f} s and {computed['predict']:.2f} s")


if __name__ == "__main__":
    main()
