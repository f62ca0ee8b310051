"""Where files are kept between runs: models, lists, downloads."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corpusmill.pipeline.errors import InputError


def cache_folder() -> Path:
    """$CORPUSMILL_CACHE, else ~/.cache/corpusmill."""
    given = os.environ.get("CORPUSMILL_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "corpusmill"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process of a machine makes `path`, which lies in the cache; the others wait. Where a folder knows no locks, several make it.

    Raises InputError where the folder can't be written.
    """
    lock = path.with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")
    except OSError as error:
        raise InputError(f"{lock}: can't be written ({error.strerror}); set CORPUSMILL_CACHE to another folder.") from error
    with file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
