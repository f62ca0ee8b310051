"""The process that reads and extracts. A page that exceeds the limits ends this process and nothing else.

Python can't interrupt native code, so the system enforces the limits: a timer of CPU time, whose signal ends the process, and a limit of
its memory. The process writes the number of its current record to memory that it shares with the worker that started it (`guard.py`). From
that the worker learns which record to give up, and starts another process. Usage: python -m corpusmill.ingest.reader SOCKET PLACE PARENT
"""

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from corpusmill.ingest.archive_walk import examine
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import SegmentReader
from corpusmill.ingest.inputs import RangeIndex, Segment, index_range
from corpusmill.ingest.rows import IngestRow, PendingRow, RowTables
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.engine import peak_memory_mb
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.formats.detect import Ignored, InputFile, Refused
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.memory import limit_memory
from corpusmill.pipeline.stores import is_store

#: Exit code of a process that reached its memory limit.
OUT_OF_MEMORY = 86
#: The two numbers in the shared memory: the number of the record in the task, and the phase of its processing.
PLACE, PHASE = 0, 1
IDLE, READING, EXTRACTING = 0, 1, 2
#: Finding the next record may take this many times the limit of a page, because it may come after gigabytes of damage.
READING_FACTOR = 10
#: Finished rows are sent to the worker when one of these numbers is reached. A crash loses no more than that.
BATCH_ROWS, BATCH_CHARS, BATCH_SECONDS = 1024, 1 << 22, 1.0
#: Files of a store that are looked at at a time.
AT_ONCE = 32
PR_SET_PDEATHSIG = 1


class RowSender:
    """Collects finished rows until they are sent, with counts and warnings for the manifest."""

    def __init__(self, documents: pa.Schema) -> None:
        self.tables = RowTables(documents)
        self.counts: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.rows = self.chars = 0
        self.due_at = time.monotonic() + BATCH_SECONDS

    def add(self, row: IngestRow) -> None:
        self.tables.add(row)
        self.rows += 1
        self.chars += row.chars_out
        self.counts[f"type:{row.record_type}"] += 1
        if row.encoding is not None:
            self.counts[f"encoding:{row.encoding}"] += 1
        if row.record_type in ("damage", "file"):
            self.warnings.append(row.reasons[0] if row.record_type == "file" else f"{row.source}: {row.reasons[0]}.")

    @property
    def due(self) -> bool:
        return self.rows >= BATCH_ROWS or self.chars >= BATCH_CHARS or (self.rows > 0 and time.monotonic() >= self.due_at)

    def send(self, connection: Connection, end: bool) -> None:
        """Sends the rows to the worker (`ReaderGuard`): counts, then the tables of documents, of the report and of sites."""
        head = {"counts": self.counts, "warnings": self.warnings, "peak_mb": peak_memory_mb(), "end": end}
        connection.send_bytes(json.dumps(head).encode())
        for table in (self.tables.documents(), self.tables.report(), self.tables.sites()):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            connection.send_bytes(sink.getvalue())


