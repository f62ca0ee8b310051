"""Text files of a run that only grow: `log.jsonl`, `metrics.jsonl`, `errors.log`. The process that holds the run's lease writes them, and
one that has lost it says so at the end of what it wrote.

A local file is appended to. A store can't append, so there it is a folder of objects, `log/00003-00017.jsonl`: the third process that wrote
it, its seventeenth object. An object is written only where there is none of its name, so of two processes that count alike one counts on.
Lines wait there until there are `LARGEST` bytes of them or `LONGEST` seconds have passed, or until they are flushed; what a killed process
had not flushed is lost.
"""

import contextlib
import os
import re
import threading
import time
from pathlib import PurePosixPath

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.storage import Storage

LOG, METRICS, ERRORS = "log.jsonl", "metrics.jsonl", "errors.log"
GROWN = (LOG, METRICS, ERRORS)
#: An object is written when so many bytes wait, or the first of them has waited for so many seconds.
LARGEST, LONGEST = 256 << 10, 30.0
#: Bytes that wait at most where a store can't be written: what comes then is dropped.
KEPT = 8 << 20
#: How often a process takes another number because the one that it took is another's.
TRIES = 3
_OBJECT = re.compile(r"(\d+)-(\d+)\.\w+")


class Growing:
    """Appends to one such file. A run does not end because it can't say something: what can't be written is tried again with the next."""

    def __init__(self, run: Storage, name: str):
        self.run, self.name = run, name
        self._attempt: int | None = None
        self._objects = self._bytes = 0
        self._waiting: list[bytes] = []
        self._since = 0.0
        self._mutex = threading.Lock()

    def append(self, text: str) -> None:
        content = text.encode("utf-8", "backslashreplace")
        with self._mutex:
            if self._bytes + len(content) > KEPT:
                return
            self._since = self._since if self._waiting else time.monotonic()
            self._waiting.append(content)
            self._bytes += len(content)
            if not self.run.remote or self._bytes >= LARGEST or time.monotonic() - self._since >= LONGEST:
                self._write()

    def flush(self) -> None:
        with self._mutex:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        with contextlib.suppress(OSError, CorpusmillError):
            content = b"".join(self._waiting)
            if self.run.remote:
                if not any(self._created(content) for _ in range(TRIES)):
                    return
            else:
                os.makedirs(self.run.root, exist_ok=True)
                with open(self.run.path(self.name), "ab") as file:
                    file.write(content)
            self._waiting.clear()
            self._bytes = 0

    def _created(self, content: bytes) -> bool:
        """Writes the next object; whether it is this process' own."""
        if self._attempt is None:
            self._attempt, self._objects = 1 + max((attempt for attempt, _, _ in objects(self.run, self.name)), default=0), 0
        folder, _, ending = self.name.partition(".")
        if not self.run.store.create(f"{folder}/{self._attempt:05d}-{self._objects:05d}.{ending}", content):
            self._attempt = None
            return False
        self._objects += 1
        return True


def objects(run: Storage, name: str) -> list[tuple[int, int, str]]:
    """The objects of such a file on a store, in their order: attempt, number, name."""
    folder = name.partition(".")[0]
    found = [(match, f"{folder}/{path}") for path in run.times(folder) if (match := _OBJECT.fullmatch(PurePosixPath(path).name))]
    return sorted((int(match[1]), int(match[2]), path) for match, path in found)


def read_grown(run: Storage, name: str, last: int | None = None) -> bytes:
    """Its content, or at most about the `last` bytes of it; empty where there is nothing. Raises OSError where it can't be read."""
    if run.exists(name):
        with run.open_read(name) as file:
            file.seek(max(0, run.size(name) - last) if last is not None else 0)
            return file.read()
    parts: list[bytes] = []
    for _, _, path in reversed(objects(run, name)):
        parts.append(run.read_bytes(path))
        if last is not None and sum(map(len, parts)) >= last:
            break
    content = b"".join(reversed(parts))
    return content if last is None else content[-last:] if last else b""


def last_written(run: Storage, name: str, times: dict[str, float | None]) -> float | None:
    """When something was appended, in seconds since 1970; None where that is not known. `times`: those of the files in the run's folder."""
    if not run.remote:
        return times.get(name)
    return max((written for written in run.times(name.partition(".")[0]).values() if written is not None), default=None)
