"""The manifest of a stage: one JSON line for each finished task, only ever appended.

A task row says what went in (paths and fingerprints), under which configuration and code, and what came out. A `code` row says what stands
behind a code's digest: the files and libraries with their versions (`code.py`); it comes before the tasks that ran it.
A `quarantined` row takes the place of one for a task that was given up.
A `complete` row lists the finished tasks of a plan in their order, and beside them those that the stage was finished without; where there
is no such row a stage is unfinished. A `tried` row lists the tasks of a dry run. A `reopened` row takes `complete` back, and names the
finished tasks that are about to be done again: their files may be the old ones or the new ones.
Rows hold no times, so equal runs have equal rows; only their order is that of completion.

In memory a task is its name and where its row begins (`journal.py`): rows are read again when they are asked for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, overload

from pydantic_core import from_json

from corpusmill.pipeline.config import canonical_json, digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.journal import Check, FileJournal, Journal
from corpusmill.pipeline.journal_store import StoreJournal
from corpusmill.pipeline.manifest_checks import check_code, check_names, check_quarantined, check_task
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage

MANIFEST = "manifest.jsonl"
#: Where the objects of a manifest on a store lie.
OBJECTS = "manifest"
#: Where a dry run writes beside a finished stage, whose files stay as they are.
TRIAL = "trial/"


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file that a task reads. `path` is relative to the run where the run made it, else as it was given.

    `fingerprint` changes when the content does: the sha256 of what the run wrote, size and time of a local
    input, the store's tag of a remote one.
    """

    path: str
    fingerprint: str
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A finished task."""

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

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "TaskRow":
        row = {**row, "inputs": [FileRef(**i) for i in row["inputs"]], "outputs": [OutputFile(**o) for o in row["outputs"]]}
        return cls(**row)

    def ref(self, folder: str, path: str) -> FileRef:
        """The output at `path` (in stage folder `folder`) as an input of the next stage."""
        for output in self.outputs:
            if output.path in (path, TRIAL + path):
                return FileRef(f"{folder}/{output.path}", output.sha256, output.bytes)
        raise KeyError(path)


TASK_FIELDS = {field.name for field in fields(TaskRow)}


@dataclass(frozen=True)
class Quarantined:
    """A task that was given up after so many tries, so that the others could go on; the next run takes it up again."""

    task: str
    identity: str
    inputs: list[FileRef]
    message: str
    tries: int

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Quarantined":
        check_quarantined(row)
        return cls(**{**row, "inputs": [FileRef(**i) for i in row["inputs"]]})


def task_identity(task: str, inputs: Sequence[FileRef], params: dict[str, Any], config: str, code: str) -> str:
    """What decides whether a finished task can be taken over: its inputs, parameters, configuration and code."""
    return digest([task, [(i.path, i.fingerprint) for i in inputs], params, config, code])


class TaskRows(Mapping[str, TaskRow]):
    """The last row of each task, in the order in which the tasks first came; read from the journal when it is asked for."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self.addresses: dict[str, int] = {}

    def __getitem__(self, task: str) -> TaskRow:
        row = from_json(self._journal.read(self.addresses[task]))
        del row["kind"]
        return TaskRow.from_json(row)

    def __contains__(self, task: object) -> bool:
        return task in self.addresses

    def __iter__(self) -> Iterator[str]:
        return iter(self.addresses)

    def __len__(self) -> int:
        return len(self.addresses)

    def of(self, tasks: Sequence[str]) -> "Rows":
        """The rows of some tasks, in the order of their names here. Raises KeyError where one is not there."""
        return Rows(self, tasks)


class Rows(Sequence[TaskRow]):
    """The rows of some tasks: each is read when it is asked for, and again when it is asked for again."""

    def __init__(self, rows: TaskRows, tasks: Sequence[str]):
        self._rows = rows
        self.tasks = tasks

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, place: int) -> TaskRow: ...
    @overload
    def __getitem__(self, place: slice) -> "Rows": ...
    def __getitem__(self, place: int | slice) -> "TaskRow | Rows":
        return Rows(self._rows, self.tasks[place]) if isinstance(place, slice) else self._rows[self.tasks[place]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))


