"""The manifest of a stage: one JSON line for each finished task, only ever appended.

A task row says what went in (paths and fingerprints), under which configuration and code, and what came out.
A `complete` row lists the tasks of a finished plan in their order; without one a stage is unfinished. A `tried` row lists those
of a dry run.
Rows hold no times, so equal runs have equal rows; only their order is that of completion.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from corpusmill.pipeline.config import canonical_json, digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage

MANIFEST = "manifest.jsonl"
#: Where a dry run writes beside a finished stage, whose files stay as they are.
TRIAL = "trial/"


@dataclass(frozen=True)
class FileRef:
    """A file that a task reads. `path` is relative to the run where the run made it, else as it was given.

    `fingerprint` changes when the content does: the sha256 of what the run wrote, size and time of a local
    input, the store's tag of a remote one.
    """

    path: str
    fingerprint: str
    bytes: int = 0


@dataclass(frozen=True)
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


def task_identity(task: str, inputs: Sequence[FileRef], params: dict[str, Any], config: str, code: str) -> str:
    """What decides whether a finished task can be taken over: its inputs, parameters, configuration and code."""
    return digest([task, [(i.path, i.fingerprint) for i in inputs], params, config, code])


class Manifest:
    """The manifest of one stage folder; the last row of a task counts.

    `read_only` leaves a row that a crash cut (or that is being written right now) in the file.
    """

    def __init__(self, storage: Storage, read_only: bool = False):
        self.storage = storage
        self.read_only = read_only
        self.tasks: dict[str, TaskRow] = {}
        self.plan: list[str] | None = None
        self.tried: list[str] = []  # the tasks of the last dry run
        self.guard: Callable[[], None] = lambda: None  # called before each row is written; raises where this process may no longer
        self._objects = 0
        self._load()

    @property
    def complete(self) -> bool:
        return self.plan is not None and all(task in self.tasks for task in self.plan)

    def rows(self) -> list[TaskRow]:
        """The task rows of a complete stage, in the order of its plan."""
        return [self.tasks[task] for task in self.plan or ()]

    def append(self, row: TaskRow) -> None:
        files = {"inputs": [vars(ref) for ref in row.inputs], "outputs": [vars(output) for output in row.outputs]}
        self._write({"kind": "task", **vars(row), **files})  # `dataclasses.asdict` copies all of it, which takes longer than the rest
        self.tasks[row.task] = row

    def finish(self, plan: list[str]) -> None:
        """Marks the stage as complete with these tasks, once."""
        if self.plan != plan:
            self._write({"kind": "complete", "tasks": plan})
            self.plan = plan

    def reopen(self) -> None:
        """Takes the `complete` mark away: the stage is about to change."""
        if self.plan is not None:
            self._write({"kind": "reopened"})
            self.plan = None

    def try_out(self, plan: list[str]) -> None:
        """Says which tasks the last dry run rests on."""
        if self.tried != plan:
            self._write({"kind": "tried", "tasks": plan})
            self.tried = plan

    @property
    def place(self) -> int:
        """Where the next row goes: the size of the file, or the number of objects."""
        return self._objects if self.storage.remote else max(self.storage.size(MANIFEST), 0)

    def _take(self, row: dict[str, Any]) -> None:
        kind = row.pop("kind")
        if kind == "task":
            self.tasks[row["task"]] = TaskRow.from_json(row)
        elif kind == "complete":
            self.plan = row["tasks"]
        elif kind == "tried":
            self.tried = row["tasks"]
        elif kind == "reopened":
            self.plan = None

    def _load(self) -> None:
        if self.storage.remote:
            for name in self.storage.list_files("manifest"):
                self._take(json.loads(self.storage.read_bytes(name)))
                self._objects += 1
            return
        if not self.storage.exists(MANIFEST):
            return
        content = self.storage.read_bytes(MANIFEST)
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.storage.path(MANIFEST)}:{number}: not a manifest row ({error}).") from error
        if whole < len(content) and not self.read_only:  # a crash cut the last row: that task is not finished
            os.truncate(self.storage.path(MANIFEST), whole)

    def _write(self, row: dict[str, Any]) -> None:
        self.guard()
        line = canonical_json(row).encode() + b"\n"
        if self.storage.remote:
            self.storage.write_bytes(f"manifest/{self._objects:08d}.json", line)
            self._objects += 1
            return
        path = self.storage.path(MANIFEST)
        try:
            os.makedirs(self.storage.root, exist_ok=True)
            with open(path, "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"{path}: can't be written ({error.strerror}).") from error
