"""Handles Ctrl-C and SIGTERM (from `ray job stop`, Slurm, Kubernetes): both end a command with one sentence, and no file half written."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Holds SIGTERM once it has come, since Ray turns the exception of a handler into a KeyboardInterrupt.
_came: list[int] = []

#: Seconds until a lost interrupt is repeated: by then the main thread has left the callback that dropped it.
PAUSE = 0.1


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. It is handled like Ctrl-C."""


def of_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error comes from Ctrl-C or SIGTERM. Libraries wrap the interrupt in errors of their own, numba in a SystemError."""
    return _interrupt_of(error) is not None


def exit_code_of(error: BaseException | None) -> int:
    """Returns 128 plus the number of the signal that caused an error, as shells do."""
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


def interrupt_main(number: int = signal.SIGINT) -> None:
    """Interrupts the main thread as Ctrl-C does, also in a system call in which it waits."""
    if ident := threading.main_thread().ident:
        signal.pthread_kill(ident, number)


@contextmanager
def lost_interrupts_repeated() -> Iterator[None]:
    """Repeats Ctrl-C or SIGTERM where its exception gets lost in the block: Python drops what is raised in `__del__` and in the callbacks
    of weak references, one of which runs at the end of each import."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if not of_an_interrupt(dropped.exc_value):
            before(dropped)
            return
        if _came:
            signal.signal(signal.SIGTERM, raise_terminated)
        again = threading.Timer(PAUSE, interrupt_main, [signal.SIGTERM if _came else signal.SIGINT])
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def kept_handler(number: int = signal.SIGTERM) -> Iterator[None]:
    """Restores the signal's handler after the block, in which a library may set its own."""
    before: Any = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


@contextmanager
def held_interrupts() -> Iterator[Callable[[], None]]:
    """Delays SIGINT, SIGTERM and SIGALRM (a task's time limit) until the end of the block, or until the yielded function is called.

    numba runs Python code to build the result of a kernel. A KeyboardInterrupt in this code kills the process, since numba does not
    check for exceptions there. Does nothing outside of the main thread, and for signals without a handler in Python.
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
