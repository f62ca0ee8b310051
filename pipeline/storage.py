"""A folder on local disk or on any store that fsspec knows, with atomic publication.

Local files are written under a temporary name in their own folder, fsynced and renamed. Object stores publish
an object only when its upload completes, so there a plain write is atomic already.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.store.folder import Store, last_written
from corpusmill.pipeline.store.s3 import open_store

#: Temporary names begin with this; nothing that reads a run ever looks at such a file.
TEMPORARY = ".tmp-"


def is_remote(path: str) -> bool:
    """Whether a path has a protocol (`s3://...`) other than `file://`."""
    return "://" in path and not path.startswith("file://")


def printable(path: str) -> str:
    """A path as text: bytes of a file name that are not UTF-8 stand there as `\\xff`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stays_inside(path: str) -> bool:
    """Whether a relative path names something below its folder: nothing that a file says of itself may lead elsewhere."""
    return bool(path) and not path.startswith("/") and "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


class Storage:
    """A root folder; all paths given to its methods are relative to it and use `/`."""

    def __init__(self, root: str):
        self.root = root.removeprefix("file://").rstrip("/") or "/"
        self.remote = is_remote(root)

    def __repr__(self) -> str:
        return f"Storage({self.root!r})"

    def child(self, folder: str) -> "Storage":
        return Storage(self.path(folder))

    def path(self, relative: str) -> str:
        """The full path or URL of a file in this folder."""
        return f"{self.root}/{relative}" if relative else self.root

    @cached_property
    def store(self) -> Store:
        """Only of a remote folder."""
        return open_store(self.root)

    def open_read(self, relative: str) -> IO[bytes]:
        if self.remote:
            return cast(IO[bytes], self.store.open_read(relative))
        return open(self.path(relative), "rb")

    def read_bytes(self, relative: str) -> bytes:
        """The content of a small file; FileNotFoundError where there is none."""
        if self.remote:
            return self.store.read_bytes(relative)
        with self.open_read(relative) as file:
            return file.read()

    def read_range(self, relative: str, begin: int, end: int) -> bytes:
        """The bytes from `begin` to `end` of a file that has so many."""
        if self.remote:
            return self.store.read_range(relative, begin, end)
        with open(self.path(relative), "rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def exists(self, relative: str) -> bool:
        """Whether there is such a file (or, where it is local, folder)."""
        return self.store.size(relative) >= 0 if self.remote else os.path.exists(self.path(relative))

    def size(self, relative: str) -> int:
        """Bytes of a file, or -1 where there is none."""
        if self.remote:
            return self.store.size(relative)
        try:
            return os.path.getsize(self.path(relative))
        except OSError:
            return -1

    def list_files(self, folder: str = "") -> list[str]:
        """All files below `folder`, relative to the root, sorted; temporary ones included."""
        if self.remote:
            return sorted(self.store.find(folder))
        base = Path(self.path(folder))
        return sorted(p.relative_to(self.root).as_posix() for p in base.rglob("*") if p.is_file()) if base.is_dir() else []

    def listing(self, folder: str = "") -> dict[str, int]:
        """Bytes of each object that lies in `folder` itself, by name: found by one listing. Only of remote folders."""
        return {name.rpartition("/")[2]: int(info["size"]) for name, info in self.store.find(folder, below=False).items()}

    def sizes(self, names: Sequence[str]) -> list[int]:
        """Bytes of files that lie in this folder itself, -1 for those that are not there; of a remote one found by one listing."""
        if self.remote:
            found = self.listing()
            return [found.get(name, -1) for name in names]
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return [-1] * len(names)
        try:
            return [_size(name, descriptor) for name in names]
        finally:
            os.close(descriptor)

    def times(self, folder: str = "") -> dict[str, float | None]:
        """When each file that lies in `folder` itself was last written (seconds since 1970), by name; None where a store does not say."""
        if self.remote:
            return {name.rpartition("/")[2]: last_written(info) for name, info in self.store.find(folder, below=False).items()}
        try:
            with os.scandir(self.path(folder)) as entries:
                return {entry.name: entry.stat().st_mtime for entry in entries if entry.is_file()}
        except OSError:
            return {}

    def stamps(self, folder: str) -> dict[str, tuple[float | None, int]]:
        """When each object of `folder` itself was last written (as `times`) and its bytes: another content has another stamp, unless it
        came within a second (the unit of many stores) and is as long. Only of remote folders."""
        found = self.store.find(folder, below=False)
        return {name.rpartition("/")[2]: (last_written(info), int(info["size"])) for name, info in found.items()}

    def remove(self, relative: str) -> None:
        if self.remote:
            self.store.remove(relative)
        else:
            Path(self.path(relative)).unlink(missing_ok=True)

    def remove_folder(self, relative: str) -> None:
        if self.remote:
            self.store.remove_folder(relative)
        else:
            shutil.rmtree(self.path(relative), ignore_errors=True)

    @contextmanager
    def write_atomic(self, relative: str) -> Iterator[IO[bytes]]:
        """A binary file that appears under its name only when the block ends without an exception."""
        if self.remote:
            with self._uploaded(relative) as upload:
                yield upload
            return
        target = Path(self.path(relative))
        temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:  # inside: an interrupt may come as soon as the file is there
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            fsync_folder(target.parent)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError) and not isinstance(error, CorpusmillError):  # else it is of a store that is read
                raise InputError(f"{target}: can't be written ({error.strerror}).") from error
            raise

    @contextmanager
    def _uploaded(self, relative: str) -> Iterator[IO[bytes]]:
        writer = self.store.open_write(relative)
        try:
            yield cast(IO[bytes], writer)
            writer.publish()
        except BaseException:
            with suppress(OSError, CorpusmillError):  # what went wrong first is what is told; the next run finds what is left
                writer.discard()
            raise

    def write_bytes(self, relative: str, content: bytes) -> None:
        if self.remote:
            self.store.write_bytes(relative, content)
            return
        with self.write_atomic(relative) as file:
            file.write(content)


def fsync_folder(folder: str | Path) -> None:
    """Makes renames in a local folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(name: str, folder: int) -> int:
    """Bytes of a file in the folder with this descriptor: in half the time that its whole path takes."""
    try:
        return os.stat(name, dir_fd=folder).st_size
    except OSError:
        return -1
