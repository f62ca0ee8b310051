"""A folder on local disk or on any store that fsspec knows, with atomic publication.

Local files are written under a temporary name in their own folder, fsynced and renamed. Object stores publish an object only when its
upload completes, so a plain write is atomic there.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.store_requests import StoreError, asked, error_code, filesystem, is_s3
from corpusmill.pipeline.store_streams import StoreFile, StoreWriter

Result = TypeVar("Result")

#: Temporary names begin with this; nothing that reads a run ever looks at such a file.
TEMPORARY = ".tmp-"
#: What S3 answers where an object is not the expected one or is being written by another, and where a server has no conditional writes.
CONFLICT = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404"}
UNSUPPORTED = {"NotImplemented", "501"}
#: What stores and servers say about an object that changes with its content.
TAGS = frozenset(
    ["ETag", "etag", "md5", "sha256", "oid", "blob_id", "generation", "mtime", "LastModified", "Last-Modified", "last_modified", "updated"]
)
READ_BYTES = 4 << 20


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
    def store(self) -> "Store":
        """Only of a remote folder."""
        return Store(self.root)

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

    def sha256(self, relative: str) -> str:
        """sha256 (hex) of a file, read in pieces. Raises InputError where it can't be read."""
        found = hashlib.sha256()
        try:
            with self.open_read(relative) as file:
                while piece := file.read(READ_BYTES):
                    found.update(piece)
        except StoreError:
            raise
        except OSError as error:
            raise InputError(f"{self.path(relative)}: can't be read ({error.strerror or error}).") from error
        return found.hexdigest()

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
        """Bytes of each file that lies in `folder` itself, by name; of a remote folder found by one listing."""
        if self.remote:
            return {name.rpartition("/")[2]: int(info["size"]) for name, info in self.store.find(folder, below=False).items()}
        return {name: status.st_size for name, status in self._scanned(folder)}

    def times(self, folder: str = "") -> dict[str, float | None]:
        """When each file that lies in `folder` itself was last written (seconds since 1970), by name; None where a store does not say."""
        if self.remote:
            return {name.rpartition("/")[2]: last_written(info) for name, info in self.store.find(folder, below=False).items()}
        return {name: status.st_mtime for name, status in self._scanned(folder)}

    def _scanned(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """The files of a local folder itself; none where there is no such folder."""
        with suppress(OSError), os.scandir(self.path(folder)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file():
                        yield entry.name, entry.stat()

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


class Store:
    """The folder of a URL; names are relative to it. Nothing that it says comes from memory: each answer is the store's own.

    All methods raise StoreError and InputError as `asked` does.
    """

    def __init__(self, url: str):
        self.url = url
        self._opened: tuple[int, Any, str] | None = None  # by which process

    @property
    def _place(self) -> tuple[Any, str]:
        """The filesystem and the path in it. A forked process opens its own, because the event loop stays behind in its parent."""
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

    def _asked(self, name: str, request: Callable[[Any, str], Result], patience: float | None = None) -> Result:
        fs, path = self.fs, self.path(name)
        return asked(self._url(name), lambda: request(fs, path), patience)

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

    def create(self, name: str, content: bytes) -> bool:
        """Writes a new object; whether it is new. S3 decides that; other stores can't, so there it is always written."""
        if self.conditional:
            with suppress(NotImplementedError):
                return self.write_if(name, content, None) is not None
        self.write_bytes(name, content)
        return True

    @property
    def conditional(self) -> bool:
        """Whether the store writes an object only where it still is the expected one."""
        return is_s3(self.fs)

    def tag(self, name: str, patience: float | None = None) -> str:
        """What S3 calls the content of an object (its ETag). FileNotFoundError where there is none."""
        return str(self._asked(name, lambda fs, path: fs.info(path)["ETag"], patience))

    def write_if(
        self, name: str, content: bytes, tag: str | None, patience: float | None = None, timeout: float | None = None
    ) -> str | None:
        """Writes an object of S3 where its tag still is `tag` (None: where there is none); returns its new tag, None where it is not.

        `timeout` is that of each request, in seconds. Raises NotImplementedError where the server has no conditional writes.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}

        def request(fs: Any, path: str) -> str | None:
            bucket, key, _ = fs.split_path(path)
            try:
                return str(fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, timeout=timeout, **condition)["ETag"])
            except OSError as error:
                code = error_code(error)
                if code in UNSUPPORTED:
                    raise NotImplementedError from error
                if code in CONFLICT or isinstance(error, FileExistsError):
                    return None
                raise

        if new := self._asked(name, request, patience):
            return new
        try:  # an earlier try of the same request may have been carried out, though its answer never came
            there = self.tag(name, patience)
            return there if self.read_bytes(name) == content else None
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int:
        """Bytes, or -1 where there is no such object."""
        try:
            info = self._asked(name, lambda fs, path: fs.info(path))
        except FileNotFoundError:
            return -1
        return -1 if info["type"] == "directory" else int(info["size"] or 0)

    def find(self, folder: str = "", below: bool = True) -> dict[str, dict[str, Any]]:
        """What the store says of all objects of a folder, by name relative to this one; without `below` of those in the folder itself."""
        start = len(self.path("").rstrip("/")) + 1
        try:
            if below:
                infos = self._asked(folder, lambda fs, path: list(fs.find(path, detail=True).values()))
            else:
                infos = self._asked(folder, lambda fs, path: fs.ls(path, detail=True))
        except FileNotFoundError:
            return {}
        files = (info for info in infos if info["type"] != "directory" and not info["name"].endswith("/"))
        return {info["name"][start:]: info for info in files if len(info["name"]) > start}

    def fingerprints(self) -> dict[str, str]:
        """The files of this folder itself, sorted, each with what changes with its content."""
        found = self.find(below=False)
        return {name: fingerprint(int(found[name]["size"]), found[name]) for name in sorted(found)}

    def remove(self, name: str) -> None:
        """Does nothing where there is none."""
        with suppress(FileNotFoundError):
            self._asked(name, lambda fs, path: fs.rm_file(path))

    def remove_folder(self, folder: str) -> None:
        if names := list(self.find(folder)):
            paths = [self.path(name) for name in names]
            asked(self._url(folder), lambda: self.fs.rm(paths))

    def abort_uploads(self) -> int:
        """Aborts multipart uploads below this folder that killed processes left; how many there were. Only S3 has them."""
        if not is_s3(self.fs):
            return 0
        bucket, key, _ = self.fs.split_path(self.path(""))

        def call(method: str, **options: Any) -> Any:
            return asked(self.url, lambda: self.fs.call_s3(method, Bucket=bucket, **options))

        wanted: dict[str, Any] = {"Prefix": f"{key}/" if key else ""}
        found: list[dict[str, str]] = []
        while True:
            answer = call("list_multipart_uploads", **wanted)
            found += answer.get("Uploads", [])
            if not answer.get("IsTruncated"):
                break
            wanted |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}
        for upload in found:
            with suppress(FileNotFoundError):
                call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
        return len(found)


def fingerprint(size: int, tags: Mapping[str, Any]) -> str:
    """What changes when the content of a remote file does: its size, and what its store or server says of it."""
    return digest([size, {tag: str(tags[tag]) for tag in sorted(TAGS) if tags.get(tag) is not None}])[:32]


def last_written(info: dict[str, Any]) -> float | None:
    """When an object was written (seconds since 1970), as far as the store says; stores call it by other names."""
    for name in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
