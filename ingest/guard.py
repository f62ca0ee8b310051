"""Reads tasks in a separate process (`reader.py`), and starts another one after a hostile page has killed it.

`ReaderProcess` starts the process, exchanges messages with it, watches it, and finds the cause of its death. `SkippedRecords` decides which
records are given up. `ReaderGuard` uses both, and keeps all rows that a dead process has finished.

If extraction of a record kills the process, the record is given up: at once if its CPU time ran out, else after a second process dies of
it. If reading kills the process, reading is tried a second time; then without FastWARC; then the rest of the segment is given up. The
report has a row for each loss. If a process was killed from outside, no record is given up; after several such deaths the task fails, and
is tried elsewhere.
"""

import contextlib
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from typing import Any

import pyarrow as pa

from corpusmill.ingest.config import ExtractionConfig, IngestConfig
from corpusmill.ingest.inputs import UNKNOWN, RangeIndex
from corpusmill.ingest.reader import EXTRACTING, IDLE, OUT_OF_MEMORY, PHASE, PLACE, READING_FACTOR
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.engine import peak_memory_mb
from corpusmill.pipeline.errors import CorpusmillError, InputError, ProcessKilled
from corpusmill.pipeline.formats.detect import Ignored, InputFile, Refused
from corpusmill.pipeline.manifest import FileRef

#: A process that makes no progress is killed after this many times its limit of CPU seconds.
WALL_FACTOR = 10
#: The messages of Rust, C++ and glibc on standard error when an allocation fails, before they abort.
NO_MEMORY = re.compile(rb"memory allocation of \d+ bytes failed|std::bad_alloc|Cannot allocate memory|out of memory", re.IGNORECASE)
#: Environment variables of the process. Arrow's own allocators never give memory back, so it uses the system's. Rust must not trace a panic
#: that lack of memory has caused: the trace needs memory as well, and then waits for itself forever. glibc would give the memory of each
#: large page back and ask for it again, which takes a twentieth of the time; so it keeps up to 64 MB. Blocks of more than 32 MB still go
#: back at once.
READER_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system", "RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0",
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}  # fmt: skip


#: Signals that a process causes itself. All others come from outside, except SIGPROF, which enforces our limit of CPU time.
CRASH_SIGNALS = frozenset(
    [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS, signal.SIGPIPE]
)


class Died(Exception):
    """The reader process has died.

    `rule`: the cause (`timeout`, `out_of_memory`, `crashed`). `how`: the cause in a few words. `sure`: whether the record is surely the
    cause, so that no second process has to die of it. `outside`: whether the process was killed from outside (by the system for lack of
    memory, by an administrator, by a shutdown) and not by the record.
    """

    def __init__(self, rule: str, how: str, sure: bool = False, outside: bool = False):
        self.rule, self.how, self.sure, self.outside = rule, how, sure, outside