class Reader:
    """Answers the requests of the worker, one task after another."""

    def __init__(self, connection: Connection, place: memoryview):
        self.connection = connection
        self.place = place

    def run(self) -> None:
        self._answer(self._begin)
        while True:
            self._answer(self._serve)
            self._enter(IDLE, 0)

    def _answer(self, action: Callable[[dict[str, Any]], None]) -> None:
        request = parse_json(self.connection.recv_bytes())
        try:
            action(request)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again in the worker
            if isinstance(error, MemoryError):
                os._exit(OUT_OF_MEMORY)  # a new process must try again: this one may lack memory for other reasons
            kind = "input" if isinstance(error, InputError) else "ours" if isinstance(error, CorpusmillError) else "bug"
            failure = {
                "error": kind,
                "message": str(error) if kind != "bug" else f"{type(error).__name__}: {error}",
                "trace": traceback.format_exc(),
            }
            self.connection.send_bytes(json.dumps(failure).encode())

    def _begin(self, hello: dict[str, Any]) -> None:
        config = IngestConfig.model_validate(hello["config"])
        self.page_seconds = config.extraction.max_page_seconds
        self.segments = SegmentReader(config, hello["params"])
        self.segments.setup()
        limit_memory(config.extraction.max_memory_mb)
        self.connection.send_bytes(b"{}")

    def _serve(self, request: dict[str, Any]) -> None:
        if "index" in request:
            self._index(request)
        elif "examine" in request:
            self._read_on(0)
            self._found(self._examined([FileRef(**ref) for ref in request["examine"]]))
        else:
            self._task(request)

    def _index(self, request: dict[str, Any]) -> None:
        self._read_on(0)
        found = index_range(
            **request["index"], without_fastwarc=request["without_fastwarc"], on_record=lambda: self._read_on(self.place[PLACE] + 1)
        )
        self._found(found)

    def _examined(self, refs: list[FileRef]) -> list[InputFile | Refused | Ignored]:
        """Returns the formats of files. Many requests to a store wait at a time, but one to a web server, which may be a small machine."""
        threading.stack_size(1 << 20)  # each stack counts as memory that the process may take
        with ThreadPoolExecutor(AT_ONCE if all(is_store(ref.path) for ref in refs) else 1) as pool:
            return list(pool.map(lambda ref: examine(ref, self.segments.config.text_key), refs))

    def _found(self, found: RangeIndex | list[InputFile | Refused | Ignored]) -> None:
        content = [asdict(each) for each in found] if isinstance(found, list) else asdict(found)
        self.connection.send_bytes(json.dumps({"found": content, "peak_mb": peak_memory_mb()}).encode())

    def _task(self, request: dict[str, Any]) -> None:
        """Sends the rows of a task, without the first `done`. `lost`, `unreadable`: see `skipped_records`."""
        done, (lost, unreadable) = request["done"], skipped_records(request)
        number = 0
        schema = self.segments.config.documents
        batch = RowSender(schema)
        for path, size, fields in request["segments"]:
            segment = Segment(**fields)
            self._read_on(number)
            for work in self.segments.pending_rows(
                path, size, segment, request["without_fastwarc"], lambda: unreadable.get(self.place[PLACE])
            ):
                if number >= done:
                    batch.add(self._row(work, lost.get(number)))
                number += 1
                self._read_on(number)
                if batch.due:
                    batch.send(self.connection, end=False)
                    batch = RowSender(schema)
        batch.send(self.connection, end=True)

    def _read_on(self, number: int) -> None:
        self._enter(READING, self.page_seconds * READING_FACTOR)  # before PLACE changes, so that the next record is not blamed for this one
        self.place[PLACE] = number

    def _row(self, work: PendingRow, skip_reason: list[str] | None) -> IngestRow:
        if skip_reason:
            return work.unread().fail(*skip_reason)
        self._enter(EXTRACTING, self.page_seconds)
        return work.row()

    def _enter(self, phase: int, seconds: float) -> None:
        """Begins a phase, in which the process may take `seconds` of CPU time (0: no limit)."""
        self.place[PHASE] = phase
        signal.setitimer(signal.ITIMER_PROF, seconds)


def skipped_records(request: dict[str, Any]) -> list[dict[int, list[str]]]:
    """Returns `[lost, unreadable]`: the records that are not extracted, and those where reading stops, by number, with rule and reason."""
    return [{int(place): why for place, why in request[name].items()} for name in ("lost", "unreadable")]


def depend_on(parent: int) -> None:
    """Makes this process die with its worker, and makes it the first process that the system kills when memory runs out."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    if os.getppid() != parent:
        sys.exit(1)


def main() -> None:
    socket, shared, parent = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker handles Ctrl-C
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    depend_on(parent)
    place = memoryview(mmap.mmap(shared, mmap.PAGESIZE)).cast("Q")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the worker has ended or needs no more rows
        Reader(Connection(socket), place).run()


if __name__ == "__main__":
    main()
