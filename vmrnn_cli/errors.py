"""Errors meant for the person at the keyboard: one line, what is wrong and what to do about it."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vmrnn_cli.text import one_line

# What helps against what the operating system says, where that is known.
_WRONG_PATHS = {
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "mend the symbolic links, which lead in a circle",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file",
}
_FAILURES = {
    errno.ENOSPC: "free some space, or {elsewhere}",
    errno.EDQUOT: "free some space, or {elsewhere}",
    errno.EROFS: "{elsewhere}: this one is read-only",
    errno.EFBIG: "{elsewhere}: this one takes no larger files",
    errno.EIO: "{elsewhere}: the drive fails",
    errno.EMFILE: "allow more open files: ulimit -n",
    errno.ENFILE: "close other programs, which have too many files open",
    errno.ENOMEM: "close other programs, as memory is short",
}


class VMRNNError(Exception):
    """The machine failed, or some input did while others went through (exit code 1)."""

    exit_code = 1

    def __init__(self, what: str, todo: str = "") -> None:
        """`todo` only where it is known what helps."""
        super().__init__(what, todo)  # both, so that it can be sent from one process to another
        self.what = what
        self.todo = todo

    def __str__(self) -> str:
        return f"{self.what} — {self.todo}" if self.todo else self.what


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
        return os_failure(f"cannot read or write{f' {error.filename}' if error.filename else ''}", error)
    if isinstance(error, ImportError):
        return VMRNNError(f"cannot import a package: {error}")
    return None


def os_failure(what: str, error: OSError, elsewhere: str = "use another place") -> VMRNNError:
    """What failed, the reason that the operating system gives, and what helps where that is known.

    elsewhere : what helps where the place is the reason
    """
    if "No usable temporary directory" in str(error):  # of tempfile, which makes it a file that is not there
        return VMRNNError(f"{what}: no folder for temporary files can be written", "set TMPDIR to one that can")
    what = f"{what}: {error.strerror or error}"
    if error.errno in _WRONG_PATHS:
        return InputError(what, _WRONG_PATHS[error.errno])
    return VMRNNError(what, _FAILURES.get(error.errno or 0, "").format(elsewhere=elsewhere))


@contextmanager
def os_failures(what: str, elsewhere: str = "use another place") -> Iterator[None]:
    """Raise what the operating system cannot do in the block as `os_failure` has it."""
    try:
        yield
    except OSError as error:
        raise os_failure(what, error, elsewhere) from error


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
