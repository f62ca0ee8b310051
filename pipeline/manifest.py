"""The manifest of a stage: JSON lines, one for each finished task, that are only ever appended. The kinds of rows:

* `task`: a finished task. Its inputs (paths and fingerprints), the digests of its configuration and code, and its outputs.
* `code`: the files and libraries (with their versions) behind a code's digest (`code.py`). It comes before the tasks that ran this code.
* `quarantined`: a task that was given up.
* `complete`: the finished tasks of a plan in their order, and the tasks that the stage was finished without. A stage without this row is
  unfinished.
* `reopened`: cancels `complete`, and names the finished tasks that are about to be done again: their files may be old or new ones.

Rows hold no times, so equal runs have equal rows; their order is that of completion.

A local manifest is `manifest.jsonl`. A store can't append to an object, so there each row is an object of its own, named by its number:
`manifest/00000042.json`. When the stage is finished, they are joined into one. An object is created only where none has its name, so two
processes never write the same one. A process that takes over the run adds its rows after those that the former holder still wrote.

In memory the manifest keeps the name of each task and the address of its last line: a run may have a million tasks, and a line has a
kilobyte or more. The line is read from the file (on a store: from a temporary copy) when the row is needed.
"""

import os
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, overload

from pydantic import TypeAdapter
from pydantic_core import from_json

from corpusmill.pipeline.config import canonical_json, digest, reason_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.lease import SwapFile
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import LARGEST, Storage, fsync_folder, open_regular, stays_inside

MANIFEST = "manifest.jsonl"
#: The folder of the manifest's objects on a store.
OBJECTS = "manifest"
#: Seconds between two fsyncs of task rows in a `grouped` block.
SYNC_SECONDS = 1.0
#: Objects that are read in parallel; and attempts to list them, since another process may merge them into one meanwhile.
THREADS, LISTINGS = 16, 5


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file that a task reads. `path` is relative to the run's folder for a file that the run made, else as the user gave it.

    `fingerprint` changes when the content does: the sha256 of a file that the run wrote, the size and modification time of
    a local input, the store's tags of a remote one. `xxh3` is that of a file that a run wrote: its readers compare it (`lists.py`).
    """

    path: str
    fingerprint: str
    bytes: int = 0
    xxh3: str = ""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A finished task. Its counts are those of its `Output`."""

    task: str
    identity: str
    inputs: list[FileRef]
    config: str
    code: str
    rows_in: int
    kept: int
    dropped: int
    bytes_in: int
    outputs: list[OutputFile]
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)

    def ref(self, folder: str, path: str) -> FileRef:
        """Returns the output at `path` (in stage folder `folder`) as an input of the next stage. Raises KeyError."""
        for output in self.outputs:
            if output.path == path:
                return FileRef(f"{folder}/{output.path}", output.sha256, output.bytes, output.xxh3)
        raise KeyError(path)


@dataclass(frozen=True)
class Quarantined:
    """A task that was given up after `tries` tries, so that the others could go on. The next run tries it again."""

    task: str
    identity: str
    inputs: list[FileRef]
    message: str
    tries: int


@dataclass(frozen=True)
class _Code:
    code: str
    module: str
    names: list[str]
    files: dict[str, str]
    libraries: dict[str, str | None]


@dataclass(frozen=True)
class _Tasks:
    tasks: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)


def task_identity(task: str, inputs: Sequence[FileRef], params: dict[str, Any], config: str, code: str) -> str:
    """Returns the digest of a task's name, inputs, parameters, configuration and code. A finished task is reused where it is equal."""
    return digest([task, [(i.path, i.fingerprint) for i in inputs], params, config, code])


class Check(Protocol):
    def __call__(self, certain: bool = False) -> None:
        """Raises where this process may no longer write. `certain`: reads the lease even where it was renewed in time."""


class TaskRows(Mapping[str, TaskRow]):
    """The last row of each task, in the order in which the tasks first came. A row is read from the file at each access."""

    def __init__(self, lines: "_LocalLines | _StoreLines"):
        self._lines = lines
        self.addresses: dict[str, int] = {}

    def __getitem__(self, task: str) -> TaskRow:
        address = self.addresses[task]  # KeyError for an unknown task, as `Mapping.get` expects
        try:
            row: TaskRow = read_row(self._lines.read(address))[1]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._lines.name}: the row of {task} is not a manifest row ({reason_of(error)}).") from error
        return row

    def __contains__(self, task: object) -> bool:
        return task in self.addresses

    def __iter__(self) -> Iterator[str]:
        return iter(self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)

    def of(self, tasks: Sequence[str]) -> "RowSequence":
        """Returns the rows of these tasks, in this order. Access to a task that has no row raises KeyError."""
        return RowSequence(self, tasks)


