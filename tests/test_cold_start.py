"""What the first forecast of a process does without: compilers, symbolic algebra, and a run of ffmpeg too many."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT

# Each takes as long to import as a forecast to make.
HEAVY = ("torch._dynamo", "torch.fx.experimental.symbolic_shapes", "sympy", "triton", "matplotlib", "huggingface_hub")

RUN = """
import json, subprocess, sys
started, run = [], subprocess.Popen.__init__
def counted(self, arguments, *more, **options):
    started.append([str(argument) for argument in arguments])
    run(self, arguments, *more, **options)
subprocess.Popen.__init__ = counted
from vmrnn_cli.__main__ import run as run_command
code = run_command(sys.argv[1:])
print(json.dumps({"code": code, "modules": sorted(sys.modules), "started": started}))
"""


def run_alone(folder, *arguments):
    """Run a command in a process of its own; what it imported, and what it started."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == 0, done.stderr
    return set(told["modules"]), told["started"]


def test_predict_imports_no_compiler_and_starts_no_program_twice(tmp_path):
    modules, started = run_alone(tmp_path, "predict", ROOT / "examples" / "scene.mp4", "-o", "out.gif", "--quiet")
    assert "vmrnn_cli.predictor" in modules
    assert [name for name in HEAVY if name in modules] == []
    ours = [each for each in started if "-version" not in each]  # imageio-ffmpeg looks once whether its program runs
    assert len(ours) == 6, "\n".join(map(" ".join, ours))  # packets, first frame, two sizes, film with palette, GIF
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gif"]


@pytest.mark.parametrize("weights", ["vmrnn-d-mmnist-small", "vmrnn-b-mmnist"])
def test_nor_do_other_networks(tmp_path, weights):
    modules, _ = run_alone(
        tmp_path, "predict", ROOT / "examples" / "digits.npz", "--weights", weights, "-o", "o.npz", "-q"
    )
    assert [name for name in HEAVY if name in modules] == []
