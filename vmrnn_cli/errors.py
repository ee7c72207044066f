"""Errors meant for the person at the keyboard: one line, what is wrong and what to do about it."""

import errno
import sys
from collections.abc import Callable

_WRONG_PATHS = {
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "mend the symbolic links, which lead in a circle",
    errno.EACCES: "check its permissions",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file",
}


def one_line(text: object) -> str:
    """Text for an error message: file names may hold line breaks."""
    return " ".join(str(text).split())


class VMRNNError(Exception):
    """The machine failed, or some input did while others went through (exit code 1)."""

    exit_code = 1

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what, todo)  # both, so that it can be sent from one process to another
        self.what = what
        self.todo = todo

    def __str__(self) -> str:
        return f"{self.what} — {self.todo}"


class NotFiniteError(VMRNNError):
    """The network gave frames that are not finite."""


class InputError(VMRNNError):
    """Wrong usage or unusable input (exit code 2)."""

    exit_code = 2


def explained(error: Exception) -> VMRNNError | None:
    """What the machine could not do, in our words; None for what is neither that nor ours: a fault of the program."""
    if isinstance(error, VMRNNError):
        return error
    text = str(error).lower()  # PyTorch has a RuntimeError for what it cannot allocate, another for each device
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return VMRNNError("out of memory", "use a smaller --size or --batch-size, or close other programs")
    if isinstance(error, OSError):
        what = f"cannot read or write{f' {error.filename}' if error.filename else ''}: {error.strerror or error}"
        if error.errno in _WRONG_PATHS:
            return InputError(what, _WRONG_PATHS[error.errno])
        return VMRNNError(what, "free some space, or use another place")
    return None


def run_script(main: Callable[[], None]) -> None:
    """Run the main function of a script; what it cannot do ends in one line and not in a traceback."""
    try:
        main()
    except Exception as error:
        known = explained(error)
        if known is None:
            raise
        print(f"error: {one_line(known)}", file=sys.stderr)
        sys.exit(known.exit_code)
