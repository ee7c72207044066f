"""The real commands on real clips, as a user would type them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from commands import DIGITS, PACKAGE, one_error_line, vmrnn

COMMANDS = ("predict", "train", "eval", "info", "data", "weights", "doctor", "benchmark")


# ---- speed of the answers that need no model


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_answers_without_importing_torch(arguments, tmp_path):
    code = (
        "import sys; from vmrnn_cli.__main__ import run; code = run(sys.argv[1:]);"
        "assert not {'torch', 'numpy', 'skimage', 'PIL'} & set(sys.modules), 'heavy import'; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "vmrnn" in done.stdout


def test_package_import_is_light():
    code = "import sys, vmrnn_cli; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("command", [[], ["weights"], ["data"]], ids=str)
def test_help_where_no_command_is_given(run, command):
    code, out, err = run(*command)
    assert code == 2
    assert "Usage: vmrnn" in out + err
    assert "error:" not in out + err


def test_usage_errors_name_the_help_of_the_command(run):
    code, _, err = run("predict", DIGITS, "--bogus")
    assert code == 2
    assert "vmrnn predict --help" in one_error_line(err)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("train --preset vmrnn-d", "vmrnn-d-mmnist"),
        ("predict --weights ", "vmrnn-d-motion"),
        ("predict --format ", "npz"),
    ],
)
def test_the_shell_completes_values(words, wanted, tmp_path):
    environment = {**os.environ, "_VMRNN_COMPLETE": "complete_bash", "COMP_WORDS": f"vmrnn {words}"}
    environment["COMP_CWORD"] = str(len(f"vmrnn {words}x".split()) - 1)
    script = "import sys; from vmrnn_cli.cli import app; app(prog_name='vmrnn')"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert wanted in done.stdout.split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["another error", "exec", "twice"])
def test_interrupted_at_awkward_moments(tmp_path, number, moment):
    """Some code turns an interrupt into something else, and people press Ctrl-C twice: 130 all the same."""
    signals = "signal.raise_signal(number)"
    commands = {
        "another error": f"try:\n  {signals}\nexcept KeyboardInterrupt:\n  raise ValueError('no shape') from None",
        "exec": f"exec({signals!r})",
        "twice": f"try:\n  {signals}\nfinally:\n  {signals}\n  open('tidied', 'w').close()",
    }
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); number = int(sys.argv[1])\n"
        "from vmrnn_cli import __main__, cli\n"
        "class App:\n"
        "  def __call__(self, arguments, **_):\n"
        + textwrap.indent(commands[moment], "    ")
        + "\ncli.app = App()\n__main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(int(number))], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert (tmp_path / "tidied").exists() == (moment == "twice")


# ---- where output goes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["weights", "list"]])
def test_full_disk_under_stdout(arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vmrnn_cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "No space left" in one_error_line(done.stderr)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_streams(tmp_path, stream):
    number = {"stdout": 1, "stderr": 2}[stream]
    done = subprocess.run(
        [sys.executable, "-m", "vmrnn_cli", "weights", "nonsense" if stream == "stderr" else "list"],
        capture_output=True, text=True, preexec_fn=lambda: os.close(number),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (2 if stream == "stderr" else 0, "", "")


@pytest.mark.skipif(not hasattr(socket, "SOCK_SEQPACKET"), reason="this system has no sockets that keep writes apart")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("stream", "arguments"), [("stdout", ["list"]), ("stderr", ["pull", "no where"])])
def test_lines_are_written_whole(stream, arguments, unbuffered):
    """Of processes that share a stream, each line is a write of its own: else they end up within each other."""
    command = [sys.executable, "-m", "vmrnn_cli", "weights", *arguments]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        process = subprocess.Popen(command, env=environment, **{stream: theirs})
        theirs.close()
        writes = list(iter(lambda: ours.recv(2**16), b""))
        process.wait(60)
    assert len(writes) > 10 if stream == "stdout" else len(writes) == 1
    assert all(write.endswith(b"\n") and write.count(b"\n") == 1 for write in writes)


def test_names_that_the_terminal_cannot_show(tiny, tmp_path):
    shutil.copy(DIGITS, tmp_path / "日本.npz")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = vmrnn("predict", "日本.npz", "--weights", tiny, "-o", "o.npz", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert r"\u65e5\u672c.npz" in done.stdout


# ---- the other commands


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "nowhere.mp4"], ["train", "--data", "nowhere"], ["eval", "--data", "nowhere"], ["info", "nowhere"],
        ["data", "make", "nothing", "x.npy"], ["data", "get", "nothing", "x"], ["weights", "pull", "no where"],
        ["weights", "convert", "nowhere", "x"], ["weights", "push", "nowhere", "a/b"],
    ],
    ids=lambda command: " ".join(command[:2]),
)  # fmt: skip
def test_debug_shows_tracebacks(run, command):
    from vmrnn_cli.errors import VMRNNError

    assert run(*command)[0] == 2
    with pytest.raises(VMRNNError):
        run(*command, "--debug")


@pytest.mark.parametrize("command", [["doctor"], ["weights", "list"]], ids=" ".join)
def test_debug_changes_nothing_else(run, command):
    assert run(*command, "--debug")[0] == 0


@pytest.mark.parametrize(
    ("preset", "published", "macs"),
    [
        ("vmrnn-d-mmnist", 15_267_201, None),
        ("vmrnn-b-kth", 1_214_721, None),
        ("vmrnn-b-taxibj", 2_579_970, 127_401_984),
    ],
)
def test_info_counts_as_published(run, preset, published, macs):
    code, out, _ = run("info", preset, "--flops", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["parameters_published"] == published
    assert facts["parameters"] < published
    assert macs is None or facts["macs_per_step_published"] == macs
    assert facts["macs_per_clip_published"] == facts["macs_per_step_published"] * (
        facts["context"] - 1 + facts["horizon"]
    )
    assert facts["flops_per_step"] > 2 * facts["macs_per_step_published"]
    assert set(facts) == {
        "name", "variant", "image_channels", "image_size", "patch_size", "embed_dim", "depths", "predicts", "context",
        "horizon", "parameters", "parameters_published", "macs_per_step_published", "macs_per_clip_published",
        "flops_per_step", "flops_per_clip", "scan_backend", "device",
    }  # fmt: skip


def test_info_of_the_default_weights_prints_a_table(run):
    code, out, _ = run("info", "--flops")
    assert code == 0
    assert re.search(r"^parameters +[\d,]+$", out, re.M)


def test_doctor_names_every_backend(run):
    code, out, _ = run("doctor")
    assert code == 0
    assert all(name in out for name in ("native", "torch", "reference", "ffmpeg"))
    told = re.search(r"native objects: (.*)", out)[1]
    assert told == "none" or re.search(r"baseline.* \((compiled here|prebuilt for \S+)\); this processor runs", told)


@pytest.mark.parametrize("ffmpeg", ["nowhere", "no program"])
def test_doctor_without_ffmpeg(run, tmp_path, monkeypatch, ffmpeg):
    (tmp_path / "no program").write_text("")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / ffmpeg))
    code, out, _ = run("doctor")
    assert code == 0
    assert "ffmpeg: missing (" in out
    assert "bundled weights:" in out


def test_info_of_our_weights_is_of_them_and_not_of_their_preset(run, monkeypatch):
    from vmrnn_cli import weights

    loaded = []
    load = weights.load
    monkeypatch.setattr(weights, "load", lambda name: loaded.append(name) or load(name))
    assert run("info")[0] == run("info", "vmrnn-b-mmnist")[0] == run("info", "vmrnn-b-kth")[0] == 0
    assert loaded == [weights.default_name(), "vmrnn-b-mmnist"]
    assert run("info", "")[0] == 2


def test_info_of_frames_smaller_than_a_patch(run):
    code, _, err = run("info", "vmrnn-b-taxibj", "--size", "3x3")
    assert code == 2
    assert "smaller than a patch" in one_error_line(err)


def test_weights_list(run):
    code, out, _ = run("weights", "list")
    assert code == 0
    assert "(default)" in out
    assert json.loads(run("weights", "list", "--json")[1])


def test_native_scan_is_there_where_the_wheel_brought_it_or_a_compiler_was():
    from vmrnn_cli.scan import native

    brought = (PACKAGE / "scan" / "prebuilt").is_dir()
    if not brought and shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler on this machine, and a wheel without compiled kernels")
    assert native.why_unavailable() is None
