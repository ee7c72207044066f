"""What README tells people to type works."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from commands import ROOT, path_of

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, re.M)
OURS = [command for command in COMMANDS if re.match(r"(vmrnn|python examples/)", command.split("&& ")[-1])]


def test_readme_has_the_two_commands_of_its_first_screen():
    assert "pip install . && vmrnn predict examples/scene.mp4 -o forecast.gif" in COMMANDS
    assert any(re.fullmatch(r"pip install '\.\[test\]' && pytest", command) for command in COMMANDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all commands, in their order: some use what others made."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.mark.parametrize("command", OURS)
def test_readme_commands_run(command, folder):
    last = command.split("&& ")[-1]  # what comes before installs, which made this test possible
    words = last.replace("vmrnn", "-m vmrnn_cli", 1).split() if last.startswith("vmrnn") else last.split()[1:]
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_readme_python_runs(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_files_that_readme_names_exist():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert path_of(name).exists(), name


def test_the_example_from_python_runs(tmp_path):
    script = [sys.executable, ROOT / "examples" / "predict_clip.py"]
    done = subprocess.run(
        [*script, ROOT / "examples" / "digits.npz", tmp_path / "out.npz"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "10 frames given, 10 predicted" in done.stdout
    assert (tmp_path / "out.npz").exists()
    done = subprocess.run([*script, "none.npz", tmp_path / "no.npz"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_what_contributing_shows_is_there():
    """Its diffs are of files as they are."""
    shown = (ROOT / "CONTRIBUTING.md").read_text()
    assert shown.count("```diff") == 3
    for name, diff in re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^---|^```)", shown, re.M | re.S):
        lines = path_of(name).read_text().splitlines()
        for line in re.findall(r"^\+(.*\S.*)$", diff, re.M):
            assert line in lines or line.strip() == "...", line


@pytest.mark.parametrize(
    "script",
    ["bikenyc.py no.npz", "speeds.py no vmrnn-b-mmnist", "averaged.py no out"],
)
def test_example_scripts_say_in_one_line_what_is_wrong(script, tmp_path):
    name, *arguments = script.split()
    command = [sys.executable, ROOT / "examples" / "training" / name, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
