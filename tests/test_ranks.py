"""Two processes do what one does, in shares."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vmrnn_cli.__main__ import run as run_command
from vmrnn_cli.errors import InputError
from vmrnn_cli.model import VMRNN, VMRNNConfig
from vmrnn_cli.pretrained import save_model
from vmrnn_cli.ranks import Ranks

TOGETHER = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vmrnn_cli",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights for 3 -> 2, a file of seven clips, two of them equal, and each of the first five on its own."""
    folder = tmp_path_factory.mktemp("ranks")
    clips = np.random.default_rng(0).integers(0, 256, (7, 5, 1, 16, 16)).astype(np.uint8)
    clips[5] = clips[1]
    np.save(folder / "clips.npy", clips)
    for number, clip in enumerate(clips[:5]):
        np.save(folder / f"clip{number}.npy", clip)
    torch.manual_seed(0)
    (folder / "w").mkdir()
    save_model(VMRNN(VMRNNConfig(embed_dim=16, depths=(1,), context=3, horizon=2)), folder / "w")
    return folder


@pytest.fixture
def alone(folder, monkeypatch, capsys):
    """Run a command in this process, on one thread as under torchrun, and return what it printed."""
    monkeypatch.chdir(folder)
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)

    def alone(*arguments):
        assert run_command([*arguments, "--threads", "1"]) == 0
        return capsys.readouterr().out

    yield alone
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


def together(*arguments, cwd, code=0):
    """Run a command in two processes."""
    done = subprocess.run(
        [*TOGETHER, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def test_evaluation_is_that_of_one_process(folder, alone):
    arguments = ["eval", "--data", "clips.npy", "--weights", "w", "--json", "--save-worst", "3", "--batch-size", "2"]
    one = json.loads(alone(*arguments, "--out", "one"))
    two = together(*arguments, "--out", "two", cwd=folder)
    assert json.loads(two.stdout) == one
    assert one["clips"] == 7
    pictures = sorted(path.name for path in (folder / "one").iterdir())
    assert pictures == ["worst-1.png", "worst-2.png", "worst-3.png"]
    for name in pictures:
        assert (folder / "two" / name).read_bytes() == (folder / "one" / name).read_bytes()


def test_sources_are_shared(folder, alone):
    names = [f"clip{number}.npy" for number in range(5)]
    arguments = ["predict", *names, "--weights", "w"]
    results = json.loads(alone(*arguments, "-o", "alone", "--json"))["forecasts"]
    done = together(*arguments, "-o", "shared", cwd=folder)
    lines = sorted(line for line in done.stdout.splitlines() if line)
    assert [line.split(":")[0] for line in lines] == names  # each once, and nothing else
    for line, result in zip(lines, results, strict=True):
        assert f"MSE {result['metrics']['mse']:.2f}" in line
    for number in range(5):
        name = f"clip{number}_predicted.gif"
        assert (folder / "shared" / name).read_bytes() == (folder / "alone" / name).read_bytes()


def test_a_source_that_fails_stops_no_rank(folder):
    """The first rank has failed long before the other is done; torchrun ends all when one leaves with an error."""
    (folder / "bad.npy").write_bytes(b"no array")
    arguments = ["predict", "bad.npy", "clip0.npy", "missing.npy", "clip1.npy", "--weights", "w", "--json"]
    done = together(*arguments, "-o", "some", cwd=folder, code=1)
    result = json.loads(done.stdout)
    names = [Path(forecast["output"]).name for forecast in result["forecasts"]]
    assert names == ["clip0_predicted.gif", "clip1_predicted.gif"]
    errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error:")]
    assert result["failed"] == errors
    assert len(errors) == 2


def test_alone():
    ranks = Ranks("cpu")
    assert (ranks.rank, ranks.world, ranks.device) == (0, 1, torch.device("cpu"))
    assert ranks.gather("x") == ["x"]
    assert ranks.max(2.5) == 2.5
    assert ranks.any(True)
    assert not ranks.any(False)


def test_a_world_without_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="torchrun"):
        Ranks("cpu")
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(InputError, match="WORLD_SIZE is 'many'"):
        Ranks("cpu")
