"""Entry point of `vmrnn`: parse, call, print. One line for every error, no traceback without --debug."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from types import FrameType

from . import interrupts
from .errors import explained
from .text import one_line

_interrupted_at: float | None = None


def main() -> None:
    """Run the command line and exit with 0 done, 1 failure, 2 wrong usage or unusable input, 130 Ctrl-C."""
    _make_printing_safe()
    _silence_libraries()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # where a script says "&", it is ignored
        signal.signal(signal.SIGINT, _interrupt)
    code = run(sys.argv[1:])
    # Python itself would die of a signal where an interrupt came inside of exec(), and gloo sometimes aborts a process
    # of several while it is taken down.
    if code == 130 or os.environ.get("WORLD_SIZE", "1") != "1":
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    for number in interrupts.signals():  # all is done: nothing to stop while Python takes itself down
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    for number in interrupts.signals():
        if number != signal.SIGINT:  # which is for `main` to decide
            signal.signal(number, _interrupt)  # ends like Ctrl-C: temporary files are removed
    try:
        with interrupts.deferred():
            from .cli import app
        code = app(arguments, prog_name="vmrnn", standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # An interrupt may come out as another error: PyTorch, reading a checkpoint, makes a ValueError of it.
        return 130 if _interrupted_at is not None else _report(error, debug="--debug" in arguments)


def _report(error: Exception, debug: bool) -> int:
    """Print what went wrong, in one line, and return the exit code."""
    import typer

    if isinstance(error, typer.Abort):  # what becomes of Ctrl-C at a prompt
        return 130
    if isinstance(error, BrokenPipeError):
        _print_nothing_more()
        return 1
    if debug:
        raise error
    if isinstance(error, typer.TyperException):  # of usage, all of them
        if not error.format_message():
            return 2  # no command was given, and the help has been shown
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "vmrnn"
        return _fail(f"{error.format_message().rstrip('.')} — see `{where} --help`", 2)
    if isinstance(error, OSError) and error.filename is None:
        _print_nothing_more()  # it may be the printing that failed
    known = explained(error)
    if known is not None:
        return _fail(str(known), known.exit_code)
    text = str(error).splitlines()
    what = f"{type(error).__name__}: {text[0] if text else 'no message'}"
    # What a library or the machine fails at is an error of its own kind; these are of programs alone.
    ours = isinstance(error, (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError))
    return _fail(f"unexpected failure, {what} — run again with --debug{' and report it' if ours else ''}", 1)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    global _interrupted_at
    now, before = time.monotonic(), _interrupted_at
    _interrupted_at = now
    if before is None or now - before > interrupts.TOGETHER:  # else tidying up goes on
        raise KeyboardInterrupt


def _make_printing_safe() -> None:
    """Escape what the terminal cannot show, file names above all, and print nowhere where a stream is closed.

    Each line is written at once and whole: processes that work together share their streams.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open as long as the program runs
        elif isinstance(stream, io.TextIOWrapper):
            # PYTHONUNBUFFERED would write a line and its end apart.
            stream.reconfigure(errors="backslashreplace", line_buffering=True, write_through=False)


def _silence_libraries() -> None:
    """What libraries have to say to programmers is nothing to users, unless they ask Python for it (-W)."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _print_nothing_more() -> None:
    """Send what is still to be printed on stdout nowhere: it would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, code: int) -> int:
    print(f"error: {one_line(line)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
