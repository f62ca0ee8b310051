"""A manifest that is read on as its rows come: what of them tells how far a stage is, without reading any row twice."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpusmill.pipeline.manifest import MANIFEST, OBJECTS, TRIAL, Quarantined, object_names, read_row
from corpusmill.pipeline.storage import Storage

#: Warnings of a task whose words are kept.
SAID = 20
Stamp = tuple[float | None, int]
BROKEN = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Done:
    """A task as its row has it. `place` is where the row begins: a byte of the file, or in a store its number."""

    place: int
    task: str
    rows_in: int
    kept: int
    bytes_in: int
    input_bytes: int
    warnings: int
    documents: bool  # whether it wrote documents that go on
    output: str | None  # one of its files
    written: float | None = None  # seconds since 1970, where the store has said so
    said: tuple[str, ...] = ()  # its first warnings


class ManifestTail:
    """The manifest of a stage. `tasks` has the last row of each task, `rows` all in their order; `bad` counts rows that are none."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self._forget()

    def _forget(self) -> None:
        self.rows: list[Done] = []
        self.tasks: dict[str, Done] = {}
        self.plan: list[str] | None = None  # the tasks of a complete stage
        self.quarantined: dict[str, Quarantined] = {}  # tasks that were given up
        self.bad = 0
        self._read = 0  # bytes, or rows
        self._objects_read: dict[int, tuple[Stamp, int]] = {}  # by the number of the first row: its stamp (`Storage.stamps`), rows
        self._written: dict[str, float | None] = {}

    @property
    def complete(self) -> bool:
        return self.plan is not None

    def finished(self) -> list[Done]:
        """The tasks of the plan where the stage is complete, else the last row of each task."""
        return list(self.tasks.values()) if self.plan is None else [self.tasks[task] for task in self.plan if task in self.tasks]

    def update(self) -> None:
        """Reads what has come since the last time. Raises OSError where the store can't be read."""
        for place, content, written in self._objects() if self.storage.remote else self._lines():
            try:
                self._take(content, place, written)
            except BROKEN:
                self.bad += 1

    def _lines(self) -> Iterator[tuple[int, bytes, float | None]]:
        size = self.storage.size(MANIFEST)
        if size < self._read:  # another file
            self._forget()
        if size <= self._read:
            return
        with self.storage.open_read(MANIFEST) as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                place, self._read = self._read, self._read + len(line)
                yield place, line, None

    def _objects(self) -> Iterator[tuple[int, bytes, float | None]]:
        """Rows in objects, of which each has the number of its first row. One that is written again (`Manifest.finish`) has more rows."""
        stamps = self.storage.stamps(OBJECTS)
        names = object_names(list(stamps))
        gone = [first for first in self._objects_read if first not in names]
        if gone and not self._again(names, stamps):  # another manifest, or a store that does not say when it was written again
            self._forget()
        for first in gone:
            self._objects_read.pop(first, None)
        for first in self._again(names, stamps):
            try:
                lines = self.storage.read_bytes(f"{OBJECTS}/{names[first]}").splitlines()
            except FileNotFoundError:  # it has become part of another one, which is read the next time
                return
            stamp = stamps[names[first]]
            if len(lines) < self._objects_read.get(first, (stamp, 0))[1]:  # another manifest
                self._forget()
            for place in range(max(self._read, first), first + len(lines)):
                self._read = place + 1
                yield place, lines[place - first], stamp[0]
            self._objects_read[first] = (stamp, len(lines))  # not before: what can't be read now is read the next time

    def _again(self, names: dict[int, str], stamps: dict[str, Stamp]) -> list[int]:
        """The objects that are new, or have been written again."""
        return [first for first in sorted(names) if first not in self._objects_read or self._objects_read[first][0] != stamps[names[first]]]

    def _take(self, content: bytes, place: int, written: float | None) -> None:
        row = json.loads(content)
        kind = row["kind"]
        if kind in ("complete", "reopened"):
            self.plan = [str(task) for task in row["tasks"]] if kind == "complete" else None
            if kind == "complete":
                self.quarantined = {task: self.quarantined[task] for task in row.get("quarantined", ())}
        elif kind == "quarantined":
            self.quarantined[str(row["task"])] = read_row(content)[1]
            self.tasks.pop(str(row["task"]), None)
        elif kind == "task":
            paths = [str(output["path"]) for output in row["outputs"]]
            done = Done(
                place, str(row["task"]), int(row["rows_in"]), int(row["kept"]), int(row["bytes_in"]),
                sum(int(ref["bytes"]) for ref in row["inputs"]), len(row["warnings"]),
                any(path.removeprefix(TRIAL).startswith("data/") for path in paths), paths[-1] if paths else None, written,
                tuple(str(text) for text in row["warnings"][:SAID]),
            )  # fmt: skip
            self.rows.append(done)
            self.tasks[done.task] = done
            self.quarantined.pop(done.task, None)

    def since(self, place: int) -> list[Done]:
        """The tasks whose rows came at `place` or later, in their order."""
        first = next((at for at in range(len(self.rows), 0, -1) if self.rows[at - 1].place < place), 0)
        return self.rows[first:]

    def written(self, row: Done) -> float | None:
        """When a task of a local run wrote its last file, in seconds since 1970; None where it is not there."""
        if row.written is None and row.output is not None and row.output not in self._written:
            try:
                self._written[row.output] = Path(self.storage.path(row.output)).stat().st_mtime
            except OSError:
                self._written[row.output] = None
        return row.written if row.output is None or row.written is not None else self._written[row.output]

    def last_written(self) -> float | None:
        """When its last row came, in seconds since 1970; None where nothing is there, or the store does not say."""
        if self.storage.remote:
            return max((row.written for row in self.rows if row.written is not None), default=None)
        return self.storage.times().get(MANIFEST)
