"""Ctrl-C while a kernel runs: raised when Python code runs again, not before."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def of_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error comes from Ctrl-C: libraries in which it arrives make errors of their own of it, numba a SystemError."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def held_interrupts() -> Iterator[Callable[[], None]]:
    """Within, SIGINT waits for the next call of the function that this gives, or for the end.

    What a numba kernel returns is made by bits of Python code, in which Python would raise KeyboardInterrupt; numba does not look for
    exceptions there, and the process dies of it. In other threads than the main one, and where SIGINT does not end in Python code,
    this does nothing.
    """
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: None
        return
    came: list[tuple[int, FrameType | None]] = []

    def look() -> None:
        if came:
            before(*came.pop())

    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield look
    finally:
        signal.signal(signal.SIGINT, before)
    look()
