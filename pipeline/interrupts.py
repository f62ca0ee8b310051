"""Handles Ctrl-C and SIGTERM (from `ray job stop`, Slurm, Kubernetes): both end a command with one sentence, and no file half written."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Holds SIGTERM once it has come, since Ray turns the exception of a handler into a KeyboardInterrupt.
_came: list[int] = []

#: Seconds after which an interrupt is repeated that has not ended the work.
AGAIN = 5.0


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
    if not _came:
        _came.append(number)
        raise Terminated


def interrupt_main(number: int = signal.SIGINT) -> None:
    """Interrupts the main thread as Ctrl-C does, also in a system call in which it waits."""
    if ident := threading.main_thread().ident:
        signal.pthread_kill(ident, number)


@contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """Repeats Ctrl-C or SIGTERM every AGAIN seconds until its exception has left the block.

    An exception of a handler gets lost now and then: Python drops it in `__del__` and in the callbacks of weak references, one of which
    runs at the end of each import; some libraries drop any error of a call. Does nothing outside of the main thread, and for signals
    without a handler in Python.
    """
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not handlers:
        yield
        return
    came: list[tuple[int, float]] = []
    ended = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if came and time.monotonic() - came[-1][1] >= AGAIN:
            _came.clear()  # so that `raise_terminated` raises again
        came.append((number, time.monotonic()))
        handlers[number](number, frame)

    def repeat() -> None:
        while not ended.wait(AGAIN / 5):
            if came and time.monotonic() - came[-1][1] >= AGAIN:
                interrupt_main(came[-1][0])

    for number in handlers:
        signal.signal(number, handle)
    threading.Thread(target=repeat, name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def unwrapped_interrupts() -> Iterator[None]:
    """Turns the errors into which libraries wrap Ctrl-C back into a KeyboardInterrupt."""
    try:
        yield
    except Exception as error:
        if of_an_interrupt(error):
            raise KeyboardInterrupt from error
        raise


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