class RowSequence(Sequence[TaskRow]):
    """The rows of some tasks. A row is read from the file at each access."""

    def __init__(self, rows: TaskRows, tasks: Sequence[str]):
        self._rows = rows
        self.tasks = tasks

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, place: int) -> TaskRow: ...
    @overload
    def __getitem__(self, place: slice) -> "RowSequence": ...
    def __getitem__(self, place: int | slice) -> "TaskRow | RowSequence":
        return RowSequence(self._rows, self.tasks[place]) if isinstance(place, slice) else self._rows[self.tasks[place]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))


class Manifest:
    """The manifest of one stage folder. The last row of a task counts.

    `read_only` leaves an incomplete last line in the file: a crash may have cut it, or another process may be writing it.
    """

    def __init__(self, storage: Storage, read_only: bool = False):
        self.storage = storage
        self.read_only = read_only
        self._lines: _LocalLines | _StoreLines = _StoreLines(storage) if storage.remote else _LocalLines(storage.path(MANIFEST), read_only)
        self._guard: Check | None = None
        self._grouped, self._synced = False, 0.0
        self.tasks = TaskRows(self._lines)
        self.quarantined: dict[str, Quarantined] = {}
        self.codes: dict[str, dict[str, Any]] = {}  # by digest, in the form of `Code.as_json`
        self.doubtful: set[str] = set()  # finished tasks whose files may come from another try
        self.plan: list[str] | None = None
        self.reopened = False  # since it was last complete
        for address, where, line in self._lines.load():
            self._take(line, address, where)

    def guard(self, check: Check) -> None:
        """Has `check` called before each row is written; `check` raises where this process may no longer write."""
        self._guard = check

    @property
    def complete(self) -> bool:
        return self.plan is not None and all(task in self.tasks for task in self.plan)

    def rows(self) -> RowSequence:
        """Returns the task rows of a complete stage, in the order of its plan; none where the stage is not complete."""
        return self.tasks.of(self.plan or [])

    def documents(self) -> dict[str, int]:
        """Returns the documents that came into a finished stage (`in`), and those that it `kept` and `dropped`. Empty for an unfinished
        stage and for one that writes no documents."""
        sums: Counter[str] = Counter()
        for row in self.rows():
            if any(output.path.startswith("data/") for output in row.outputs):
                sums.update({"in": row.rows_in, "kept": row.kept, "dropped": row.dropped})
        return dict(sums)

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """In this block task rows of a local manifest share an fsync: at most one a second, and one at the end of the block. A killed
        process loses no row. A machine that loses power may lose some, and their tasks are done again."""
        self._grouped = True
        try:
            yield
        finally:
            self._grouped = False
            self._lines.sync()

    def append(self, row: TaskRow) -> None:
        """Records a finished task, whose files are durable already. Outside of `grouped`, the row is durable when this returns."""
        self._take_task(row.task, self._write("task", row, durable=not self._grouped))

    def describe_code(self, digest: str, parts: dict[str, Any]) -> None:
        """Records, once for each digest, the files and libraries of the code that performs the next tasks."""
        if digest not in self.codes:
            self._write("code", _Code(digest, **parts))
            self.codes[digest] = parts

    def quarantine(self, row: Quarantined) -> None:
        """Records that a task was given up. A later row of the finished task cancels this."""
        if self.quarantined.get(row.task) != row:
            self._write("quarantined", row)
            self._take_quarantined(row)

    def finish(self, plan: list[str], without: Sequence[str] = ()) -> None:
        """Marks the stage as complete with the tasks of `plan` and without the quarantined ones (`without`), unless it is so already."""
        if self.plan != plan or list(self.quarantined) != list(without):
            self._write("complete", _Tasks(plan, list(without)))
            self._take_complete(plan, without)
            self._lines.join(self._check)

    def reopen(self, again: Iterable[str] = ()) -> None:
        """Cancels the `complete` mark, since the stage is about to change. `again`: finished tasks that are about to be done again."""
        new = [task for task in again if task in self.tasks and task not in self.doubtful]
        if self.plan is not None or new:
            self._write("reopened", _Tasks(new))
            self.plan, self.reopened = None, True
            self.doubtful.update(new)

    def _check(self, certain: bool = False) -> None:
        if self._guard is not None:
            self._guard(certain) if certain else self._guard()

    def _write(self, kind: str, row: Any, durable: bool = True) -> int:
        self._check()
        line = canonical_json({"kind": kind, **_KINDS[kind].dump_python(row)}).encode() + b"\n"
        while (address := self._lines.append(line)) is None:  # on a store: another process has written a row of this number
            assert isinstance(self._lines, _StoreLines)
            if self._guard is None:
                raise InputError(f"{self._lines.next}: another process has written this object, so this one stops.")
            self._check(certain=True)
            for late, where, content in self._lines.read_foreign_lines():
                self._take(content, late, where)
        if durable or time.monotonic() - self._synced >= SYNC_SECONDS:
            self._lines.sync()
            self._synced = time.monotonic()
        return address

    def _take(self, line: bytes, address: int, where: str) -> None:
        try:
            raw = from_json(line)
            kind = raw["kind"]
            if kind == "task":  # there may be many: their other values are checked when a row is read
                check_outputs(output["path"] for output in raw["outputs"])
                self._take_task(str(raw["task"]), address)
                return
            row = read_row(line)[1]
            if kind == "quarantined":
                self._take_quarantined(row)
            elif kind == "code":
                self.codes[row.code] = {name: getattr(row, name) for name in ("module", "names", "files", "libraries")}
            elif kind == "complete":
                self._take_complete(row.tasks, row.quarantined)
            elif kind == "reopened":
                self.plan, self.reopened = None, True
                self.doubtful.update(row.tasks)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: not a manifest row ({reason_of(error)}).") from error

    def _take_task(self, task: str, address: int) -> None:
        self.tasks.addresses[task] = address
        self.doubtful.discard(task)
        self.quarantined.pop(task, None)

    def _take_quarantined(self, row: Quarantined) -> None:
        self.quarantined[row.task] = row
        self.tasks.addresses.pop(row.task, None)

    def _take_complete(self, plan: list[str], without: Sequence[str]) -> None:
        self.plan, self.reopened = plan, False
        self.doubtful.difference_update(plan)  # they were done again, or their digests were compared
        self.quarantined = {task: self.quarantined[task] for task in without}


