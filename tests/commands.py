"""What tests of commands share: the example clips, a process of their own, and what an error looks like."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vmrnn_cli

ROOT = Path(__file__).parent.parent
PACKAGE = Path(vmrnn_cli.__file__).parent  # in the source tree, or where it is installed
DIGITS = ROOT / "examples" / "digits.npz"
CLIP = ROOT / "examples" / "digits.mp4"


def path_of(name):
    """Of a file that has this name in the source tree."""
    return (PACKAGE.parent if name.startswith("vmrnn_cli/") else ROOT) / name


def vmrnn(*arguments, cwd, **options):
    """Run the installed command in a process of its own, stdin closed."""
    return subprocess.run(
        [sys.executable, "-m", "vmrnn_cli", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, **options,
    )  # fmt: skip


def one_error_line(err):
    lines = err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert " — " in errors[0]
    assert "Traceback" not in err
    return errors[0]
