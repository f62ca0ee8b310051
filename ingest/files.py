"""Local files and fsspec URLs as seekable streams, their sizes, fingerprints, and windows on parts of them."""

import os
from pathlib import Path
from typing import IO, cast

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.redirects import RedirectRefusedError
from corpusmill.pipeline.storage import fingerprint, is_remote
from corpusmill.pipeline.store_requests import StoreError, asked, filesystem
from corpusmill.pipeline.store_streams import StoreFile, Stream
from corpusmill.pipeline.web import cached

#: Protocols whose own readers fetch and hold as their servers like it.
OWN_READERS = ("http://", "https://", "hf://")


def local_path(path: str) -> str:
    return path.removeprefix("file://")


def _reason(error: BaseException) -> str:
    """What was wrong; fsspec calls any failure of a web server a file that is not there."""
    refused: BaseException | None = error
    while refused is not None and not isinstance(refused, RedirectRefusedError):
        refused = refused.__cause__ or refused.__context__
    if isinstance(error, FileNotFoundError) and refused is None:
        return "no such file"
    return str(refused) if refused else f"can't be read ({getattr(error, 'strerror', None) or error})"


def open_file(path: str) -> IO[bytes]:
    """A seekable binary stream; one sentence where the file can't be opened."""
    try:
        if not is_remote(path):
            return open(local_path(path), "rb")
        if here := cached(path):
            return open(here.path, "rb")
        fs, name = filesystem(path)
        if not path.startswith(OWN_READERS):
            return cast(IO[bytes], StoreFile(fs, name, path))
        file: IO[bytes] = fs.open(name, "rb")
        if path.startswith(("http://", "https://")):
            _need_ranges(path, file)
        return file
    except StoreError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {_reason(error)}.") from error


def _need_ranges(path: str, file: IO[bytes]) -> None:
    """Reads the last byte: only then does fsspec find out that a server ignores HTTP ranges."""
    try:
        if getattr(file, "size", 0):
            file.seek(-1, os.SEEK_END)
            file.read(1)
            file.seek(0)
    except ValueError as error:
        raise InputError(f"{path}: the server gives whole files only, so it can't be read in pieces; download it first.") from error


def file_ref(path: str) -> FileRef:
    """A file with its size and a fingerprint: size and time of a local file, the store's tags of a remote one."""
    if not is_remote(path):
        try:
            status = Path(local_path(path)).stat()
        except OSError as error:
            raise InputError(f"{path}: can't be read ({error.strerror}).") from error
        return FileRef(path, f"{status.st_size}:{status.st_mtime_ns}", status.st_size)
    if here := cached(path):
        return FileRef(path, fingerprint(here.bytes, here.tags), here.bytes)
    fs, name = filesystem(path)
    try:
        info = asked(path, lambda: fs.info(name))
    except StoreError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {_reason(error)}.") from error
    size = info.get("size")
    if size is None:
        raise InputError(f"{path}: the server doesn't say how large it is, so it can't be read in pieces; download it first.")
    return FileRef(path, fingerprint(int(size), info), int(size))


class RangeFile(Stream):
    """The bytes `[start, end)` of a seekable stream, as a stream of their own that begins at 0."""

    def __init__(self, file: IO[bytes], start: int, end: int):
        super().__init__(end - start)
        self.file, self.start, self.end = file, start, end
        file.seek(start)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        super().seek(offset, whence)
        self.file.seek(self.start + self.position)
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.position)
        content = self.file.read(left if size < 0 else min(size, left))
        self.position += len(content)
        return content
