"""Ctrl-C and SIGTERM (of `ray job stop`, Slurm, Kubernetes): both end a command with one sentence and with nothing half done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Has SIGTERM once it came: Ray turns what a handler raises into a KeyboardInterrupt.
_came: list[int] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM, for which the same has to be done as for Ctrl-C."""


def of_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error comes from Ctrl-C or SIGTERM. Libraries turn the interrupt into errors of their own, numba into a SystemError."""
    return _interrupt_of(error) is not None


def exit_code_of(error: BaseException | None) -> int:
    """128 plus the number of the signal from which an error comes, as in shells."""
    return 128 + (signal.SIGTERM if _came or isinstance(_interrupt_of(error), Terminated) else signal.SIGINT)


def _interrupt_of(error: BaseException | None) -> KeyboardInterrupt | None:
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return error
        error = error.__cause__ or error.__context__
    return None


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM. A second signal while the process ends changes nothing."""
    signal.signal(number, signal.SIG_IGN)
    _came.append(number)
    raise Terminated


def raise_if_terminated() -> None:
    """Raises where SIGTERM came and its exception got lost: in a callback or in `__del__` nobody sees it."""
    if _came:
        raise Terminated


@contextmanager
def kept_handler(number: int = signal.SIGTERM) -> Iterator[None]:
    """Restores the signal's handler after the block, whatever a library sets in it."""
    before: Any = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


@contextmanager
def held_interrupts() -> Iterator[Callable[[], None]]:
    """In the block, SIGINT, SIGTERM and SIGALRM (a task's time is over) wait for a call of the function that it gives, or for its end.

    Bits of Python code build what a numba kernel returns. A KeyboardInterrupt there kills the process, since numba does not look for
    exceptions. In other threads than the main one, and for signals without a handler in Python, this does nothing.
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
