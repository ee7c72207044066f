"""Errors meant for the person at the keyboard: one line, what is wrong and what to do about it."""


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
