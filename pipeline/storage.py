"""A folder on local disk or on an object store, with atomic publication.

Local files are written under a temporary name in their own folder, fsynced and renamed. Object stores publish an object only when its
upload completes, so a plain write is atomic there.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from xxhash import xxh3_64

from corpusmill.pipeline.config import digest, parse_json
from corpusmill.pipeline.errors import CorpusmillError, Damaged, InputError
from corpusmill.pipeline.stores import PARALLEL, PART, TIMEOUT, StoreError, StoreFile, asked, is_store, opened, written

Result = TypeVar("Result")

#: The prefix of temporary names. Readers of a run ignore such files.
TEMPORARY = ".tmp-"
#: A file in the folder of a run that `corpusmill fork` is making, until it has its run.json.
UNFINISHED_FORK = f"{TEMPORARY}fork"
#: The properties of an object that change with its content, as stores and servers name them; and the times that stand for them where there
#: are none: a listing gives them more or less exactly than the object itself.
TAGS = ("ETag", "etag", "e_tag", "md5", "sha256", "oid", "blob_id", "generation")
TIMES = ("mtime", "LastModified", "Last-Modified", "last_modified", "updated")
READ_BYTES = 4 << 20
#: The most bytes of a local file that is read as a whole, such as `run.json`.
LARGEST = 1 << 30


def is_remote(path: str) -> bool:
    """Whether a path has a protocol (`s3://...`) other than `file://`."""
    return "://" in path and not path.startswith("file://")


def printable(path: str) -> str:
    """Returns a path as printable text: bytes of a file name that are not UTF-8 become `\\xff` and the like."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stays_inside(path: str) -> bool:
    """Whether a relative path stays below its folder. Paths that come from a file must not lead elsewhere."""
    return bool(path) and not path.startswith("/") and "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def located(run: "Storage", path: str) -> tuple["Storage", str]:
    """Returns the folder and the name of a file: of the run where `path` is relative, else of its own folder."""
    if path.startswith("/") or is_remote(path):
        folder, _, name = path.rpartition("/")
        return Storage(folder), name
    return run, path


def open_regular(path: str | Path) -> IO[bytes]:
    """Opens a local file for reading. Raises OSError, also where it is no regular file: a FIFO may block for ever, a device has no end."""
    file = open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


