"""Ctrl-C, SIGTERM and SIGHUP at a moment when they are heard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TOGETHER = 1.0  # seconds within which several signals mean the same


def signals() -> list[int]:
    """The signals that ask to end: Ctrl-C, SIGTERM and, of a closed terminal, SIGHUP.

    Those that are ignored stay so: SIGHUP under nohup, Ctrl-C where a script runs a command in the background.
    """
    known = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]  # Windows lacks the last
    return [number for number in known if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


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
