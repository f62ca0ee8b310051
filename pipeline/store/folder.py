"""The remote half of `Storage`: a folder of a store. Nothing that it says comes from memory; each answer is the store's own."""

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from corpusmill.pipeline.store.ask import asked, filesystem
from corpusmill.pipeline.store.file import StoreFile
from corpusmill.pipeline.store.write import StoreWriter, abort_uploads

Result = TypeVar("Result")


class Store:
    """The folder of a URL; names are relative to it. All methods raise StoreError and InputError as `asked` (ask.py) does."""

    def __init__(self, url: str):
        self.url = url
        self._opened: tuple[int, Any, str] | None = None  # by which process

    @property
    def _place(self) -> tuple[Any, str]:
        """The filesystem and the path in it; a process that was forked has its own, as the loop that answers it stayed behind."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), *filesystem(self.url))
        return self._opened[1:]

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.url,)

    @property
    def fs(self) -> Any:
        """The fsspec filesystem."""
        return self._place[0]

    def path(self, name: str) -> str:
        """A name as the filesystem knows it."""
        return f"{self._place[1].rstrip('/')}/{name}" if name else self._place[1]

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _asked(self, name: str, request: Callable[[Any, str], Result]) -> Result:
        fs, path = self.fs, self.path(name)
        return asked(self._url(name), lambda: request(fs, path))

    def open_read(self, name: str) -> StoreFile:
        """FileNotFoundError where there is none."""
        return StoreFile(self.fs, self.path(name), self._url(name))

    def read_bytes(self, name: str) -> bytes:
        """A small object, by one request. FileNotFoundError where there is none."""
        return bytes(self._asked(name, lambda fs, path: fs.cat_file(path)))

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        """The bytes from `begin` to `end` of an object that has so many, however large it is, and no others."""
        return StoreFile(self.fs, self.path(name), self._url(name), size=end).ranges(begin, end) if begin < end else b""

    def open_write(self, name: str) -> StoreWriter:
        return StoreWriter(self.fs, self.path(name), self._url(name))

    def write_bytes(self, name: str, content: bytes) -> None:
        self._asked(name, lambda fs, path: fs.pipe_file(path, content))

    def size(self, name: str) -> int:
        """Bytes, or -1 where there is none."""
        try:
            info = self._asked(name, lambda fs, path: fs.info(path))
        except FileNotFoundError:
            return -1
        return int(info["size"] or 0)

    def find(self, folder: str = "", below: bool = True) -> dict[str, dict[str, Any]]:
        """What the store says of all objects of a folder, by name relative to this one; without `below` of its own."""
        depth = {} if below else {"maxdepth": 1}
        found = self._asked(folder, lambda fs, path: fs.find(path, detail=True, **depth))
        start = len(self.path("").rstrip("/")) + 1
        return {name[start:]: info for name, info in found.items() if info.get("type") != "directory" and len(name) > start}

    def remove(self, name: str) -> None:
        """Does nothing where there is none."""
        try:
            self._asked(name, lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            return

    def remove_folder(self, folder: str) -> None:
        if names := list(self.find(folder)):
            paths = [self.path(name) for name in names]
            asked(self._url(folder), lambda: self.fs.rm(paths))

    def abort_uploads(self) -> int:
        """Gives up what killed processes have left half sent; how much that was."""
        return abort_uploads(self.fs, self.path(""), self.url)


def last_written(info: dict[str, Any]) -> float | None:
    """When an object was written (seconds since 1970), as far as the store says; stores call it by other names."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
