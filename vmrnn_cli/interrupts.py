"""Ctrl-C, SIGTERM and SIGHUP at a moment when they are heard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def signals() -> list[int]:
    """The signals that ask to end: Ctrl-C, SIGTERM and, of a closed terminal, SIGHUP, which nohup has ignored."""
    asking: list[int] = [signal.SIGINT, signal.SIGTERM]
    hangup: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        asking.append(hangup)
    return asking


@contextmanager
def deferred() -> Iterator[None]:
    """Hold these signals back until the block ends.

    Extension modules that are interrupted while being imported lose the interrupt, or make Python kill itself at exit.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread only
        yield
        return
    caught: list[int] = []
    previous = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])
