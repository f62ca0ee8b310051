"""One small file of a run that several processes may want to write: it is written only where it still is what the writer has seen.

A local folder does that under a lock that is held for the moment of the write. S3 does it itself (`If-None-Match`, `If-Match`). Any other
store of fsspec's can't: there is written, waited, and read back, which two writers can win that are further apart than the wait.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import TEMPORARY, Storage
from corpusmill.pipeline.store.ask import S3, insisted, refusal

#: The file whose lock guards the writes of a local folder.
GUARD_FILE = ".lock"
#: Seconds after which what was written to a store without conditional writes is read back; a request to S3, and a lock, may take so long.
SETTLE, PATIENCE = 1.0, 10.0
#: Seconds between two tries to get a lock.
WAIT = 0.01
#: What S3 answers where the object is not what was expected, or is being written by another.
LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404"}
UNKNOWN = {"NotImplemented", "501"}


class Cell(Protocol):
    def read(self) -> tuple[bytes, str] | None:
        """What is there, and its version; None where nothing is. Raises OSError where that can't be told."""

    def write(self, content: bytes, expected: str | None) -> str | None:
        """Writes where the version that is there is `expected` (None: nothing is there); returns the new version, None where it is not."""


def open_cell(storage: Storage, name: str) -> Cell:
    """The file `name` of a run's folder."""
    if not storage.remote:
        return LocalCell(storage, name)
    store = storage.path(name).partition("://")[0]
    return S3Cell(storage, name) if store in ("s3", "s3a") else PlainCell(storage, name, 0.0 if store == "memory" else SETTLE)


def create(storage: Storage, name: str, content: bytes) -> bool:
    """Writes a new file of a store; whether it is new (on S3 the store decides; others can't, so there it is always written)."""
    if storage.path(name).partition("://")[0] in S3:
        return S3Cell(storage, name, None, 0.0).write(content, None) is not None
    storage.write_bytes(name, content)
    return True


def overwrite(storage: Storage, name: str, content: bytes, check: Callable[[], None]) -> bool:
    """Writes a file of a store that is there; whether nobody else has since `check` (on S3; others can't tell, so there it is always
    written), which raises where this process may not."""
    if storage.path(name).partition("://")[0] in S3:
        cell = S3Cell(storage, name, None, 0.0)
        try:
            version = cell.version()
        except FileNotFoundError:
            return False
        check()
        return cell.write(content, version) is not None
    check()
    storage.write_bytes(name, content)
    return True


class LocalCell:
    """A version is the hash of the content."""

    def __init__(self, storage: Storage, name: str):
        self.root, self.path = storage.root, Path(storage.path(name))

    def read(self) -> tuple[bytes, str] | None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        return content, _version(content)

    def write(self, content: bytes, expected: str | None) -> str | None:
        with self._guarded():
            found = self.read()
            if (found and found[1]) != expected:
                return None
            temporary = self.path.with_name(TEMPORARY + self.path.name)  # one name, so that what a kill leaves is taken over by the next
            try:
                temporary.write_bytes(content)
                temporary.replace(self.path)
            except OSError:  # a full disk
                temporary.unlink(missing_ok=True)
                raise
        return _version(content)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        os.makedirs(self.root, exist_ok=True)
        with open(self.path.with_name(GUARD_FILE), "w") as file:
            _lock(file, PATIENCE)
            yield


class S3Cell:
    """A version is the object's ETag. A server that does not know conditional writes is used as any other store is."""

    def __init__(self, storage: Storage, name: str, patience: float | None = PATIENCE, settle: float = SETTLE):
        self.patience = patience  # seconds for which it is asked again (None: as for all else, see store/ask.py)
        self.fs, self.url = storage.store.fs, storage.path(name)
        self.bucket, self.key, _ = self.fs.split_path(self.url)
        self.plain = PlainCell(storage, name, settle)

    def read(self) -> tuple[bytes, str] | None:
        try:
            content, tag = self._call(self._get)
        except FileNotFoundError:
            return None
        return content, tag

    def version(self) -> str:
        """Of what is there. Raises FileNotFoundError where nothing is."""
        return str(self._call(self.fs._call_s3, "head_object", Bucket=self.bucket, Key=self.key)["ETag"])

    def write(self, content: bytes, expected: str | None) -> str | None:
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            answer = self._call(self.fs._call_s3, "put_object", Bucket=self.bucket, Key=self.key, Body=content, **condition)
        except OSError as error:
            code = _code(error)
            if code in UNKNOWN:
                return self._write_plainly(content, expected)
            if code not in LOST:
                raise
            found = self.read()  # an earlier try of the same request may have been carried out, though its answer never came
            return found[1] if found and found[0] == content else None
        return str(answer["ETag"])

    def _write_plainly(self, content: bytes, expected: str | None) -> str | None:
        found = self.read()
        if (found and found[1]) != expected or self.plain.write(content, found and _version(found[0])) is None:
            return None
        found = self.read()
        return found[1] if found and found[0] == content else None

    async def _get(self) -> tuple[bytes, str]:
        answer = await self.fs._call_s3("get_object", Bucket=self.bucket, Key=self.key)
        async with answer["Body"] as body:
            return await body.read(), str(answer["ETag"])

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        from fsspec.asyn import sync

        try:
            return insisted(self.url, lambda: sync(self.fs.loop, function, *arguments, timeout=PATIENCE, **options), self.patience)
        except OSError:  # whose code `write` looks at
            raise
        except Exception as error:
            if sentence := refusal(error):
                raise InputError(f"{self.url}: {sentence}") from error
            raise


class PlainCell:
    """A version is the hash of the content. `settle`: seconds until it is read back; 0 where only this process can write."""

    def __init__(self, storage: Storage, name: str, settle: float):
        self.storage, self.name, self.settle = storage, name, settle

    def read(self) -> tuple[bytes, str] | None:
        try:
            content = self.storage.read_bytes(self.name)
        except FileNotFoundError:
            return None
        return content, _version(content)

    def write(self, content: bytes, expected: str | None) -> str | None:
        found = self.read()
        if (found and found[1]) != expected:
            return None
        self.storage.write_bytes(self.name, content)
        time.sleep(self.settle)
        found = self.read()
        return found[1] if found and found[0] == content else None


def _lock(file: IO[str], seconds: float) -> None:
    """Waits for a lock that others hold for a moment; raises TimeoutError where one of them was stopped as it held it."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, f"for {seconds:.0f} s another process has held {file.name}") from None
            time.sleep(WAIT)
        else:
            return


def _version(content: bytes) -> str:
    return sha256(content).hexdigest()


def _code(error: BaseException) -> str:
    """What S3 calls an error that s3fs has made an OSError of."""
    response = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code")
    if code is None and isinstance(error, FileExistsError):  # the one that s3fs knows
        return "PreconditionFailed"
    return str(code)


def unwritable(root: str, error: OSError) -> InputError:
    """Why a run's folder can't be written, as a sentence."""
    return InputError(f"{root}: the run's folder can't be written ({error.strerror or error}).")
