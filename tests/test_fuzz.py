"""Damaged inputs of every kind, and machines that fail: a few of those that `fuzz.py` makes by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz


def test_three_hundred_damaged_inputs(monkeypatch):
    monkeypatch.setenv("VMRNN_CACHE", "")  # to be put back: the fuzzer sets its own
    assert fuzz.fuzz(300, seed=19) == []


def test_the_fuzzer_finds_faults(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    for fault in ("unexpected failure, KeyError", "FutureWarning: soon", "cannot read another.npy — look"):
        with pytest.raises(fuzz.CaseError):
            fuzz.check(2, "", f"error: {fault}\n", tmp_path / "clip.npy", tmp_path / "out")
    with pytest.raises(fuzz.CaseError, match="exit code -9"):
        fuzz.check(-9, "", "", tmp_path / "clip.npy", tmp_path / "out")
    np.savez(tmp_path / "out" / "out.npz", prediction=np.full(3, np.nan))
    with pytest.raises(fuzz.CaseError, match="not finite"):
        fuzz.check(0, "", "", tmp_path / "clip.npy", tmp_path / "out")
    (tmp_path / "out" / ".vmrnn-0.gif").touch()
    with pytest.raises(fuzz.CaseError, match="it left"):
        fuzz.check(0, "", "", tmp_path / "clip.npy", tmp_path / "out")


SCRIPT = """
import os, sys, numpy as np
from vmrnn_cli import predict
clip = np.random.default_rng(0).random((6, 32, 32)).astype("f4")
def job(): return predict(clip, weights="vmrnn-b-mmnist", context=3, frames=2, threads=2).prediction
want = job()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, np.float64(np.abs(job() - want).max()).tobytes())
    os._exit(0)
os.close(write)
print(np.frombuffer(os.read(read, 8))[0])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows cannot fork")
def test_a_fork_after_use_computes_the_same():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5
