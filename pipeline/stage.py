"""What a stage is: a configuration, a plan of tasks, and a worker that is a pure function of one piece of input.

A stage says *what* is to be done: it cuts its input into `Piece`s and names the `Worker` that turns one piece
into one `Output`. The runner (`runner.py`) owns everything else: engines, resume, publication, progress.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from corpusmill.pipeline import config as base
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.shards import Content
from corpusmill.pipeline.storage import Storage

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun


@dataclass(frozen=True, slots=True)
class Piece:
    """The input of one task. `key` names the task and its outputs (`part-00042`); all of it is JSON-able."""

    key: str
    inputs: tuple[FileRef, ...]
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that it reads: of its segments, where it has parts of files, else of its inputs."""
        if "segments" in self.params:
            return sum(int(segment["bytes"]) for segment in self.params["segments"])
        return sum(ref.bytes for ref in self.inputs)


@dataclass
class Output:
    """What one task made: files by path relative to the stage's folder, and its counts for the manifest."""

    files: dict[str, Content]
    rows_in: int = 0
    kept: int = 0
    dropped: int = 0
    bytes_in: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def load_object(path: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def documents_output(key: str, data: pa.Table, report: pa.Table, *, bytes_in: int, **more: Any) -> Output:
    """The output of a data stage: the documents that go on and the report on all that came in."""
    return Output(
        files={f"data/{key}.parquet": data, f"report/{key}.parquet": report},
        rows_in=report.num_rows,
        kept=data.num_rows,
        dropped=report.num_rows - data.num_rows,
        bytes_in=bytes_in,
        **more,
    )


class Worker(ABC):
    """Lives in one process and works on one piece after another. The constructor has no side effects."""

    #: What it is expected to take at its peak, by which a cluster that is not our own places it (Ray's `memory`); 0: not known.
    memory_mb: ClassVar[int] = 0

    def __init__(self, config: base.Config, run: Storage, params: dict[str, Any]):
        self.config = config
        self.run = run  # the run's folder, to read what earlier stages wrote
        self.params = params

    def setup(self) -> None:  # noqa: B027 - most workers have nothing to load
        """Loads models and lists: called once a process, before the first piece."""

    def beside_mb(self) -> int:
        """Peak memory of the processes that the worker keeps, in MB."""
        return 0

    def close(self) -> None:  # noqa: B027 - most workers hold nothing
        """Ends processes that the worker keeps, which must also end by themselves where it is killed."""

    @abstractmethod
    def process(self, piece: Piece) -> Output:
        """A pure function of the piece and the configuration: no clock, no randomness, no state from before."""

    def halves(self, piece: Piece) -> tuple[Piece, Piece] | None:
        """Two pieces, with the same key, that are this one together, for where it has no room in memory; None: it can't be cut.

        Called behind `setup`, also for a half. `process` gives for each of them what `join` takes.
        """
        return None

    @classmethod
    def cuts(cls, config: base.Config) -> bool:
        """Whether such a worker can do pieces in parts at all, which the driver asks; of one piece the worker itself knows (`halves`)."""
        return cls.halves is not Worker.halves

    def join(self, piece: Piece, outputs: Sequence[Output], folder: Path) -> Output:
        """The output of the whole piece, given those of its parts in order; by default rows behind rows, and sums of the counts.
        `folder`: for files that are larger than memory."""
        from corpusmill.pipeline.halves import joined_tables

        return joined_tables(outputs, folder)


class Stage(ABC):
    """One room of the mill. Subclasses set `name` and `Config` and say in `execute` what is to be done."""

    name: ClassVar[str]
    Config: ClassVar[type[base.Config]]
    #: Whether it can say what it would remove without writing any documents (`--dry-run`).
    tries: ClassVar[bool] = False

    def __init__(self, config: base.Config, dry_run: bool = False):
        self.config = config
        self.dry_run = dry_run

    @abstractmethod
    def execute(self, run: "StageRun") -> None:
        """Plans the tasks and hands them to the runner (`run.map`, `run.once`), one phase after the other."""

    def summary(self, run: "StageRun") -> dict[str, str]:
        """Further lines (label to text) for the stage's summary on the terminal."""
        return {}
