"""Kills a process (SIGKILL) at a row of the manifest, for the helpers that kill a stage at each row."""

import gc
import os
import signal
import traceback
from typing import Any

from corpusmill.pipeline.manifest import Manifest


def killed_at(row: int, after: bool) -> None:
    """Ends this process before or after it writes the manifest's row of that number."""
    write, written = Manifest._write, iter(range(1_000_000))

    def watched(manifest: Manifest, kind: str, content: Any, durable: bool = True) -> int:
        here = next(written) == row
        if here and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        place = write(manifest, kind, content, durable)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return place

    Manifest._write = watched  # type: ignore[method-assign]


def in_child(function, *arguments) -> int:  # type: ignore[no-untyped-def]
    child = os.fork()
    if not child:
        gc.freeze()  # keeps inherited objects alive: the end of a DuckDB connection would wait for threads that only the parent has
        try:
            function(*arguments)
        except BaseException:  # noqa: BLE001 - a child never returns
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]
