"""Copies of what lies on a store, for libraries that read files: single files, and model folders in the cache."""

import fcntl
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

from corpusmill.pipeline.cache import alone, cache_folder
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import file_ref
from corpusmill.pipeline.storage import Storage, is_remote
from corpusmill.train.files import new_folder

#: In the cache: the model folders that came from stores.
MODELS = "model-folders"
#: Beside a copy: whoever reads it has a shared lock on this file.
LOCK = "in-use.lock"
CHUNK = 1 << 22
#: The open locks of the copies that this process may be reading, one of each model, by its folder of the cache.
_reading: dict[Path, IO[str]] = {}


def local_model(folder: str | Path) -> Path:
    """A model folder itself; of one on a store a copy in the cache, made anew when the store says that a file has changed.

    It is there until this process ends or asks for a later one. Raises InputError where it can't be read, or copied.
    """
    if not is_remote(str(folder)):
        return Path(str(folder).removeprefix("file://"))
    storage = Storage(str(folder))
    names = sorted(storage.times())  # asks the store anew, unlike a list
    if not names:
        raise InputError(f"{folder}: no such model folder.")
    known = digest([(name, file_ref(storage.path(name)).fingerprint) for name in names])[:16]
    base = _base(storage)
    copy = base / known / storage.root.rpartition("/")[2]
    with alone(base):
        _stop_reading(base)
        _read(copy)
        if not copy.is_dir():
            with new_folder(copy) as temporary:
                for name in names:
                    fetch_file(storage, name, temporary / name)
        _remove_copies(base, but=known)
    return copy


def forget_model(folder: str) -> None:
    """Removes the copies of a model folder on a store that no other process reads."""
    base = _base(Storage(folder))
    if base.is_dir():
        with alone(base):
            _stop_reading(base)
            _remove_copies(base)
            with suppress(OSError):  # somebody's copy is in it
                base.rmdir()


def _base(storage: Storage) -> Path:
    """Where the cache has copies of a model folder, each in a folder with its lock; what is done there is done `alone`."""
    return cache_folder() / MODELS / digest(storage.root)[:16]


def _read(copy: Path) -> None:
    """Has this process's lock on a copy, which is there or not yet."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        lock = _reading[copy.parent.parent] = open(copy.parent / LOCK, "a+")
    except OSError as error:
        raise InputError(f"{copy}: can't be written ({error.strerror}); set CORPUSMILL_CACHE to another folder.") from error
    with suppress(OSError):  # a folder that knows no locks
        fcntl.flock(lock, fcntl.LOCK_SH)


def _stop_reading(base: Path) -> None:
    if base in _reading:
        _reading.pop(base).close()


def _remove_copies(base: Path, but: str = "") -> None:
    for other in base.iterdir():
        if other.name != but:
            with suppress(OSError), open(other / LOCK, "a+") as lock:  # somebody reads it, or nobody can tell
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)


def fetch_file(storage: Storage, relative: str, path: Path) -> None:
    """Copies a file of a store to `path`. FileNotFoundError where there is none; InputError where it can't be read or written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.open_read(relative) as source, open(path, "wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{storage.path(relative)}: can't be copied to {path} ({error.strerror or error}).") from error
