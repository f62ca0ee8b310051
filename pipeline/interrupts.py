"""Ctrl-C, and SIGTERM (of `ray job stop`, Slurm, Kubernetes), which ends a command in the same way: one sentence, and nothing half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: SIGTERM, when it has come: Ray makes a KeyboardInterrupt of its own of what a handler raises.
_came: list[int] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM: what has to be done for Ctrl-C has to be done for it, too."""


def of_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error comes from Ctrl-C or SIGTERM: libraries in which it arrives make errors of their own of it, numba a SystemError."""
    return _interrupt_of(error) is not None


def exit_code_of(error: BaseException | None) -> int:
    """128 and the number of the signal from which an error comes, as shells have it."""
    return 128 + (signal.SIGTERM if _came or isinstance(_interrupt_of(error), Terminated) else signal.SIGINT)


def _interrupt_of(error: BaseException | None) -> KeyboardInterrupt | None:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return error
        error = error.__cause__ or error.__context__
    return None


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM in a process that ends by it; a second one while the first is answered changes nothing."""
    signal.signal(number, signal.SIG_IGN)
    _came.append(number)
    raise Terminated


def raise_what_came() -> None:
    """Raises where SIGTERM has come and the run goes on: what a handler raises in a callback, or in `__del__`, is lost."""
    if _came:
        raise Terminated


@contextmanager
def kept_handler(number: int = signal.SIGTERM) -> Iterator[None]:
    """What a library sets as the signal's handler within is gone behind the block."""
    before: Any = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


@contextmanager
def held_interrupts() -> Iterator[Callable[[], None]]:
    """Within, SIGINT, SIGTERM and SIGALRM (a task's time is over) wait for the next call of the function that this gives, or for the end.

    What a numba kernel returns is made by bits of Python code, in which Python would raise KeyboardInterrupt; numba does not look for
    exceptions there, and the process dies of it. In other threads than the main one, and for a signal that does not end in Python code,
    this does nothing.
    """
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not handlers:
        yield lambda: None
        return
    came: list[tuple[int, FrameType | None]] = []

    def look() -> None:
        if came:
            number, frame = came.pop()
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield look
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    look()