class ReaderProcess:
    """A running reader process."""

    def __init__(self, hello: dict[str, Any], page_seconds: float):
        self.page_seconds = page_seconds
        self.peak_mb = 0
        self.hung = False
        self.seen: tuple[int, int] = (0, 0)
        self.since = time.monotonic()
        shared = tempfile.TemporaryFile()
        shared.truncate(mmap.PAGESIZE)
        self.place = memoryview(mmap.mmap(shared.fileno(), mmap.PAGESIZE)).cast("Q")
        self.errors = tempfile.TemporaryFile()
        self.connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "corpusmill.ingest.reader"]
        with theirs, shared:
            self.popen = subprocess.Popen(
                [*command, str(theirs.fileno()), str(shared.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors, pass_fds=(theirs.fileno(), shared.fileno()),
                env={**os.environ, **READER_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # to find the same modules
            )  # fmt: skip
        self.send(hello)

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died: `receive` raises the cause
            self.connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> bytes:
        """Returns the next message. Raises Died if the process has died."""
        try:
            while not self.connection.poll(1.0):
                self._check_hang()
            return self.connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            raise self._death() from None

    def _check_hang(self) -> None:
        now = (self.place[PLACE], self.place[PHASE])
        if now != self.seen or now[1] == IDLE:
            self.seen, self.since = now, time.monotonic()
        limit = self.page_seconds * WALL_FACTOR * (1 if now[1] == EXTRACTING else READING_FACTOR)
        if time.monotonic() - self.since > limit:
            self.hung = True
            self.popen.kill()

    def _death(self) -> Died:
        code = self._reap()
        if -code == signal.SIGPROF:
            return Died("timeout", "it ran out of CPU time", sure=True)
        if self.hung:
            return Died("timeout", "it made no progress")
        if code == OUT_OF_MEMORY or NO_MEMORY.search(self.stderr_end()):
            return Died("out_of_memory", "it ran out of memory")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        with contextlib.suppress(ValueError):  # real-time signals have no name
            how = signal.Signals(-code).name
        return Died("crashed", how, outside=code < 0 and -code not in CRASH_SIGNALS)

    def _reap(self) -> int:
        """Waits for the end of the process; returns its exit code, which is negative for a signal."""
        _, status, usage = os.wait4(self.popen.pid, 0)
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss // 1024
        if peak > peak_memory_mb():  # the system's value counts the peak of the parent, this process, too
            self.peak_mb = max(self.peak_mb, peak)
        return self.popen.returncode

    def stderr_end(self) -> bytes:
        """Returns the end of the process's standard error."""
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - (1 << 16)))
        return self.errors.read()

    def close(self) -> None:
        if self.popen.returncode is None:
            self.popen.kill()
            self._reap()
        self.connection.close()
        self.errors.close()


#: A task fails after more than this many processes have died at the same place.
TRIES = 3
#: A task fails after this many of its processes were killed from outside.
KILLED = 3


def killed(death: Died) -> ProcessKilled:
    """Returns the exception for a task whose reader processes were killed from outside. `death`: the last one."""
    return ProcessKilled(f"the process that reads was killed from outside ({death.how}), perhaps because the machine has no memory left.")


class SkippedRecords:
    """Counts the deaths of a task's processes, and decides which records are given up, and for which reason."""

    def __init__(self, limits: ExtractionConfig):
        self.limits = limits
        self.deaths: Counter[tuple[int, bool]] = Counter()
        self.lost: dict[int, tuple[str, str]] = {}
        self.unreadable: dict[int, tuple[str, str]] = {}
        self.without_fastwarc = False
        self.killed = 0

    def request(self) -> dict[str, Any]:
        return {"lost": self.lost, "unreadable": self.unreadable, "without_fastwarc": self.without_fastwarc}

    def note(self, place: int, extracting: bool, death: Died) -> None:
        """Notes a death at record `place`, and decides what the next process does differently.

        Raises ProcessKilled after too many deaths from outside, and CorpusmillError if no process gets past this place.
        """
        if death.outside:
            self.killed += 1
            if self.killed >= KILLED:
                raise killed(death)
            return
        self.deaths[place, extracting] += 1
        tries = self.deaths[place, extracting] + death.sure
        if tries > TRIES:
            raise CorpusmillError(f"ingest: the process that reads dies at the same place again and again ({death.how}).")
        if extracting and tries >= 2:
            self.lost[place] = (death.rule, self._reason("its extraction", death))
        elif tries == 2:
            self.without_fastwarc = True
        elif tries > 2:
            self.unreadable[place] = (death.rule, self._reason("reading it", death))

    def _reason(self, what: str, death: Died) -> str:
        if death.rule == "crashed":
            return f"{what} ended its process twice ({death.how})"
        if death.rule == "timeout":
            seconds = self.limits.max_page_seconds * (1 if what == "its extraction" else READING_FACTOR)
            return f"{what} took more than {seconds:g} seconds (extraction.max_page_seconds)"
        return f"{what} took more than {self.limits.max_memory_mb} MB (extraction.max_memory_mb)"


class ReaderBug(Exception):
    """An unexpected exception in the reader process, which is a bug. Its trace is in the notes."""


@dataclass(frozen=True)
class RowBatch:
    """Some rows of a task: a report row for each, a document for each that is kept, the files of sites among them, and counts and warnings
    for the manifest."""

    documents: pa.Table
    report: pa.Table
    sites: pa.Table
    counts: dict[str, int]
    warnings: list[str]


class ReaderGuard:
    """Reads tasks in a process that is started when it is needed, and replaced when it dies."""

    def __init__(self, config: IngestConfig, params: dict[str, Any]):
        self.config = config
        self.params = params
        self.process: ReaderProcess | None = None
        self.answering = False  # whether the process has still to send batches of a task
        self.peak_mb = 0  # the peak memory of all processes so far

    def read(self, segments: Sequence[tuple[str, int, dict[str, Any]]]) -> Iterator[RowBatch]:
        """Yields the rows of all segments (path, bytes of the file, fields of `Segment`) in order and each once, even if processes die
        meanwhile. The number of rows in a batch varies with the time that they take."""
        done = 0
        skipped = SkippedRecords(self.config.extraction)
        while True:
            process = self._running()
            self.answering = True
            process.send({"segments": segments, "done": done, **skipped.request()})
            try:
                while self.answering:
                    batch = self._receive(process)
                    done += len(batch.report)
                    yield batch
                return
            except Died as death:
                self._handle_death(process, death, skipped)

    def index(self, path: str, where: dict[str, Any]) -> RangeIndex:
        """Calls `index_range` in the reader's process. Returns its result, or UNKNOWN if the file ends each process that reads it."""
        found = self._ask({"index": {"path": path, **where}})
        return RangeIndex(**found) if isinstance(found, dict) else UNKNOWN

    def examine(self, refs: Sequence[FileRef]) -> list[InputFile | Refused | Ignored]:
        """Returns `archive_walk.examine` of each file; a file that kills each process is refused. Where processes die of several files,
        these are looked at one by one."""
        found = self._ask({"examine": [asdict(ref) for ref in refs]})
        if isinstance(found, list):
            return [examined(ref, result) for ref, result in zip(refs, found)]
        if len(refs) > 1:
            return [result for ref in refs for result in self.examine([ref])]
        assert isinstance(found, tuple)
        rule, reason = found
        return [Refused(refs[0], rule, f"{refs[0].path}: {reason}.")]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]] | tuple[str, str]:
        """Returns the answer to a request that has one answer; or `(rule, reason)` where processes died of it."""
        skipped = SkippedRecords(self.config.extraction)
        while not skipped.unreadable:
            process = self._running()
            process.send({**request, "without_fastwarc": skipped.without_fastwarc})
            try:
                answer = _checked(process.receive())
            except Died as death:
                self._handle_death(process, death, skipped)
                continue
            self.peak_mb = max(self.peak_mb, answer["peak_mb"])
            found: dict[str, Any] | list[dict[str, Any]] = answer["found"]
            return found
        return next(iter(skipped.unreadable.values()))

    def _handle_death(self, process: ReaderProcess, death: Died, skipped: SkippedRecords) -> None:
        place, phase = process.place[PLACE], process.place[PHASE]
        self.close()
        skipped.note(place, phase == EXTRACTING, death)

    def close(self) -> None:
        if self.process:
            self.process.close()
            self.peak_mb = max(self.peak_mb, self.process.peak_mb)
            self.process = None
        self.answering = False

    def _running(self) -> ReaderProcess:
        """Returns the process, ready for a request; starts one if there is none."""
        if self.answering:
            self.close()  # it is still sending rows of an earlier task, which failed
        if self.process:
            return self.process
        death: Died | None = None
        for _ in range(TRIES):
            self.process = ReaderProcess(
                {"config": self.config.model_dump(mode="json"), "params": self.params}, self.config.extraction.max_page_seconds
            )
            try:
                _checked(self.process.receive())
                return self.process
            except Died as error:
                death, lines = error, self.process.stderr_end().decode("utf-8", "replace").strip().splitlines()
                self.close()
        assert death is not None
        if death.outside:
            raise killed(death)
        raise CorpusmillError(f"ingest: the process that reads can't be started ({(lines or [death.how])[-1]}).")

    def _receive(self, process: ReaderProcess) -> RowBatch:
        """Returns the next batch."""
        message = process.receive()
        self.answering = False  # if the message is an error, no more follow
        head = _checked(message)
        tables = [pa.ipc.open_stream(process.receive()).read_all() for _ in range(3)]
        self.peak_mb = max(self.peak_mb, head["peak_mb"])
        self.answering = not head["end"]
        documents, report, sites = tables
        return RowBatch(documents, report, sites, head["counts"], head["warnings"])


def examined(ref: FileRef, found: dict[str, Any]) -> InputFile | Refused | Ignored:
    """Returns the format of a file from its fields."""
    if "path" in found:
        return Ignored(found["path"])
    if "rule" in found:
        return Refused(ref, found["rule"], found["reason"])
    return InputFile(ref, found["format"], found["layout"], tuple(found["groups"]), found["fault"])


def _checked(message: bytes) -> dict[str, Any]:
    """Returns a message of the other process. If it reports an exception, raises that exception here."""
    head: dict[str, Any] = parse_json(message)
    if "error" in head:
        kinds = {"input": InputError, "ours": CorpusmillError, "bug": ReaderBug}
        error = kinds[head["error"]](head["message"])
        error.add_note(head["trace"])
        raise error
    return head
