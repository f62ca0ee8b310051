"""How tasks are performed: in the calling process, or on Ray actors (`on_ray/engine.py`), with the same bytes."""

import contextlib
import platform
import resource
import signal
import sysconfig
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from corpusmill.pipeline.code import Code
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.failures import Attempt, Failed, Listener, Tries, failure, hang
from corpusmill.pipeline.interrupts import Terminated, exit_code_of, of_an_interrupt
from corpusmill.pipeline.lease import LeaseLost, check_holder
from corpusmill.pipeline.memory import release_memory
from corpusmill.pipeline.shards import OutputFile, publish
from corpusmill.pipeline.stage import Output, Task, Worker, load_object
from corpusmill.pipeline.storage import Storage

#: Seconds that a task may take, and as many more for each so many bytes of its input.
TASK_TIMEOUT, TIMEOUT_BYTES = 3600.0, 32 << 20


@dataclass(frozen=True)
class Job:
    """What a process needs to work on the tasks of one phase. `worker` is `module:Class`."""

    stage: str
    worker: str
    config: Config
    run_root: str
    params: dict[str, Any] = field(default_factory=dict)
    gpus: float = 0.0  # what each worker takes of a GPU; where there is none, it does without
    phase: str = ""
    memory_mb: int = 0  # what each worker is expected to take; 0: not known
    code: Code | None = None  # the driver's, with which a node compares its own; None: nothing is compared
    holder: str = ""  # the id of the run's lease (lease.py); empty: there is none


@dataclass(frozen=True)
class TaskDone:
    """A task whose outputs are published."""

    key: str
    outputs: list[OutputFile]
    rows_in: int
    kept: int
    dropped: int
    bytes_in: int
    counts: dict[str, int]
    warnings: list[str]
    seconds: float
    peak_mb: int  # of the worker and the processes that it keeps
    beside_mb: int = 0  # of these processes alone
    node: str = field(default_factory=platform.node)  # where it was done


class Engine(Protocol):
    workers: int

    def perform(self, job: Job, tasks: Sequence[Task], listener: Listener) -> None:
        """Performs all tasks in any order. The listener is called in this process, with those that are done (some at a time) and with
        those that are given up; it ends the phase by raising."""

    def known_workers(self) -> int | None:
        """How many work on a phase at most; None where that is not known yet."""

    def close(self) -> None: ...


def peak_memory_mb() -> int:
    """The largest resident set of this process so far, in MB."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:  # getrusage never says less than the parent's peak
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def publish_output(
    storage: Storage,
    key: str,
    made: Output | Iterator[Output],
    started: float,
    beside_mb: Callable[[], int] = lambda: 0,
    fence: Callable[[], None] = lambda: None,
) -> TaskDone:
    """Publishes the outputs of a task, file by file, in a fixed order; some files are made only as they are written.

    `started`: when the task began (perf_counter). `beside_mb`: returns the memory of the worker's other processes. `fence` raises where
    another process has taken over the run, since it may have recorded other files of these names.
    """
    files: list[OutputFile] = []
    whole = Output({})
    counts: Counter[str] = Counter()
    for output in [made] if isinstance(made, Output) else made:
        fence()
        files += [publish(storage, path, output.files[path]) for path in sorted(output.files)]
        whole.rows_in += output.rows_in
        whole.kept += output.kept
        whole.dropped += output.dropped
        whole.bytes_in += output.bytes_in
        counts.update(output.counts)
        whole.warnings += output.warnings
    beside = beside_mb()
    return TaskDone(
        key, sorted(files, key=lambda file: file.path), whole.rows_in, whole.kept, whole.dropped, whole.bytes_in,
        dict(sorted(counts.items())), whole.warnings, time.perf_counter() - started, peak_memory_mb() + beside, beside,
    )  # fmt: skip


def task_limit(task: Task, timeout: float) -> float:
    """Seconds that a task may take (0: any), by its size: long enough for a slow task, to find one that hangs."""
    return timeout * (1 + task.size / TIMEOUT_BYTES)


class Overdue(BaseException):
    """A task has taken too long. It is no Exception, so that code that goes on after errors does not go on after this."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises Overdue in the block after so many seconds (0: never), also in a sleep, a loop or a regular expression. It can't interrupt
    native code that does not return, nor another thread than the main one."""
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
    """Where a task was when its time was over, in words. None where the error does not come from Overdue, which libraries may turn into
    errors of their own."""
    while error is not None:
        if isinstance(error, Overdue):
            frames = traceback.extract_tb(error.__traceback__)[:-1]  # the last is `end` above
            frames = [frame for frame in frames if not _is_of_python(frame.filename)]
            return f"{frames[-1].name} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        error = error.__cause__ or error.__context__
    return None


def _is_of_python(path: str) -> bool:
    """Whether a source belongs to Python's library, such as `re`."""
    return path.startswith(sysconfig.get_path("stdlib")) and "-packages" not in path


def make_worker(job: Job) -> Worker:
    worker: Worker = load_object(job.worker)(job.config, Storage(job.run_root), job.params)
    return worker


class Performer:
    """One worker in one process: set up once, then one task after another."""

    def __init__(self, job: Job):
        self.job = job
        self.run = Storage(job.run_root)
        self.storage = self.run.child(job.stage)
        self.worker: Worker | None = None

    def perform(self, attempt: Attempt) -> TaskDone | Failed:
        task = attempt.task
        if attempt.pause:  # a sleep of 0 seconds gives the processor away, too
            time.sleep(attempt.pause)
        if attempt.parts > 1:
            release_memory()
        ready = self.worker is not None
        try:
            load_object(self.job.worker)  # libraries take what they take
            with _within(attempt.limit):
                worker = self.worker = self.worker or self._ready()
                ready = True
                started = time.perf_counter()
                worker.parts = attempt.parts
                return publish_output(self.storage, task.key, worker.process(task), started, worker.beside_mb, self._fence)
        except (Exception, Overdue) as error:
            if of_an_interrupt(error):
                raise (Terminated if exit_code_of(error) == 143 else KeyboardInterrupt) from error
            if (where := _place_of_overdue(error)) is not None:
                self.close()  # it was interrupted anywhere, and may not be well
                return hang(self.job.stage, task, attempt.limit, "".join(traceback.format_exception(error)), where)
            fatal = isinstance(error, LeaseLost) or (not ready and isinstance(error, CorpusmillError))
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
    """Everything in the calling process, one task after the other: for debugging and tests. It can't end native code that hangs."""

    workers = 1

    def __init__(self, task_timeout: float = TASK_TIMEOUT):
        self.task_timeout = task_timeout

    def perform(self, job: Job, tasks: Sequence[Task], listener: Listener) -> None:
        tries = Tries(job, listener)
        with contextlib.closing(Performer(job)) as performer:
            for task in tasks:
                attempt: Attempt | None = Attempt(task, task_limit(task, self.task_timeout))
                while attempt is not None:
                    result = performer.perform(attempt)
                    if isinstance(result, TaskDone):
                        listener.on_done([result])
                        break
                    attempt = tries.again(attempt, result)

    def known_workers(self) -> int | None:
        return self.workers

    def close(self) -> None:
        pass