class Manifest:
    """The manifest of one stage folder; the last row of a task counts.

    `read_only` leaves a row that a crash cut (or that is being written right now) in the file.
    """

    def __init__(self, storage: Storage, read_only: bool = False):
        self.storage = storage
        self.read_only = read_only
        self._journal = StoreJournal(storage, OBJECTS, read_only) if storage.remote else FileJournal(storage.path(MANIFEST), read_only)
        self.tasks = TaskRows(self._journal)
        self.quarantined: dict[str, Quarantined] = {}
        self.codes: dict[str, dict[str, Any]] = {}  # by digest, as `Code.as_json` gives them
        self.doubtful: set[str] = set()  # finished tasks of which files may be of another try
        self.plan: list[str] | None = None
        self.tried: list[str] = []  # the tasks of the last dry run
        self._load()

    def guard(self, check: Check) -> None:
        """`check` is called before each row is written; it raises where this process may no longer."""
        self._journal.guard = check

    @property
    def complete(self) -> bool:
        return self.plan is not None and all(task in self.tasks for task in self.plan)

    def rows(self) -> Rows:
        """The task rows of a complete stage, in the order of its plan."""
        return self.tasks.of(self.plan or [])

    def grouped(self) -> AbstractContextManager[None]:
        """A block in which rows that come close together become durable together; all are when it ends."""
        return self._journal.grouped()

    def append(self, row: TaskRow) -> None:
        """Records a finished task, whose files are durable. Outside of `grouped` the row is, too, when this returns."""
        self._take_task(row.task, self._write("task", row))

    def describe_code(self, digest: str, parts: dict[str, Any]) -> None:
        """Says once what stands behind the code of the tasks that follow."""
        if digest not in self.codes:
            self._write("code", {"code": digest, **parts})
            self.codes[digest] = parts

    def quarantine(self, row: Quarantined) -> None:
        """Says that a task was given up; a row of the finished task takes it back."""
        if self.quarantined.get(row.task) != row:
            self._write("quarantined", row)
            self._take_quarantined(row)

    def finish(self, plan: list[str], without: Sequence[str] = ()) -> None:
        """Marks the stage as complete with the tasks of `plan`, and `without` those that are quarantined, once."""
        if self.plan != plan or list(self.quarantined) != list(without):
            self._write("complete", {"tasks": plan, "quarantined": list(without)})
            self._take_complete(plan, without)
            self._journal.tidy()

    def reopen(self, again: Iterable[str] = ()) -> None:
        """Takes the `complete` mark away: the stage is about to change. `again`: finished tasks that are about to be done again."""
        new = [task for task in again if task in self.tasks and task not in self.doubtful]
        if self.plan is not None or new:
            self._write("reopened", {"tasks": new})
            self.plan = None
            self.doubtful.update(new)

    def try_out(self, plan: list[str]) -> None:
        """Says which tasks the last dry run rests on."""
        if self.tried != plan:
            self._write("tried", {"tasks": plan})
            self.tried = plan

    @property
    def place(self) -> int:
        """Where the next row goes: a byte of the file, or in a store the number of the row."""
        return self._journal.place

    def _load(self) -> None:
        for address, where, line in self._journal.lines():
            try:
                row = from_json(line)  # takes half as long as json.loads
                self._take(row.pop("kind"), row, address)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{where}: not a manifest row ({error}).") from error

    def _take(self, kind: str, row: dict[str, Any], address: int) -> None:
        if kind == "task":
            if row.keys() != TASK_FIELDS:
                raise KeyError(", ".join(sorted(row.keys() ^ TASK_FIELDS)))
            check_task(row)
            self._take_task(row["task"], address)
        elif kind == "quarantined":
            self._take_quarantined(Quarantined.from_json(row))
        elif kind == "code":
            check_code(row)
            self.codes[row.pop("code")] = row
        elif kind == "complete":
            self._take_complete(check_names(row["tasks"]), check_names(row.get("quarantined", [])))
        elif kind == "tried":
            self.tried = check_names(row["tasks"])
        elif kind == "reopened":
            self.plan = None
            self.doubtful.update(check_names(row.get("tasks", [])))

    def _take_task(self, task: str, address: int) -> None:
        self.tasks.addresses[task] = address
        self.doubtful.discard(task)
        self.quarantined.pop(task, None)

    def _take_quarantined(self, row: Quarantined) -> None:
        self.quarantined[row.task] = row
        self.tasks.addresses.pop(row.task, None)

    def _take_complete(self, plan: list[str], without: Sequence[str]) -> None:
        self.plan = plan
        self.doubtful.difference_update(plan)  # they were done again, or their files were read
        self.quarantined = {task: self.quarantined[task] for task in without}

    def _write(self, kind: str, row: Any) -> int:
        return self._journal.append(canonical_json({"kind": kind, **_jsonable(row)}).encode() + b"\n")


def _jsonable(row: Any) -> dict[str, Any]:
    """A row as JSON has it: `dataclasses.asdict` copies all of it, which takes longer than the rest."""
    if isinstance(row, dict):
        return row
    values = {name: getattr(row, name) for name in row.__dataclass_fields__}
    return values | {name: [_jsonable(file) for file in values[name]] for name in ("inputs", "outputs") if name in values}
