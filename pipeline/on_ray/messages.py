"""What Ray prints by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unheard(ray: Any) -> Iterator[None]:
    """Who connects to Ray while this lasts does not print to standard output what befalls its workers: a run says itself which task lost
    its process, and what was done about it. Not of Ray's public interface; where a version has another name for it, it prints."""
    worker = ray._private.worker
    listen = getattr(worker, "listen_error_messages", None)
    if listen is None:
        yield
        return
    worker.listen_error_messages = lambda *_: None
    try:
        yield
    finally:
        worker.listen_error_messages = listen
