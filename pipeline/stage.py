"""Defines a stage: a configuration, a plan of tasks, and a worker that is a pure function of one task.

A stage says *what* is to be done: it cuts its input into `Task`s and names the `Worker` that turns one task
into one `Output`. The runner (`runner.py`) does everything else: engines, resuming, publishing files, progress.
"""

import importlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline import config as base
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import Content, ParquetBuffer
from corpusmill.pipeline.storage import Storage

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its input files and parameters. `key` names the task and its outputs (`part-00042`). All fields are JSON-able."""

    key: str
    inputs: tuple[FileRef, ...]
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that the task reads: the sum over its `segments` (parts of files) where it has some, else over its input files."""
        if "segments" in self.params:
            return sum(int(segment["bytes"]) for segment in self.params["segments"])
        return sum(ref.bytes for ref in self.inputs)


@dataclass
class Output:
    """The output of one task, or a part of it: files by their path relative to the stage's folder, and counts for the manifest. `failed`:
    the documents that fail each rule (one that fails two counts for both). `counts`: what else the stage counts, by names of its own."""

    files: dict[str, Content]
    rows_in: int = 0
    kept: int = 0
    dropped: int = 0
    bytes_in: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)


def load_object(path: str) -> Any:
    """Imports and returns the object that `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def failed_counts(report: pa.Table) -> dict[str, int]:
    """Counts the rows of a report that fail each rule."""
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(pc.list_flatten(report["failed"])).to_pylist()}


class DocumentFiles:
    """Collects the two files that a task of a data stage writes: the documents that go on, and a report row for each that came in."""

    def __init__(self, data: pa.Schema, report: pa.Schema):
        self.data, self.report = ParquetBuffer(data), ParquetBuffer(report)
        self.failed: Counter[str] = Counter()

    def add(self, data: pa.Table, report: pa.Table) -> None:
        self.failed.update(failed_counts(report))
        self.data.add(data)
        self.report.add(report)

    def output(self, key: str, **more: Any) -> Output:
        """Returns both files as an Output. `key` names the files; `more` are further fields of the Output."""
        rows, kept = self.report.rows, self.data.rows
        files: dict[str, Content] = {f"data/{key}.parquet": self.data.close(), f"report/{key}.parquet": self.report.close()}
        return Output(files, rows_in=rows, kept=kept, dropped=rows - kept, failed=dict(self.failed), **more)


class Worker(ABC):
    """Works on one task after another in one process. The constructor has no side effects."""

    #: The expected peak memory, by which Ray places the worker (its `memory` resource); 0: not known.
    memory_mb: ClassVar[int] = 0
    #: Whether the worker can read row groups in `parts` parts, to take less memory and write the same bytes.
    by_parts: ClassVar[bool] = False

    def __init__(self, config: base.Config, run: Storage, params: dict[str, Any]):
        self.config = config
        self.run = run  # the run's folder, to read what earlier stages wrote
        self.params = params
        self.parts = 1  # more after a try that ran out of memory

    def setup(self) -> None:  # noqa: B027 - most workers have nothing to load
        """Loads models and lists: called once a process, before the first task."""

    def children_mb(self) -> int:
        """Returns the peak memory, in MB, of the child processes that the worker keeps."""
        return 0

    def close(self) -> None:  # noqa: B027 - most workers hold nothing
        """Ends the child processes that the worker keeps. They must also end by themselves when the worker is killed."""

    @abstractmethod
    def process(self, task: Task) -> Output | Iterator[Output]:
        """A pure function of the task and the configuration: no clock, no randomness, no state from before.

        An output that is larger than memory comes in parts. The files of a part are published before the next part is made; counts are
        added up.
        """


class Stage(ABC):
    """One stage of a run. Subclasses set `name` and `Config`, and implement `execute`."""

    name: ClassVar[str]
    Config: ClassVar[type[base.Config]]

    def __init__(self, config: base.Config):
        self.config = config

    def libraries(self) -> tuple[str, ...]:
        """Returns the libraries of `pipeline.extras` without which the stage can't work; a run looks for them before its first stage."""
        return ()

    def check(self) -> None:  # noqa: B027 - most stages have nothing to read
        """Raises InputError for what the configuration names and the stage can't read; a run asks before its first stage."""

    @abstractmethod
    def execute(self, run: "StageRun") -> None:
        """Plans the tasks and hands them to the runner (`run.map`, `run.once`), one phase after the other."""

    def summary(self, run: "StageRun") -> dict[str, str]:
        """Returns further lines (label to text) for the stage's summary on the terminal."""
        return {}