class Storage:
    """A root folder; all paths given to its methods are relative to it and use `/`."""

    def __init__(self, root: str):
        self.root = root.removeprefix("file://").rstrip("/") or "/"
        self.remote = is_remote(root)

    @property
    def absolute(self) -> str:
        """The folder's path from anywhere."""
        return self.root if self.remote else str(Path(self.root).absolute())

    def __repr__(self) -> str:
        return f"Storage({self.root!r})"

    def child(self, folder: str) -> "Storage":
        return Storage(self.path(folder))

    def path(self, relative: str) -> str:
        """Returns the full path or URL of a file in this folder."""
        return f"{self.root}/{relative}" if relative else self.root

    @cached_property
    def store(self) -> "Store":
        """The store of a remote folder. A local folder has none."""
        return Store(self.root)

    def open_read(self, relative: str) -> IO[bytes]:
        if self.remote:
            return self.store.open_read(relative)
        return open_regular(self.path(relative))

    def read_bytes(self, relative: str) -> bytes:
        """Returns the content of a small file. Raises FileNotFoundError if there is none, OSError where it has more than LARGEST bytes."""
        if self.remote:
            return self.store.read_bytes(relative)
        with self.open_read(relative) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise OSError(errno.EFBIG, f"it has more than {LARGEST:,} bytes", self.path(relative))
        return content

    def read_json(self, relative: str, kind: type = object) -> Any:
        """Returns the value of a JSON file that the program wrote. Raises Damaged if it can't be read, or is not of the type `kind`."""
        path = self.path(relative)
        try:
            value = parse_json(self.read_bytes(relative))
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            raise Damaged(f"{path}: not readable JSON ({getattr(error, 'strerror', None) or error}).", path) from error
        if not isinstance(value, kind):
            raise Damaged(f"{path}: not a JSON {'object' if kind is dict else kind.__name__}.", path)
        return value

    def read_range(self, relative: str, begin: int, end: int) -> bytes:
        """Returns the bytes from `begin` to `end` of a file that has at least `end` bytes."""
        if self.remote:
            return self.store.read_range(relative, begin, end)
        with self.open_read(relative) as file:
            file.seek(begin)
            return file.read(end - begin)

    def sha256(self, relative: str) -> str:
        """Returns the sha256 (hex) of a file, which is read in parts. Raises InputError if it can't be read."""
        return self._hashed(relative, hashlib.sha256())

    def xxh3(self, relative: str) -> str:
        """Returns the XXH3-64 (hex) of a file, as `sha256`. It finds damage, not forgery, and costs a tenth."""
        return self._hashed(relative, xxh3_64())

    def _hashed(self, relative: str, found: Any) -> str:
        try:
            with self.open_read(relative) as file:
                while piece := file.read(READ_BYTES):
                    found.update(piece)
        except StoreError:
            raise
        except OSError as error:
            raise InputError(f"{self.path(relative)}: can't be read ({error.strerror or error}).") from error
        return str(found.hexdigest())

    def exists(self, relative: str) -> bool:
        """Whether there is such a file (in a local folder also: such a folder)."""
        return self.size(relative) >= 0 or (not self.remote and os.path.isdir(self.path(relative)))  # noqa: PTH112 - pathlib raises for names that are too long

    def size(self, relative: str) -> int:
        """Returns the bytes of a file, or -1 where there is none (or another thing than a file)."""
        if self.remote:
            return self.store.size(relative)
        try:
            status = Path(self.path(relative)).stat()
        except (OSError, ValueError):
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def list_files(self, folder: str = "") -> list[str]:
        """Returns the paths of all files below `folder`, relative to the root, sorted, temporary files included."""
        if self.remote:
            return sorted(self.store.find(folder))
        found = ((os.path.relpath(of, self.root), names) for of, _, names in os.walk(self.path(folder)))
        return sorted(name if of == "." else f"{of}/{name}" for of, names in found for name in names)

    def listing(self, folder: str = "") -> dict[str, int]:
        """Returns the bytes of each file that lies in `folder` itself, by name. A remote folder takes one listing."""
        if self.remote:
            return {name.rpartition("/")[2]: int(info["size"]) for name, info in self.store.find(folder, below=False).items()}
        return {name: status.st_size for name, status in self._scanned(folder)}

    def times(self, folder: str = "") -> dict[str, float]:
        """Returns when each file in `folder` itself was last written (seconds since 1970), by name."""
        if self.remote:
            return {
                name.rpartition("/")[2]: info["last_modified"].timestamp() for name, info in self.store.find(folder, below=False).items()
            }
        return {name: status.st_mtime for name, status in self._scanned(folder)}

    def _scanned(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yields the files that lie in a local folder itself; none where there is no such folder."""
        with suppress(OSError), os.scandir(self.path(folder)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file():
                        yield entry.name, entry.stat()

    def sweep(self, folder: str = "") -> None:
        """Removes the temporary files that killed processes of this machine have left in a local `folder` itself."""
        for name in [name for name, _ in self._scanned(folder) if name.startswith(TEMPORARY)]:
            process = name.removeprefix(TEMPORARY).partition("-")[0]
            if process.isdigit() and not Path(f"/proc/{process}").exists():
                self.remove(f"{folder}/{name}".lstrip("/"))

    def folders(self, folder: str = "") -> list[str]:
        """Returns the paths of the folders that lie in `folder` itself, sorted; local links and names that begin with a point are left out.
        A remote folder takes one listing."""
        if self.remote:
            names = self.store.folders(folder)
        else:
            names = []
            with suppress(OSError), os.scandir(self.path(folder)) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(f"{folder}/{name}".lstrip("/") for name in names if not name.startswith("."))

    def stamps(self, folder: str) -> dict[str, tuple[float, int]]:
        """Returns the time of writing (as `times`) and the bytes of each object in a remote `folder` itself, by name. A changed object has
        another stamp, unless it was written within the same second (the unit of many stores) and has the same length."""
        found = self.store.find(folder, below=False)
        return {name.rpartition("/")[2]: (info["last_modified"].timestamp(), int(info["size"])) for name, info in found.items()}

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
        """Yields a binary file that appears under its name only when the block ends without an exception."""
        if self.remote:
            with written(self.path(relative)) as upload:
                yield cast(IO[bytes], upload)
            return
        target = Path(self.path(relative))
        temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:  # inside `try`: an interrupt may come as soon as the file exists
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            fsync_folder(target.parent)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError) and not isinstance(error, CorpusmillError):  # else it comes from reading a store
                raise InputError(f"{target}: can't be written ({error.strerror}).") from error
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
    """The folder of a URL; names are relative to it. Nothing is cached: each call asks the store.

    All methods raise StoreError and InputError as `asked` does.
    """

    def __init__(self, url: str):
        self.url = url
        #: What identifies a version of an object in conditional writes.
        self._version = "version" if url.startswith("gs://") else "e_tag"

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _asked(self, name: str, request: Callable[[Any, str], Result], patience: float | None = None) -> Result:
        store, path = opened(self._url(name), timeout=patience or TIMEOUT)
        return asked(self._url(name), lambda: request(store, path), patience)

    def open_read(self, name: str) -> IO[bytes]:
        """Opens an object, or a file of a web server, for reading. Raises FileNotFoundError if there is none."""
        from corpusmill.pipeline.files import open_file

        return cast(IO[bytes], StoreFile(self._url(name))) if is_store(self.url) else open_file(self._url(name))

    def read_bytes(self, name: str) -> bytes:
        """Returns a small object, with one request. Raises FileNotFoundError if there is none."""
        if not is_store(self.url):
            with self.open_read(name) as file:
                return file.read()
        return bytes(self._asked(name, lambda store, path: store.get(path).bytes()))

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        """Returns the bytes from `begin` to `end` of an object that has at least `end` bytes. No other bytes are fetched."""
        return StoreFile(self._url(name), size=end).ranges(begin, end) if begin < end else b""

    def write_bytes(self, name: str, content: bytes) -> None:
        self._asked(name, lambda store, path: store.put(path, content, chunk_size=PART, max_concurrency=PARALLEL))

    def copy(self, name: str, target: "Store") -> None:
        """Has the store copy an object to the same name in another folder of it. Raises FileNotFoundError if there is no such object."""
        to = opened(target._url(name))[1]
        self._asked(name, lambda store, path: store.copy(path, to))

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object and returns True; where there is already one of this name, returns False and writes nothing."""
        return self.write_if(name, content, None) is not None

    def tag(self, name: str, patience: float | None = None) -> str:
        """Returns what identifies the version of an object, for `write_if`. Raises FileNotFoundError if there is none."""
        return str(self._asked(name, lambda store, path: store.head(path), patience)[self._version])

    def write_if(self, name: str, content: bytes, tag: str | None, patience: float | None = None) -> str | None:
        """Writes an object if its version is still `tag` (None: if there is no object). Returns the new tag; None: not written."""

        def request(store: Any, path: str) -> str | None:
            from obstore.exceptions import AlreadyExistsError, PreconditionError

            with suppress(AlreadyExistsError, PreconditionError):
                return str(store.put(path, content, mode="create" if tag is None else {self._version: tag})[self._version])
            return None

        if new := self._asked(name, request, patience):
            return new
        try:  # an earlier try of this request may have succeeded, and only its answer was lost
            there = self.tag(name, patience)
            return there if self.read_bytes(name) == content else None
        except FileNotFoundError:
            return None

    def info(self, name: str) -> dict[str, Any]:
        """Returns obstore's information about an object: `size`, `e_tag`, `last_modified`. Raises FileNotFoundError if there is none."""
        return self._asked(name, lambda store, path: dict(store.head(path)))

    def size(self, name: str) -> int:
        """Returns the bytes of an object, or -1 where there is none."""
        from corpusmill.pipeline.files import file_ref

        if not is_store(self.url):  # a web server, whose errors all are InputErrors
            try:
                return file_ref(self._url(name)).bytes
            except InputError:
                return -1
        try:
            return int(self.info(name)["size"])
        except FileNotFoundError:
            return -1

    def find(self, folder: str = "", below: bool = True) -> dict[str, dict[str, Any]]:
        """Returns the store's information about each object below `folder`, by name relative to this folder. Without `below`: only about
        those in `folder` itself. The empty objects that consoles make for folders are left out where the folder is not empty."""
        inside = len(f"{root}/" if (root := opened(self.url)[1]) else "")
        found = self._asked(folder, lambda store, path: store.list(path).collect() if below else store.list_with_delimiter(path)["objects"])
        infos = {info["path"][inside:]: info for info in found if len(info["path"]) > inside}
        if any(not info["size"] for info in infos.values()):
            holding = {parent for name in infos for parent in accumulate(name.split("/")[:-1], "{}/{}".format)} | {folder}
            return {name: info for name, info in infos.items() if info["size"] or name not in holding}
        return infos

    def folders(self, folder: str) -> list[str]:
        """Returns the names of the folders that lie in `folder` itself."""
        found = self._asked(folder, lambda store, path: store.list_with_delimiter(path)["common_prefixes"])
        return [path.rpartition("/")[2] for path in found]

    def fingerprints(self) -> dict[str, str]:
        """Returns the `fingerprint` of each file in this folder itself, by name, sorted."""
        found = self.find(below=False)
        return {name: fingerprint(int(found[name]["size"]), found[name]) for name in sorted(found)}

    def remove(self, name: str) -> None:
        """Removes an object, where there is one."""
        with suppress(FileNotFoundError):
            self._asked(name, lambda store, path: store.delete(path))

    def remove_folder(self, folder: str) -> None:
        if paths := [opened(self._url(name))[1] for name in self.find(folder)]:
            self._asked(folder, lambda store, _: store.delete(paths))


def fingerprint(size: int, tags: Mapping[str, Any]) -> str:
    """Returns a digest of a remote file's size and tags (TAGS, else TIMES). It changes when the content of the file does."""
    named = {tag: str(tags[tag]).strip('"') for tag in sorted(TAGS) if tags.get(tag) is not None}
    return digest([size, named or {time: str(tags[time]) for time in TIMES if tags.get(time) is not None}])[:32]
