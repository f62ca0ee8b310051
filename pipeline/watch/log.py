"""The event files of a run, `log.jsonl`, `errors.log`, `metrics.jsonl` and `progress.json`, and the observer that writes them.

`Observer` gets the events of a run and passes them to the terminal (`on_event`), to these files and to the counts (metrics.py). None of
them holds text of a document or credentials: URLs lose their user and the values of their query, and messages are cut.
docs/operations.md lists the events.
"""

import contextlib
import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import corpusmill
from corpusmill.pipeline.engine import Engine, TaskDone
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.failures import Event, Failed, OnEvent, print_event
from corpusmill.pipeline.interrupts import of_an_interrupt
from corpusmill.pipeline.lease import Lease
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.memory import forget_peak
from corpusmill.pipeline.redact import redact, walked
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import TEMPORARY, Storage
from corpusmill.pipeline.watch.metrics import Counting, documents_of

LOG, METRICS, ERRORS, PROGRESS = "log.jsonl", "metrics.jsonl", "errors.log", "progress.json"
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
LEVELS = {"waiting": "warning", "quarantine": "error"}
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


def last_written(run: Storage, name: str, times: dict[str, float | None]) -> float | None:
    """Returns when the file was last appended to (seconds since 1970); None if it is not known. `times`: the times of the files in a
    local run's folder."""
    if not run.remote:
        return times.get(name)
    return max((written for written in run.times(name.partition(".")[0]).values() if written is not None), default=None)


