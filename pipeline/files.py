"""Finds input files (local paths and URLs), describes them by size and fingerprint, and opens them as seekable streams."""

import fnmatch
import glob
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.redirects import RedirectRefusedError, checked_redirects, lasting_fault
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Store, fingerprint, is_remote, open_regular
from corpusmill.pipeline.stores import RANGE, WHOLE, RangeStream, StoreError, StoreFile, asked, is_store
from corpusmill.pipeline.web import cached

MAGIC_CHARACTERS = "*?["
#: Requests at a time for the sizes of files, of web servers and of stores.
REQUESTS, STORE_REQUESTS = 8, 64


def filesystem(url: str) -> tuple[Any, str]:
    """Returns the fsspec filesystem of a web server or of the Hugging Face Hub, and the path in it. Raises InputError for another URL."""
    from fsspec.core import url_to_fs

    options = {"client_kwargs": checked_redirects()} if is_web(url) else {}
    try:
        fs, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:  # no library for the protocol, or no such protocol
        raise InputError(f"{url}: this kind of URL can't be opened here ({error}).") from error
    return fs, path


def is_web(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def local_path(path: str) -> str:
    return path.removeprefix("file://")


def _reason(error: BaseException) -> str:
    """Returns the reason of an error in a few words. fsspec reports any failure of a web server as a missing file, so this looks for a
    refused redirect among the causes."""
    refused: BaseException | None = error
    while refused is not None and not isinstance(refused, RedirectRefusedError):
        refused = refused.__cause__ or refused.__context__
    if isinstance(error, FileNotFoundError) and refused is None:
        return "no such file"
    return str(refused) if refused else f"can't be read ({getattr(error, 'strerror', None) or error})"


def open_file(path: str, size: int | None = None, whole: int = WHOLE) -> IO[bytes]:
    """Opens a file as a seekable binary stream. Raises InputError if it can't be opened.

    `size`: bytes of a remote file, where they are known. `whole`: a remote file of at most so many bytes is fetched by one request.
    """
    try:
        if not is_remote(path):
            return open_regular(local_path(path))
        if here := cached(path):
            return open(here.path, "rb")
        if is_store(path):
            return cast(IO[bytes], StoreFile(path, size, whole))
        if is_web(path):
            return cast(IO[bytes], WebFile(path, file_ref(path).bytes if size is None else size, whole))
        fs, name = filesystem(path)
        return cast(IO[bytes], fs.open(name, "rb"))
    except StoreError:
        raise
    except OSError as error:
        raise InputError(lasting_fault(path, error) or f"{path}: {_reason(error)}.") from error


class WebFile(RangeStream):
    """A file of a web server as a readable stream, by one request at a time, so that each reader holds one connection."""

    def __init__(self, url: str, size: int, whole: int = WHOLE):
        super().__init__(url, size, whole)
        fs, name = filesystem(url)
        self._file = fs.open(name, "rb", size=size or 1, cache_type="none")  # an empty file is never read
        if self.size > whole:
            self.ranges(self.size - 1, self.size)  # a server that ignores ranges is only noticed beyond the beginning

    def _some(self, begin: int, end: int) -> list[Any]:
        return [asked(self.name, partial(self._read, at, min(at + RANGE, end))) for at in range(begin, end, RANGE)]

    def _read(self, begin: int, end: int) -> bytes:
        try:
            self._file.seek(begin)
            return cast(bytes, self._file.read(end - begin))
        except ValueError as error:
            why = "the server gives whole files only, so it can't be read in pieces; download it first"
            raise InputError(f"{self.name}: {why}.") from error


def file_refs(paths: Sequence[str]) -> list[FileRef | InputError]:
    """Returns `file_ref` of each file; where it raises InputError, that error. Remote files are asked for in parallel."""

    def ref(path: str) -> FileRef | InputError:
        try:
            return file_ref(path)
        except InputError as error:
            return error

    if not any(map(is_remote, paths)):
        return [ref(path) for path in paths]
    pool = ThreadPoolExecutor(STORE_REQUESTS if all(map(is_store, paths)) else REQUESTS)
    try:
        return list(pool.map(ref, paths))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def file_ref(path: str) -> FileRef:
    """Returns a file with its size and a fingerprint: size and modification time of a local file, the store's tags of a remote one."""
    if not is_remote(path):
        try:
            status = Path(local_path(path)).stat()
        except OSError as error:
            raise InputError(f"{path}: can't be read ({error.strerror}).") from error
        return FileRef(path, f"{status.st_size}:{status.st_mtime_ns}", status.st_size)
    if here := cached(path):
        return FileRef(path, fingerprint(here.bytes, here.tags), here.bytes)
    try:
        if is_store(path):
            info = Store(path).info("")
        else:
            fs, name = filesystem(path)
            info = asked(path, lambda: fs.info(name))
    except StoreError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {_reason(error)}.") from error
    size = info.get("size")
    if size is None:
        raise InputError(f"{path}: the server doesn't say how large it is, so it can't be read in pieces; download it first.")
    return FileRef(path, fingerprint(int(size), info), int(size))


#: The least similarity (`SequenceMatcher.ratio`) of a file's name that a message suggests. Endings alone make names similar.
NEAR = 0.8


def expand(given: str) -> list[str]:
    """Returns the files of one input, sorted. A path that exists is not read as a pattern, whatever characters it has."""
    return list(listed(given))


def listed(given: str) -> dict[str, FileRef | None]:
    """Returns the files of one input, sorted, each with what the listing says of it; None where `file_ref` must be asked."""
    if is_store(given):
        return dict(_expand_store(given))
    return dict.fromkeys(_expand_remote(given) if is_remote(given) else _expand_local(given))


def _expand_local(given: str) -> list[str]:
    path = local_path(given)
    if Path(path).is_dir():
        return _below(path)
    if Path(path).exists():
        return [path]
    if any(character in path for character in MAGIC_CHARACTERS):
        files = _below_pattern(path) if "**" in path else _matching(path)
        if not files:
            raise InputError(f"{given}: no file matches.")
        return files
    raise InputError(f"{given}: no such file or folder{_meant(path)}.")


def _meant(path: str) -> str:
    """Returns ` (did you mean my.jsonl?)` if a name like the last one of `path` is in its folder, else nothing."""
    folder = Path(path).parent
    near = get_close_matches(Path(path).name, os.listdir(folder), 1, NEAR) if folder.is_dir() else []
    return f" (did you mean {safe_line(str(folder / near[0]), 200)}?)" if near else ""


def _matching(pattern: str) -> list[str]:
    """Returns the files that a pattern without `**` matches, and the files below the folders that it matches."""
    return sorted({file for match in glob.glob(pattern) for file in (_below(match) if Path(match).is_dir() else [match])})


def _below_pattern(pattern: str) -> list[str]:
    """As `_matching`, for a pattern with `**`. Python's `glob` would follow a folder that links to itself for ever."""
    steps = pattern.split("/")
    place = next(number for number, step in enumerate(steps) if glob.has_magic(step))
    root = "/".join(steps[:place]) or ("/" if place else ".")
    files = [file for file in _below(root) if _fits(steps[place:], os.path.relpath(file, root).split("/"))]
    return files if place else [file.removeprefix("./") for file in files]


def _fits(steps: list[str], names: list[str]) -> bool:
    """Whether a pattern matches a file or a folder that holds it. As in a shell, a wildcard does not match the dot of a hidden name."""
    if not steps:
        return True
    if steps[0] == "**" and _fits(steps[1:], names):
        return True
    if not names or (names[0].startswith(".") and not steps[0].startswith(".")):
        return False
    if steps[0] == "**":
        return _fits(steps, names[1:])
    return fnmatch.fnmatchcase(names[0], steps[0]) and _fits(steps[1:], names[1:])


def _below(folder: str) -> list[str]:
    """Returns all files below a folder, as `folder/relative`. A link to a folder that holds the link is not followed."""
    root = folder.rstrip("/") or "/"
    files: list[str] = []
    above = {root: {os.path.realpath(root)}}  # the real paths of each folder still to visit, and of those that hold it
    for parent, folders, names in os.walk(root, followlinks=True):
        files += [os.path.join(parent, name) for name in names]
        places = above.pop(parent)
        for name in list(folders):
            if (real := os.path.realpath(below := os.path.join(parent, name))) in places:
                folders.remove(name)
            else:
                above[below] = places | {real}
    return sorted(files)


def _expand_remote(given: str) -> list[str]:
    fs, name = filesystem(given)
    try:
        files = asked(given, lambda: _look(given, fs, name))
    except CorpusmillError:
        raise
    except Exception as error:  # each server has exceptions of its own; the user needs one sentence
        raise InputError(
            f"{given}: can't be listed ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
        ) from error
    protocol = given.split("://", 1)[0]
    return [given] if files is None else sorted({file if "://" in file else f"{protocol}://{file.lstrip('/')}" for file in map(str, files)})


def _expand_store(given: str) -> dict[str, FileRef]:
    protocol, _, rest = given.partition("://")
    place, *steps = rest.rstrip("/").split("/")
    store, name = Store(f"{protocol}://{place}"), "/".join(steps)
    if name and store.size(name) >= 0:
        return {given: file_ref(given)}
    fixed = next((number for number, step in enumerate(steps) if glob.has_magic(step)), len(steps))
    found = store.find(name)
    if not found and fixed < len(steps):
        found = {file: info for file, info in store.find("/".join(steps[:fixed])).items() if _fits(steps, file.split("/"))}
    if not found:
        raise InputError(f"{given}: {'no file matches' if fixed < len(steps) else 'no such file or folder'}.")
    refs: dict[str, FileRef] = {}
    for file in sorted(found):
        size, url = int(found[file]["size"]), f"{store.url}/{file}"
        if size or store.size(file) >= 0:  # else it stands for an empty folder
            refs[url] = FileRef(url, fingerprint(size, found[file]), size)
    return refs


def _look(given: str, fs: Any, name: str) -> list[str] | None:
    """Returns the files that a URL stands for; None if it is a file itself. Servers have no folders, and their `info` is not reliable."""
    if any(character in name for character in MAGIC_CHARACTERS) and not fs.exists(name):
        matches = sorted(str(match) for match in fs.glob(name))
        files = [file for match in matches for file in (fs.find(match) if fs.isdir(match) else [match])]
        if not files:
            raise InputError(f"{given}: no file matches.")
        return files
    if fs.isfile(name):
        return None
    if fs.isdir(name):
        return list(fs.find(name))
    try:
        fs.info(name)  # says why
    except OSError as error:
        raise InputError(lasting_fault(given, error) or f"{given}: no such file or folder.") from error
    raise InputError(f"{given}: no such file or folder.")
