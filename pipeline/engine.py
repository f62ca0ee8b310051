"""Performs tasks and publishes their files: in the calling process, or on Ray (`on_ray/engine.py`), with the same bytes."""

import contextlib
import platform
import resource
import signal
import sysconfig
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from corpusmill.pipeline.code import Code
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import CorpusmillError, Damaged
from corpusmill.pipeline.failures import Attempt, Failed, Report, Tries, failure, hang
from corpusmill.pipeline.interrupts import Terminated, exit_code_of, of_an_interrupt
from corpusmill.pipeline.lease import LeaseLost, check_holder
from corpusmill.pipeline.lists import check_inputs
from corpusmill.pipeline.memory import release_memory
from corpusmill.pipeline.shards import OutputFile, publish
from corpusmill.pipeline.stage import Output, Task, Worker, load_object
from corpusmill.pipeline.storage import Storage

#: A task may take TASK_TIMEOUT seconds, and as long again for every TIMEOUT_BYTES of its input.
TASK_TIMEOUT, TIMEOUT_BYTES = 3600.0, 32 << 20


@dataclass(frozen=True)
class Job:
    """What a process needs to work on the tasks of one phase. `worker` is `module:Class`."""

    stage: str
    worker: str
    config: Config
    run_root: str
    params: dict[str, Any] = field(default_factory=dict)
    gpus: float = 0.0  # the share of a GPU for each worker; without any GPU, workers use the CPU
    phase: str = ""
    memory_mb: int = 0  # the expected peak of each worker; 0: not known
    code: Code | None = None  # the driver's code; a node compares its own code with it; None: no comparison
    holder: str = ""  # the id of the run's lease (lease.py); empty: there is none
    most: int = 0  # the most workers at a time; 0: all


@dataclass(frozen=True)
class TaskDone:
    """A finished task, whose outputs are published."""

    key: str
    outputs: list[OutputFile]
    rows_in: int
    kept: int
    dropped: int
    bytes_in: int
    counts: dict[str, int]
    warnings: list[str]
    seconds: float
    peak_mb: int  # peak memory of the worker and its child processes
    children_mb: int = 0  # of the child processes alone
    failed: dict[str, int] = field(default_factory=dict)
    node: str = field(default_factory=platform.node)  # the machine that did it


class Engine(Protocol):
    workers: int

    @property
    def elsewhere(self) -> bool:
        """Whether workers may be on other machines, which do not have this one's cache."""

    def perform(self, job: Job, tasks: Sequence[Task], report: Report) -> None:
        """Performs all tasks, in any order. Calls `report` in this process."""

    def known_workers(self) -> int | None:
        """Returns the most workers that a phase can have; None if that is not known yet."""

    def close(self) -> None: ...