class RunLog:
    """`log.jsonl`: one JSON object a line. On a store, lines of level `error` are written at once, others as for `AppendedFile`."""

    def __init__(self, run: Storage, now: Callable[[], str] = utc_now):
        self.file, self.now = AppendedFile(run, LOG), now
        self.run = clean(run.root.rstrip("/").rpartition("/")[2])
        self.node = platform.node()

    def write(
        self,
        event: str,
        message: str = "",
        level: str = "info",
        stage: str = "",
        phase: str = "",
        task: str = "",
        node: str = "",
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Appends a line. `node`: by default the machine on which this process runs."""
        line = {
            "time": self.now(), "level": level, "event": event, "run": self.run, "stage": stage, "phase": phase, "task": clean(task),
            "node": node or self.node, "message": clean(message), "fields": walked(fields or {}, clean),
        }  # fmt: skip
        self.file.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        if level == "error":
            self.flush()

    def flush(self) -> None:
        self.file.flush()


# ---- progress.json -----------------------------------------------------------------------------------


class ProgressFile:
    """`progress.json`: the process, its stages, and for each phase the number of its tasks and the end of the manifest at its begin. The
    file is replaced when a phase begins. `corpusmill status` counts finished tasks in the manifest, so a task costs nothing here.

    `is_ours` is called before each write: a process that has lost the run to another one writes no more.
    """

    def __init__(self, run: Storage, stages: Sequence[str], engine: Engine, is_ours: Callable[[], bool] = lambda: True):
        self.run, self.engine, self.is_ours = run, engine, is_ours
        self.content: dict[str, Any] = {
            "corpusmill": corpusmill.__version__, "host": platform.node(), "process": os.getpid(),
            "began": utc_now(), "ended": None, "failure": None, "stages": list(stages), "stages_began": {}, "phases": [],
        }  # fmt: skip

    def __enter__(self) -> "ProgressFile":
        self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.content["ended"] = utc_now()
        if error is not None:
            self.content["failure"] = redact(str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}")
        self._write()

    def stage_begins(self, name: str) -> None:
        self.content["stages_began"][name] = utc_now()
        self._write()

    def phase_begins(self, stage: str, name: str, tasks: Sequence[Task], todo: Sequence[Task], manifest: Manifest) -> None:
        """Adds a phase. `tasks`: all of its tasks; `todo`: those that are not finished yet."""
        # The field of a manifest row in which a reader finds these bytes of a finished task: `bytes_in` where tasks are parts of files.
        unit = "bytes_in" if all("segments" in task.params for task in tasks) else "inputs"
        all_bytes, todo_bytes = (
            sum(task.size if unit == "bytes_in" else sum(ref.bytes for ref in task.inputs) for task in each) for each in (tasks, todo)
        )
        phase = {
            "stage": stage, "phase": name, "tasks": len(todo), "before": len(tasks) - len(todo), "bytes": todo_bytes,
            "bytes_before": all_bytes - todo_bytes, "bytes_are": unit, "manifest": manifest.place,
            "workers": self.engine.known_workers(), "began": utc_now(), "ended": None,
        }  # fmt: skip
        self.content["phases"].append(phase)
        self._write()

    def phase_ends(self) -> None:
        """Sets the end of the last phase. It is written with the next change."""
        self.content["phases"][-1]["ended"] = utc_now()

    def _write(self) -> None:
        if not self.is_ours():
            return
        content = json.dumps(self.content, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with contextlib.suppress(OSError, CorpusmillError):  # a failure here never ends a run
            if self.run.remote:
                self.run.write_bytes(PROGRESS, content)
                return
            temporary = Path(self.run.path(TEMPORARY + PROGRESS))  # a fixed name: the next process replaces a leftover
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(content)
                temporary.replace(self.run.path(PROGRESS))
            except OSError:  # a full disk
                temporary.unlink(missing_ok=True)


# ---- the observer ------------------------------------------------------------------------------------


@dataclass
class PhaseMetrics:
    """A phase's line of `metrics.jsonl`: sums and maxima over its tasks, without keeping the tasks."""

    tasks: int = 0
    worker_seconds: float = 0.0
    rows_in: int = 0
    bytes_in: int = 0
    peak_mb: int = 0
    children_mb: int = 0

    def add(self, done: TaskDone) -> None:
        self.tasks += 1
        self.worker_seconds += done.seconds
        self.rows_in += done.rows_in
        self.bytes_in += done.bytes_in
        self.peak_mb = max(self.peak_mb, done.peak_mb)
        self.children_mb = max(self.children_mb, done.children_mb)

    def row(self, stage: str, phase: str, seconds: float, workers: int) -> dict[str, Any]:
        """Returns the line as JSON. `seconds`: wall-clock time of the phase."""
        return {
            "stage": stage, "phase": phase, "seconds": round(seconds, 3), "worker_seconds": round(self.worker_seconds, 3),
            "tasks": self.tasks, "rows_in": self.rows_in, "bytes_in": self.bytes_in, "workers": workers, "peak_mb": self.peak_mb,
            "children_mb": self.children_mb,
        }  # fmt: skip


class Observer:
    """Dispatches the events of one process' work on a run to the terminal (`on_event`), the files above and the counts. `after_phase` is
    called at the end of each phase."""

    def __init__(
        self,
        run: Storage,
        progress: ProgressFile | None = None,
        counting: Counting | None = None,
        on_event: OnEvent = print_event,
        after_phase: Callable[[], None] = lambda: None,
    ):
        self.progress, self.on_event, self.after_phase = progress, on_event, after_phase
        self.counting = counting or Counting(())
        self.log = RunLog(run)
        self._errors, self._metrics = AppendedFile(run, ERRORS), AppendedFile(run, METRICS)

    @contextmanager
    def attempt(self, stages: Sequence[str], lease: Lease) -> Iterator[None]:
        """Reports the start and the end of this process's work on the run, which is the `with` block."""
        version, before = corpusmill.__version__, lease.before
        self.counting.run(self.log.run, version)
        self.log.write("run_begin", fields={"version": version, "process": os.getpid(), "stages": list(stages)})
        if before is not None:
            self.log.write(
                "lease_taken_over", f"This run was left by {before.words}.", "warning", fields={"host": before.host, "process": before.pid}
            )
        started = time.monotonic()
        event, message, level = "run_end", "", "info"
        try:
            yield
        except BaseException as error:
            event, level = ("interrupted", "warning") if of_an_interrupt(error) else ("run_failed", "error")
            message = str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}".rstrip(": ")
            if lease.lost is not None:  # a lost lease interrupts this process as Ctrl-C does
                event, level, message = "lease_lost", "error", lease.lost
            raise
        finally:
            self.log.write(event, message, level, fields={"seconds": round(time.monotonic() - started, 3)})
            self.flush()

    @contextmanager
    def stage(self, name: str, manifest: Manifest) -> Iterator[None]:
        """Reports the start and the end of a stage, which runs in the `with` block."""
        if self.progress:
            self.progress.stage_begins(name)
        self.log.write("stage_begin", stage=name)
        started = time.monotonic()
        yield
        documents = documents_of(manifest)
        self.counting.stage_ends(name, documents)
        self.log.write("stage_end", stage=name, fields={"seconds": round(time.monotonic() - started, 3), "documents": documents})
        self.flush()

    @contextmanager
    def phase(
        self, stage: str, name: str, tasks: Sequence[Task], todo: Sequence[Task], manifest: Manifest, workers: int | None
    ) -> Iterator[None]:
        """Reports the start and the end of a phase, which runs in the `with` block. `tasks`: all of its tasks; `todo`: the unfinished ones.
        `workers`: the number of workers, None if it is not known yet."""
        if self.progress:
            self.progress.phase_begins(stage, name, tasks, todo, manifest)
        self.counting.phase_begins(stage, name, len(tasks), len(todo), workers)
        self.log.write(
            "phase_begin", stage=stage, phase=name, fields={"tasks": len(todo), "taken_over": len(tasks) - len(todo), "workers": workers}
        )
        forget_peak()  # else a phase that works in this process would have the greatest peak of all before it
        started = time.monotonic()
        ended = "broken_off"
        try:
            yield
            ended = "done"
        finally:
            seconds = time.monotonic() - started
            self.counting.phase_ends(stage, name, seconds)
            self.log.write("phase_end", stage=stage, phase=name, fields={"seconds": round(seconds, 3), "ended": ended})
            self.flush()
            self.after_phase()
            if self.progress and ended == "done":
                self.progress.phase_ends()

    def done(self, stage: str, phase: str, done: TaskDone) -> None:
        """Reports a finished task, whose row is in the manifest."""
        self.counting.done(stage, phase, done)
        numbers = {name: getattr(done, name) for name in ("rows_in", "kept", "dropped", "bytes_in", "peak_mb")}
        self.log.write(
            "task", stage=stage, phase=phase, task=done.key, node=done.node, fields=numbers | {"seconds": round(done.seconds, 3)}
        )

    def failed(self, stage: str, phase: str, failed: Failed) -> None:
        """Reports a task that has failed for the last time."""
        self.counting.failed(stage, phase)
        self._write_error(stage, failed.key, failed.trace)
        self.log.write(
            "failure", failed.message, "error", stage, phase, failed.key, fields={"cause": failed.cause.value, "tries": failed.tries}
        )

    def event(self, event: Event) -> None:
        """Reports an event of an engine or the runner (failures.py)."""
        self.counting.event(event)
        if event.task and event.kind != "quarantine":  # `failed` has written the trace of a quarantined task
            self._write_error(event.stage, event.task, event.message)
        fields = {name: value for name, value in event.fields.items() if name != "trace"}
        level = LEVELS.get(event.kind, "warning")
        self.log.write(event.kind, event.message, level, event.stage, event.phase, event.task, str(fields.pop("node", "")), fields)
        self.on_event(event)

    def phase_metrics(self, row: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        self._metrics.append(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Writes the texts that wait to be written to a store."""
        for file in (self.log, self._errors, self._metrics):
            file.flush()

    def _write_error(self, stage: str, task: str, text: str) -> None:
        """Appends an error: a line with stage and task, the text, and a blank line, which separates errors."""
        self._errors.append(f"{stage} {task}\n{text.rstrip()}\n\n")
        self._errors.flush()
