"""Kernels are compiled by one process of tests at a time, so that the others find them in numba's cache: on a fresh checkout each would
else compile them all."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

_held: set[Path] = set()


def compile_once() -> None:
    """From now on, in this process and its forks."""
    compile_here = Dispatcher.compile

    def compile_alone(dispatcher: Any, signature: Any) -> Any:
        # numba's own lock first: a thread that has it may wait for a kernel, and one that has a kernel must not wait for it
        with global_compiler_lock, _alone(dispatcher._cache):
            return compile_here(dispatcher, signature)

    Dispatcher.compile = compile_alone


@contextmanager
def _alone(cache: Any) -> Iterator[None]:
    """Of all processes; a kernel waits for those that it calls, which do not call it back."""
    if not isinstance(cache, FunctionCache):
        yield
        return
    path = Path(cache.cache_path, f"{cache._impl.filename_base}.lock")
    if path in _held:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # goes with the process
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)
            fcntl.flock(file, fcntl.LOCK_UN)  # closing does not free it where a child that was forked meanwhile has it open
