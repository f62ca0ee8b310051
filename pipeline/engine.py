"""How tasks are performed: in the calling process, or on Ray actors (`on_ray/engine.py`), with the same bytes."""

import contextlib
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from corpusmill.pipeline.code import Code
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.halves import performed
from corpusmill.pipeline.interrupts import Terminated, exit_code_of, of_an_interrupt
from corpusmill.pipeline.lease import LeaseLost, check_holder
from corpusmill.pipeline.memory import release_memory
from corpusmill.pipeline.retry import Attempt, Failed, Listener, Tries, failure
from corpusmill.pipeline.shards import OutputFile, publish
from corpusmill.pipeline.stage import Output, Piece, Worker, load_object
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
    phase: str = ""
    memory_mb: int = 0  # what each worker is expected to take; 0: not known
    code: Code | None = None  # the driver's, with which a node compares its own; None: nothing is compared
    holder: str = ""  # the id of the lease for which it is done (lease.py); empty: there is none


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
    node: str = field(default_factory=platform.node)  # where it was done


class Engine(Protocol):
    workers: int

    def perform(self, job: Job, pieces: Sequence[Piece], listener: Listener) -> None:
        """Performs all pieces in any order. The listener hears in this process of those that are done (some at a time) and of those that
        are given up; it ends the phase by raising."""

    def known_workers(self) -> int | None:
        """How many work on a phase at most; None where that is not known yet."""

    def close(self) -> None: ...


def peak_memory_mb() -> int:
    """The largest resident set of this process so far, in MB."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:  # what getrusage says is never less than its parent had
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def publish_output(
    storage: Storage, key: str, output: Output, started: float, beside_mb: int = 0, fence: Callable[[], None] = lambda: None
) -> Done:
    """Writes what a task made, file by file, in a fixed order. `started`: when it was begun (perf_counter); some files are made as they are
    written. `beside_mb`: memory of other processes that worked on it. `fence` raises where the run is another's by now: that one may have
    recorded other files of these names."""
    fence()
    files = [publish(storage, path, output.files[path]) for path in sorted(output.files)]
    return Done(
        key, files, output.rows_in, output.kept, output.dropped, output.bytes_in,
        dict(sorted(output.counts.items())), output.warnings, time.perf_counter() - started, peak_memory_mb() + beside_mb, beside_mb,
    )  # fmt: skip


def make_worker(job: Job) -> Worker:
    worker: Worker = load_object(job.worker)(job.config, Storage(job.run_root), job.params)
    return worker


class Performer:
    """One worker in one process: set up once, then one piece after another."""

    def __init__(self, job: Job):
        self.job = job
        self.run = Storage(job.run_root)
        self.storage = self.run.child(job.stage)
        self.worker: Worker | None = None

    def perform(self, attempt: Attempt) -> Done | Failed:
        piece = attempt.piece
        if attempt.pause:  # sleeping for no time gives the processor away
            time.sleep(attempt.pause)
        if attempt.parts > 1:
            release_memory()
        ready = self.worker is not None
        try:
            worker = self.worker = self.worker or self._ready()
            ready = True
            started = time.perf_counter()
            with performed(worker, piece, attempt.parts) as output:
                return publish_output(self.storage, piece.key, output, started, worker.beside_mb(), self._fence)
        except Exception as error:
            if of_an_interrupt(error):
                raise (Terminated if exit_code_of(error) == 143 else KeyboardInterrupt) from error
            fatal = isinstance(error, LeaseLost) or (not ready and isinstance(error, CorpusmillError))
            return failure(self.job.stage, piece, error, fatal)

    def _fence(self) -> None:
        check_holder(self.run, self.job.holder)

    def _ready(self) -> Worker:
        worker = make_worker(self.job)
        worker.setup()
        return worker

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()


class InlineEngine:
    """Everything in the calling process, one piece after the other: for debugging and tests."""

    workers = 1

    def perform(self, job: Job, pieces: Sequence[Piece], listener: Listener) -> None:
        tries = Tries(job, listener)
        with contextlib.closing(Performer(job)) as performer:
            for piece in pieces:
                attempt: Attempt | None = Attempt(piece)
                while attempt is not None:
                    result = performer.perform(attempt)
                    if isinstance(result, Done):
                        listener.on_done([result])
                        break
                    attempt = tries.again(attempt, result)

    def known_workers(self) -> int | None:
        return self.workers

    def close(self) -> None:
        pass
