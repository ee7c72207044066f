"""Entry point of `vmrnn`: parse, call, print. One line for every error, no traceback without --debug."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import typer

from .cli import app
from .errors import VMRNNError

_UsageError: Any = typer.BadParameter.__mro__[2]  # the base of all usage errors, which typer does not export


def main() -> None:
    """Run the command line and exit with 0 done, 1 failure, 2 wrong usage or unusable input, 130 Ctrl-C."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _terminate)  # ends like Ctrl-C: temporary files are removed
    try:
        return app(arguments, prog_name="vmrnn", standalone_mode=False) or 0
    except VMRNNError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        if debug:
            raise
        return _fail(f"{error.format_message().rstrip('.')} — see `vmrnn --help`", 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be printed, at exit neither
        return 1
    except MemoryError:
        if debug:
            raise
        return _fail("out of memory — use a smaller --size, or close other programs", 1)
    except Exception as error:
        if debug:
            raise
        text = str(error).splitlines()
        what = f"{type(error).__name__}: {text[0] if text else 'no message'}"
        return _fail(f"unexpected failure, {what} — run again with --debug and report it", 1)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(line: str, code: int) -> int:
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
