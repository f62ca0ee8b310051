"""Copies of the token shards of remote stores, by content: `<folder>/<sha256>`.

A copy is there once its size and sha256 are those of the set's `shards.json`; until then it is `<sha256>.part`, which the process that
downloads it holds locked. Any number of processes share a folder. Before a download the least recently used copies make room, so the
folder holds at most `limit` bytes; a copy that goes while it is mapped stays readable, and takes its space, until that process lets go.
"""

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage, fsync_folder

FOLDER = "tokens"
LIMIT_GB = "CORPUSMILL_SHARD_CACHE_GB"
DEFAULT_GB = 100.0
PART = ".part"
CHUNK = 1 << 22
HEX = re.compile("[0-9a-f]{64}")
Opened = TypeVar("Opened")


def size_limit() -> int:
    """Bytes that a cache may hold: $CORPUSMILL_SHARD_CACHE_GB (of 10^9 bytes), else 100 GB."""
    given = os.environ.get(LIMIT_GB, "")
    try:
        return int(float(given or DEFAULT_GB) * 1e9)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{LIMIT_GB}={given}: not a number of gigabytes.") from error


class ShardCache:
    """A folder of copies; by default `tokens` in the user's cache folder. `limit` is in bytes."""

    def __init__(self, folder: str | Path | None = None, limit: int | None = None):
        self.folder = Path(folder) if folder is not None else cache_folder() / FOLDER
        self.limit = size_limit() if limit is None else limit

    def use(self, storage: Storage, relative: str, size: int, sha256: str, opener: Callable[[str], Opened]) -> Opened:
        """What `opener` makes of the path of a copy of this file, which is downloaded where it is not here.

        Raises InputError where the file can't be read, is not the one that is meant, or finds no room.
        """
        while True:
            path = self._fetch(storage, relative, size, sha256)
            try:
                opened = opener(str(path))
            except FileNotFoundError:  # another process has needed its room
                continue
            return opened

    def _fetch(self, storage: Storage, relative: str, size: int, sha256: str) -> Path:
        url = storage.path(relative)
        if not HEX.fullmatch(sha256):
            raise InputError(f"{url}: its set names no sha256 for it.")
        path = self.folder / sha256
        if _touch(path, size):
            return path
        if size > self.limit:
            raise InputError(f"{url}: its {size:,} bytes are more than the cache {self.folder} may hold ({LIMIT_GB} sets how much).")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(path.name + PART)) as part:
                if not _touch(path, size):  # else another process was faster
                    self._reserve(part, size)
                    _download(storage, relative, part, size, sha256)
                    os.replace(part.name, path)
                    fsync_folder(self.folder)
        except OSError as error:
            raise InputError(f"{url}: can't be copied to {self.folder} ({error.strerror or error}).") from error
        return path

    def _reserve(self, part: "_Part", size: int) -> None:
        """Takes the room for a download, from the least recently used copies where there is not enough."""
        with open(self.folder / ".lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = list(self._held(part))
            total = size + sum(taken for _, taken, _ in held)
            for _, taken, path in sorted(held):
                if total > self.limit and not path.endswith(PART):
                    Path(path).unlink(missing_ok=True)
                    total -= taken
            os.ftruncate(part.descriptor, 0)
            _allocate(part.descriptor, size)  # so that others count it, and a full disk is seen before the work

    def _held(self, mine: "_Part") -> Iterator[tuple[int, int, str]]:
        """(last use, bytes, path) of all else that takes room; parts that nobody is downloading are removed."""
        for path in sorted(entry.path for entry in os.scandir(self.folder)):
            if path == mine.name or path.endswith(".lock") or (path.endswith(PART) and _abandoned(path)):
                continue
            with suppress(FileNotFoundError):  # a download that has just ended under its other name, the next or the one before
                status = Path(path).stat()
                yield status.st_mtime_ns, status.st_size, path


class _Part:
    """A download: its path, and the descriptor that holds its lock."""

    def __init__(self, path: Path):
        self.name = str(path)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def current(self) -> bool:
        """Whether the file at this path is still the one that is open here."""
        try:
            return Path(self.name).stat().st_ino == os.fstat(self.descriptor).st_ino
        except FileNotFoundError:
            return False


@contextmanager
def _locked(path: Path) -> Iterator[_Part]:
    """The download at this path, by this process alone; what is left of it afterwards is removed."""
    while True:
        part = _Part(path)
        try:
            fcntl.flock(part.descriptor, fcntl.LOCK_EX)
            if not part.current():
                continue
            try:
                yield part
            finally:
                if part.current():
                    Path(part.name).unlink()
            return
        finally:
            os.close(part.descriptor)


def _abandoned(path: str) -> bool:
    """Removes a part whose process has died, and says so."""
    part = _Part(Path(path))
    try:
        fcntl.flock(part.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if part.current():
            Path(path).unlink()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(part.descriptor)


def _allocate(descriptor: int, size: int) -> None:
    try:
        if size:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        os.ftruncate(descriptor, size)  # a file system that can't reserve


def _touch(path: Path, size: int) -> bool:
    """Marks a copy as used just now; False where there is none of this size."""
    try:
        if path.stat().st_size != size:
            return False
        with suppress(PermissionError):  # a cache of somebody else, who keeps the order
            os.utime(path)
        return True
    except FileNotFoundError:
        return False


def _download(storage: Storage, relative: str, part: _Part, size: int, sha256: str) -> None:
    """Fills a part whose room is taken. Raises InputError where the file is not the one that is meant."""
    found, place = hashlib.sha256(), 0
    url = storage.path(relative)
    for chunk in _chunks(storage, relative):
        place += len(chunk)
        if place > size:
            break
        found.update(chunk)
        os.pwrite(part.descriptor, chunk, place - len(chunk))
    if place != size:
        raise InputError(f"{url}: this file is {'cut short' if place < size else 'too long'} ({size:,} bytes are expected).")
    if found.hexdigest() != sha256:
        raise InputError(f"{url}: this file is not the one that was written (its sha256 differs).")
    os.fsync(part.descriptor)


def _chunks(storage: Storage, relative: str) -> Iterator[bytes]:
    try:
        with storage.open_read(relative) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError as error:
        raise InputError(f"{storage.path(relative)}: no such file.") from error
    except Exception as error:
        raise InputError(f"{storage.path(relative)}: can't be read ({' '.join(str(error).split())}).") from error