def peak_memory_mb() -> int:
    """Returns the largest resident set of this process so far, in MB."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:  # getrusage counts the parent's peak, too
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def publish_output(
    storage: Storage,
    key: str,
    made: Output | Iterator[Output],
    started: float,
    children_mb: Callable[[], int] = lambda: 0,
    fence: Callable[[], None] = lambda: None,
) -> TaskDone:
    """Publishes the files of a task one after the other, in the order of their paths (part by part, where the output comes in parts).

    `started`: when the task began (perf_counter). `children_mb`: returns the memory of the worker's child processes. `fence` is called
    before each part. It raises where another process has taken over the run: that process may have recorded other files of these names.
    """
    files: list[OutputFile] = []
    whole = Output({})
    counts, failed = Counter[str](), Counter[str]()
    for output in [made] if isinstance(made, Output) else made:
        fence()
        files += [publish(storage, path, output.files[path]) for path in sorted(output.files)]
        whole.rows_in += output.rows_in
        whole.kept += output.kept
        whole.dropped += output.dropped
        whole.bytes_in += output.bytes_in
        counts.update(output.counts)
        failed.update(output.failed)
        whole.warnings += output.warnings
    children = children_mb()
    return TaskDone(
        key, sorted(files, key=lambda file: file.path), whole.rows_in, whole.kept, whole.dropped, whole.bytes_in,
        dict(sorted(counts.items())), whole.warnings, time.perf_counter() - started, peak_memory_mb() + children, children,
        dict(sorted(failed.items())),
    )  # fmt: skip


def task_limit(task: Task, timeout: float) -> float:
    """Returns the seconds that a task of this size may take (0: no limit): enough for a slow task, and an end for one that hangs."""
    return timeout * (1 + task.size / TIMEOUT_BYTES)


class Overdue(BaseException):
    """A task has taken too long. This is no Exception, so that code that catches errors and goes on does not catch it."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises Overdue in the block after `seconds` (0: never), also in a sleep, a loop or a regular expression. It can't interrupt native
    code that does not return, and works in the main thread only."""
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Overdue

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place_of_overdue(error: BaseException | None) -> str | None:
    """Returns in words where in the code Overdue has interrupted a task (empty: in Python's own library). Libraries may wrap Overdue in
    errors of their own, so the causes of `error` are searched, too. None if there is no Overdue among them."""
    while error is not None:
        if isinstance(error, Overdue):
            frames = traceback.extract_tb(error.__traceback__)[:-1]  # the last is `end` above
            library = sysconfig.get_path("stdlib")  # modules of Python itself, such as `re`, are left out
            frames = [frame for frame in frames if not frame.filename.startswith(library) or "-packages" in frame.filename]
            return f"{frames[-1].name} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        error = error.__cause__ or error.__context__
    return None


def make_worker(job: Job) -> Worker:
    worker: Worker = load_object(job.worker)(job.config, Storage(job.run_root), job.params)
    return worker


class Performer:
    """Performs tasks one after another in this process, with one worker that is set up before the first."""

    def __init__(self, job: Job):
        self.job = job
        self.run = Storage(job.run_root)
        self.storage = self.run.child(job.stage)
        self.worker: Worker | None = None

    def perform(self, attempt: Attempt) -> TaskDone | Failed:
        task = attempt.task
        if attempt.pause:  # even a sleep of 0 seconds would yield the processor
            time.sleep(attempt.pause)
        if attempt.parts > 1:
            release_memory()
        ready = self.worker is not None
        try:
            load_object(self.job.worker)  # imports are not part of the limit: they take long
            with _within(attempt.limit):
                check_inputs(self.run, task.inputs, batches=False)
                worker = self.worker = self.worker or self._ready()
                ready = True
                started = time.perf_counter()
                worker.parts = attempt.parts
                return publish_output(self.storage, task.key, worker.process(task), started, worker.children_mb, self._fence)
        except (Exception, Overdue) as error:
            if of_an_interrupt(error):
                raise (Terminated if exit_code_of(error) == 143 else KeyboardInterrupt) from error
            if (where := _place_of_overdue(error)) is not None:
                self.close()  # interrupted at any place, the worker may be inconsistent
                return hang(self.job.stage, task, attempt.limit, "".join(traceback.format_exception(error)), where)
            fatal = isinstance(error, LeaseLost) or (not ready and isinstance(error, CorpusmillError) and not isinstance(error, Damaged))
            return failure(self.job.stage, task, error, fatal)

    def _fence(self) -> None:
        check_holder(self.run, self.job.holder)

    def _ready(self) -> Worker:
        worker = make_worker(self.job)
        worker.setup()
        return worker

    def close(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.close()


class InlineEngine:
    """Performs all tasks in the calling process, one after the other: for debugging, tests and small phases. It can't end native code
    that hangs."""

    workers, elsewhere = 1, False

    def __init__(self, task_timeout: float = TASK_TIMEOUT):
        self.task_timeout = task_timeout

    def perform(self, job: Job, tasks: Iterable[Task], report: Report) -> None:
        tries = Tries(job, report)
        with contextlib.closing(Performer(job)) as performer:
            for task in tasks:
                attempt: Attempt | None = Attempt(task, task_limit(task, self.task_timeout))
                while attempt is not None:
                    result = performer.perform(attempt)
                    if isinstance(result, TaskDone):
                        report(result)
                        break
                    attempt = tries.again(attempt, result)

    def known_workers(self) -> int | None:
        return self.workers

    def close(self) -> None:
        pass