# ---- rows as JSON ------------------------------------------------------------------------------------------------

_KINDS: dict[str, TypeAdapter[Any]] = {
    "task": TypeAdapter(TaskRow), "quarantined": TypeAdapter(Quarantined), "code": TypeAdapter(_Code), "complete": TypeAdapter(_Tasks),
    "reopened": TypeAdapter(_Tasks),
}  # fmt: skip


def read_row(line: bytes) -> tuple[str, Any]:
    """Returns the kind of a row, and the row; None in place of a row of an unknown kind.

    A run's folder may come from a stranger or from a broken disk, so all values are checked. Raises ValueError, KeyError or TypeError
    where the line is not a manifest row.
    """
    kind = from_json(line)["kind"]
    if kind not in _KINDS:
        return kind, None
    row = _KINDS[kind].validate_json(line, strict=True)
    if kind == "task":
        check_outputs(output.path for output in row.outputs)
    if kind == "code" and not all(part.isidentifier() for part in row.module.split(".")):  # a module's name becomes a path
        raise ValueError(f"{row.module!r} is no module")
    return kind, row


def check_outputs(paths: Iterable[str]) -> None:
    """Raises ValueError if a file of a task lies outside of its stage's folder."""
    for path in paths:
        if not stays_inside(path):
            raise ValueError(f"the output {path!r} lies outside of the stage's folder")


# ---- lines in a file, and in objects of a store -----------------------------------------------------------------


class _LocalLines:
    """Lines of a local file. An incomplete last line, which a crash cut, is removed. `read_only` leaves it, since another process may be
    writing it."""

    def __init__(self, path: str, read_only: bool):
        self.path = self.name = path
        self.read_only = read_only
        self.size = 0  # bytes of whole lines
        self._reading: IO[bytes] | None = None
        self._lock = threading.Lock()  # the explorer reads in several threads, which share the file's position
        self._writing: int | None = None
        self._unsynced = False

    def load(self) -> Iterator[tuple[int, str, bytes]]:
        """Yields all whole lines: the address of each, its position for messages (`manifest.jsonl:3`), and its content."""
        if not os.path.exists(self.path):
            return
        size = 0
        with open_regular(self.path) as file:
            for number, line in enumerate(iter(lambda: file.readline(LARGEST), b""), 1):
                size += len(line)
                if line.endswith(b"\n"):
                    address, self.size = self.size, size
                    yield address, f"{self.path}:{number}", line
        if size > self.size and not self.read_only:
            os.truncate(self.path, self.size)

    def read(self, address: int) -> bytes:
        """Returns the line at this byte offset."""
        with self._lock:
            if self._reading is None:
                self._reading = open_regular(self.path)
            self._reading.seek(address)
            return self._reading.readline()

    def append(self, line: bytes) -> int:
        """Appends a line and returns its byte offset. Raises InputError if it can't be written."""
        try:
            if self._writing is None:
                self._writing = self._create()
            written = os.write(self._writing, line)
            while written < len(line):
                written += os.write(self._writing, line[written:])
        except OSError as error:
            if self._writing is not None:
                os.ftruncate(self._writing, self.size)  # removes the part of the line that fitted on a full disk
            raise InputError(f"{self.path}: can't be written ({error.strerror}).") from error
        self.size = os.lseek(self._writing, 0, os.SEEK_CUR)  # another process may have written rows as it lost the run
        self._unsynced = True
        return self.size - len(line)

    def sync(self) -> None:
        """Makes the appended lines durable."""
        if self._unsynced and self._writing is not None:
            try:
                os.fsync(self._writing)
            except OSError as error:
                raise InputError(f"{self.path}: can't be written ({error.strerror}).") from error
            self._unsynced = False

    def join(self, check: Check) -> None:
        """Does nothing: a local manifest is one file already."""

    def _create(self) -> int:
        folder = Path(self.path).parent
        folder.mkdir(parents=True, exist_ok=True)
        new = not os.path.exists(self.path)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        weakref.finalize(self, os.close, descriptor)
        if new:
            fsync_folder(folder)
        return descriptor


