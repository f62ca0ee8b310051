"""Python's garbage collection, put off while much is made that stays."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_collected() -> Iterator[None]:
    """No garbage collection meanwhile: where torch or numba are loaded, one costs more than reading a file of a thousand objects."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def collect_seldom() -> None:
    """For a process of ours, before it imports its libraries: they make half a million objects that stay. Collecting garbage among these at
    Python's usual pace is a tenth of what loading takes, and at the end of the process another half second."""
    gc.set_threshold(10_000, 10, 10)
    atexit.register(gc.freeze)
