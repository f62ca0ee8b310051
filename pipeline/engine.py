"""How tasks are performed: in the calling process, or on Ray actors (`engine_ray.py`), with the same bytes."""

import contextlib
import importlib
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.shards import OutputFile, publish
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.storage import Storage


@dataclass(frozen=True)
class Job:
    """All that a process needs to work on the pieces of one phase. `worker` is `module:Class`."""

    stage: str
    worker: str
    config: Config
    run_root: str
    params: dict[str, Any] = field(default_factory=dict)
    gpus: float = 0.0  # what each worker takes of a GPU; where there is none, it does without


@dataclass(frozen=True)
class Done:
    """A piece whose outputs are published."""

    key: str
    outputs: list[OutputFile]
    rows_in: int
    kept: int
    dropped: int
    bytes_in: int
    counts: dict[str, int]
    warnings: list[str]
    seconds: float
    peak_mb: int  # of the worker, other processes that it keeps included
    beside_mb: int = 0  # of these others alone


@dataclass(frozen=True)
class Failed:
    """A piece that can't be done: one sentence for the user, and the trace for the log."""

    key: str
    message: str
    exit_code: int
    trace: str


class Engine(Protocol):
    workers: int

    def perform(self, job: Job, pieces: Sequence[Piece], on_done: Callable[[Done], None]) -> Failed | None:
        """Performs all pieces in any order, calls `on_done` in this process for each; stops at the first failure."""

    def known_workers(self) -> int | None:
        """How many work on a phase at most; None where that is not known yet."""

    def close(self) -> None: ...


def load_object(path: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def peak_memory_mb() -> int:
    """The largest resident set of this process so far, in MB."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:  # what getrusage says is never less than its parent had
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def publish_output(storage: Storage, key: str, output: Output, seconds: float, beside_mb: int = 0) -> Done:
    """Writes what a task made, file by file, in a fixed order. `beside_mb`: memory of other processes that worked on it."""
    files = [publish(storage, path, output.files[path]) for path in sorted(output.files)]
    return Done(
        key, files, output.rows_in, output.kept, output.dropped, output.bytes_in,
        dict(sorted(output.counts.items())), output.warnings, seconds, peak_memory_mb() + beside_mb, beside_mb,
    )  # fmt: skip


def failure(stage: str, piece: Piece, error: Exception) -> Failed:
    """An exception as a sentence: ours as it is, any other with the piece's input named."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, CorpusmillError):
        return Failed(piece.key, str(error), error.exit_code, trace)
    where = ", ".join(i.path for i in piece.inputs[:3]) or "no input"
    return Failed(piece.key, f"{stage}, task {piece.key} ({where}): {type(error).__name__}: {error}", 1, trace)


class Performer:
    """One worker in one process: set up once, then one piece after another."""

    def __init__(self, job: Job):
        self.job = job
        run = Storage(job.run_root)
        self.storage = run.child(job.stage)
        self.worker: Worker = load_object(job.worker)(job.config, run, job.params)
        self.ready = False

    def perform(self, piece: Piece) -> Done | Failed:
        try:
            if not self.ready:
                self.worker.setup()
                self.ready = True
            started = time.perf_counter()
            output = self.worker.process(piece)
            return publish_output(self.storage, piece.key, output, time.perf_counter() - started, self.worker.beside_mb())
        except Exception as error:  # noqa: BLE001 - the boundary where any failure becomes a sentence
            return failure(self.job.stage, piece, error)

    def close(self) -> None:
        self.worker.close()


class InlineEngine:
    """Everything in the calling process, one piece after the other: for debugging and tests."""

    workers = 1

    def perform(self, job: Job, pieces: Sequence[Piece], on_done: Callable[[Done], None]) -> Failed | None:
        with contextlib.closing(Performer(job)) as performer:
            for piece in pieces:
                result = performer.perform(piece)
                if isinstance(result, Failed):
                    return result
                on_done(result)
        return None

    def known_workers(self) -> int | None:
        return self.workers

    def close(self) -> None:
        pass