class _StoreLines:
    """Lines in objects of a store, each named by the number of its first line, and a copy of all lines in a temporary file.

    Joining writes all lines into the first object and then removes the others. A process killed in between leaves objects whose lines
    are in the first one, too; `load` skips these lines.
    """

    def __init__(self, storage: Storage):
        self.storage, self.name = storage, storage.path(OBJECTS)
        self.size = 0  # lines
        self._copy = tempfile.TemporaryFile()
        self._lock = threading.Lock()  # as in `_LocalLines`
        self._objects: list[int] = []  # the number of the first line of each object

    def load(self) -> Iterator[tuple[int, str, bytes]]:
        for _ in range(LISTINGS):
            numbers = sorted(object_names(self.storage.list_files(OBJECTS)))
            try:
                with ThreadPoolExecutor(THREADS) as pool:
                    contents = list(pool.map(lambda number: self.storage.read_bytes(self._name(number)), numbers))
            except FileNotFoundError:  # the process that works on the run has joined the objects meanwhile
                continue
            for first, content in zip(numbers, contents):
                if first > self.size:
                    raise InputError(f"{self.next}: this object is missing, and others come after it.")
                yield from self._copy_lines(first, content)
            return
        raise InputError(f"{self.storage.path(OBJECTS)}: its objects come and go, so they can't be read.")

    def read(self, address: int) -> bytes:
        """Returns the line at this offset of the copy."""
        with self._lock:
            self._copy.seek(address)
            return self._copy.readline()

    def append(self, line: bytes) -> int | None:
        """Writes a line as an object and returns its offset in the copy; None if another process has written an object of its number."""
        if not self.storage.store.create(self._name(self.size), line):
            return None
        self._objects.append(self.size)
        return self._keep(line)

    def read_foreign_lines(self) -> Iterator[tuple[int, str, bytes]]:
        """Yields the lines of an object that another process has written under the number of the next line, as `load` does."""
        content = self.storage.read_bytes(self._name(self.size))
        if not content:
            raise InputError(f"{self.next}: this object is empty.")
        yield from self._copy_lines(self.size, content)

    @property
    def next(self) -> str:
        """The path of the object that will hold the next row, for messages."""
        return self._path(self.size)

    def sync(self) -> None:
        """Does nothing: an object is durable as soon as it is there."""

    def join(self, check: Check) -> None:
        """Joins all objects into one, which is quicker to read. Raises InputError if another process has changed the first one."""
        others = [first for first in self._objects if first]
        if not others:
            return
        with self._lock:
            self._copy.seek(0)
            content = self._copy.read()
        file = SwapFile(self.storage, self._name(0))
        there = file.read()
        check()
        if there is None or file.write(content, there[1]) is None:
            raise InputError(f"{self._path(0)}: another process has written this object, so this one stops.")
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda first: self.storage.remove(self._name(first)), others))
        self._objects = [0]

    def _copy_lines(self, first: int, content: bytes) -> Iterator[tuple[int, str, bytes]]:
        """Copies the lines of an object that no earlier object has. Yields the offset of each in the copy, its position for messages, and
        the line."""
        self._objects.append(first)
        known = self.size - first
        for number, line in enumerate(content.splitlines(keepends=True)[known:], known + 1):
            yield self._keep(line), f"{self._path(first)}:{number}", line

    def _keep(self, line: bytes) -> int:
        with self._lock:
            address = self._copy.seek(0, os.SEEK_END)
            self._copy.write(line)
        self.size += 1
        return address

    def _name(self, first: int) -> str:
        return f"{OBJECTS}/{first:08d}.json"

    def _path(self, first: int) -> str:
        return self.storage.path(self._name(first))


def object_names(names: Iterable[str]) -> dict[int, str]:
    """Returns the objects among the files of a manifest's folder, by the number of their first line."""
    found = [PurePosixPath(name) for name in names]
    return {int(name.stem): str(name) for name in found if name.suffix == ".json" and name.stem.isdecimal()}
