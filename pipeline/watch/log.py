"""The log of a run: `log.jsonl` (events), `errors.log` (traces) and `metrics.jsonl` (a line for each phase, also of one that failed).

None of them holds text of a document or credentials: URLs lose their user and the values of their query, and messages are cut.
"""

import contextlib
import json
import platform
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.redact import redact, walked
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage

LOG, METRICS, ERRORS = "log.jsonl", "metrics.jsonl", "errors.log"
#: Files that are only appended to.
APPENDED = (LOG, METRICS, ERRORS)
#: On a store an object is written when this many bytes wait, or when the first of them has waited for this many seconds.
LARGEST, LONGEST = 256 << 10, 30.0
#: The most bytes that wait where a store can't be written. Further lines are dropped.
KEPT = 8 << 20
#: How often a process tries another number where another process has used the one that it took.
TRIES = 3
#: The most characters of a message or a field in the log.
MESSAGE = 600
_OBJECT = re.compile(r"(\d+)-(\d+)\.\w+")


def utc_now() -> str:
    """Returns the time in UTC as ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def clean(text: str) -> str:
    """Returns a text as it may stand in the log: on one line, without terminal sequences, with redacted URLs, cut to MESSAGE characters."""
    return safe_line(redact(text[: 4 * MESSAGE]), MESSAGE) if text else ""


# ---- files that are appended to ----------------------------------------------------------------------


class AppendedFile:
    """One of the files in `APPENDED`, for the process that holds the run's lease. Text that can't be written is tried again with the next
    text; a failure never ends the run.

    A store can't append, so there the file is a folder of objects: `log/00003-00017.jsonl` is number 17 of the third process that wrote
    the log. An object is created only where none has its name, so a process that finds its number used takes a higher one. Texts wait
    for `LARGEST` bytes, for `LONGEST` seconds, or for `flush`; a killed process loses those that wait.
    """

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
                with open(self.run.path(self.name), "ab") as file:
                    file.write(content)
            self._waiting.clear()
            self._bytes = 0

    def _created(self, content: bytes) -> bool:
        """Writes the next object. Returns False if another process has written one of that name."""
        if self._attempt is None:
            self._attempt, self._objects = 1 + max((attempt for attempt, _, _ in objects(self.run, self.name)), default=0), 0
        folder, _, ending = self.name.partition(".")
        if not self.run.store.create(f"{folder}/{self._attempt:05d}-{self._objects:05d}.{ending}", content):
            self._attempt = None
            return False
        self._objects += 1
        return True


def objects(run: Storage, name: str) -> list[tuple[int, int, str]]:
    """Returns the objects of an appended file on a store, in their order: process, number, name."""
    folder = name.partition(".")[0]
    found = [(match, f"{folder}/{path}") for path in run.times(folder) if (match := _OBJECT.fullmatch(PurePosixPath(path).name))]
    return sorted((int(match[1]), int(match[2]), path) for match, path in found)


def read_appended(run: Storage, name: str, last: int | None = None) -> bytes:
    """Returns the content of an appended file, or only its `last` bytes; empty where there is none. Raises OSError."""
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


class RunLog:
    """Writes the events of a run to its log. On a store, lines of level `error` and traces are written at once, others as for
    `AppendedFile`, and at the end of a phase or stage."""

    def __init__(self, run: Storage, now: Callable[[], str] = utc_now):
        self.run, self.now, self.node = clean(run.root.rstrip("/").rpartition("/")[2]), now, platform.node()
        self.log, self.errors, self.metrics = (AppendedFile(run, name) for name in (LOG, ERRORS, METRICS))
        self._sums: dict[str, float] = {}  # over the tasks of the present phase

    def __call__(self, event: Event) -> None:
        line = {
            "time": self.now(), "level": event.level, "event": event.kind, "run": self.run, "stage": event.stage, "phase": event.phase,
            "task": clean(event.task), "node": event.node or self.node, "message": clean(event.message),
            "fields": walked(event.fields, clean),
        }  # fmt: skip
        self.log.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        if event.trace:
            self.errors.append(f"{event.stage} {event.task}\n{event.trace.rstrip()}\n\n")  # a blank line separates errors
        match event.kind:
            case "phase_begin":
                self._sums = dict.fromkeys(("worker_seconds", "tasks", "rows_in", "bytes_in", "peak_mb", "children_mb"), 0)
            case "task":
                self._add(event.fields)
            case "phase_end" | "phase_broken_off":
                head = {"stage": event.stage, "phase": event.phase, "seconds": event.fields["seconds"]}
                self.metrics.append(json.dumps({**head, **self._sums, "workers": event.fields.get("workers")}) + "\n")
        if event.level == "error" or event.trace or event.kind.endswith(("_end", "_broken_off", "interrupted")):
            self.flush()

    def _add(self, done: dict[str, Any]) -> None:
        self._sums["tasks"] += 1
        self._sums["worker_seconds"] = round(self._sums["worker_seconds"] + done["seconds"], 3)
        for name in ("rows_in", "bytes_in"):
            self._sums[name] += done[name]
        for name in ("peak_mb", "children_mb"):
            self._sums[name] = max(self._sums[name], done[name])

    def flush(self) -> None:
        """Writes the texts that wait to be written to a store."""
        for file in (self.log, self.errors, self.metrics):
            file.flush()
