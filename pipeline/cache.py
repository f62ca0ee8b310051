"""Where files are kept between runs: models, lists, downloads."""

import fcntl
import functools
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corpusmill.pipeline.errors import InputError


def cache_folder() -> Path:
    """$CORPUSMILL_CACHE, else ~/.cache/corpusmill."""
    given = os.environ.get("CORPUSMILL_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "corpusmill"


def kernels_folder() -> Path:
    """Where compiled kernels are kept: $NUMBA_CACHE_DIR, else `kernels` in the cache.

    Where that can't be written it is a temporary folder, which begins with what is there to be read. The first process says so, and those
    that it starts find the folder in NUMBA_CACHE_DIR.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    try:
        return _kernels_folder(Path(given) if given else cache_folder() / "kernels")
    except RuntimeError:  # there is no home
        return _kernels_folder(Path("~/.cache/corpusmill/kernels"))


@functools.cache
def _kernels_folder(wanted: Path) -> Path:
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=wanted).close()
        return wanted
    except OSError as error:
        reason = error.strerror
    folder = _temporary_kernels()
    with suppress(OSError):
        for path in wanted.glob("*.nb[ic]"):
            with suppress(FileExistsError):
                (folder / path.name).symlink_to(path)
    print(
        f"corpusmill: {wanted}: can't be written ({reason}), so compiled kernels are kept in {folder}; "
        "set NUMBA_CACHE_DIR to a folder that lasts.",
        file=sys.stderr,
    )
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return folder


def _temporary_kernels() -> Path:
    """The user's own folder among temporary files. Who could write there could have their code run, so it is nobody else's."""
    folder = Path(tempfile.gettempdir(), f"corpusmill-kernels-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="corpusmill-kernels-"))


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
