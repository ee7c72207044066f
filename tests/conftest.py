"""What several test files share: where data is, and the published numbers."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path

import pytest
from browser import browser  # noqa: F401 - a fixture
from safetensors import safe_open

# A shell ignores Ctrl-C in what it runs in the background, as nohup does SIGHUP, and so would the commands that tests
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The tests compare bit for bit, which a GPU does its own way; tests/test_gpu.py is what runs on one, when asked.
if os.environ.get("VMRNN_TEST_GPU") != "cuda":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

GOLDEN_HERE = Path(__file__).parent / "golden"


def golden_path(name: str) -> Path:
    """The golden file of a name: a small one from tests/golden, a large one from VMRNN_TEST_DATA, or skip."""
    here = GOLDEN_HERE / f"{name}.safetensors"
    if here.exists():
        return here
    data = os.environ.get("VMRNN_TEST_DATA")
    if not data:
        pytest.skip("VMRNN_TEST_DATA is not set: no large golden files")
    return Path(data) / "golden" / f"{name}.safetensors"


class Golden:
    """Numbers computed with the published code: parameters and gradients by published name, and all other tensors."""

    def __init__(self, name: str) -> None:
        with safe_open(golden_path(name), framework="pt") as file:
            self.meta = {key: json.loads(value) for key, value in (file.metadata() or {}).items() if key != "layout"}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.params = {key[6:]: t for key, t in tensors.items() if key.startswith("param.")}
        self.grads = {key[5:]: t for key, t in tensors.items() if key.startswith("grad.")}
        self.tensors = {key: t for key, t in tensors.items() if not key.startswith(("param.", "grad."))}


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def use_isa(monkeypatch):
    """A function that makes the native backend run with one instruction set, or skips."""
    from vmrnn_cli.scan import native  # which imports torch: tests of the command line do without

    def use(isa: str) -> None:
        try:
            library = native.load(isa)
        except OSError as error:
            pytest.skip(str(error))
        monkeypatch.setattr(native, "load", lambda: library)

    return use


@pytest.fixture
def run_weights(run_command):
    """Run `vmrnn weights ...` in this process: (exit code, stdout, stderr)."""
    return functools.partial(run_command, "weights")


@pytest.fixture
def run_command(tmp_path, capsys, monkeypatch):
    """Run `vmrnn ...` in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        from vmrnn_cli.__main__ import run as run_in_process

        code = run_in_process([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code != 0), captured.err
        return code, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run a command in this process, in a folder and with a cache of its own: (exit code, stdout, stderr)."""
    import torch

    from vmrnn_cli import interrupts
    from vmrnn_cli.__main__ import run as run_command

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VMRNN_CACHE", str(tmp_path / "cache"))
    threads, handlers = torch.get_num_threads(), {n: signal.getsignal(n) for n in interrupts.signals()}

    def run(*arguments):
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A weights folder with a small random model: 3 frames in, 2 out."""
    import torch

    from vmrnn_cli.model import VMRNN, VMRNNConfig
    from vmrnn_cli.pretrained import save_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    folder.mkdir()
    config = VMRNNConfig(embed_dim=16, depths=(1,), context=3, horizon=2, image_size=(32, 32))
    save_model(VMRNN(config), folder, half=False)
    return folder
