"""Decides what follows from a failed task: whether and how it is done again, when it is given up, and whether its phase goes on.

An engine turns an error into a `Failed` (`failure`, `hang`) and asks `Tries` for the next attempt: the same again, in parts, alone, or
none. The runner collects the tasks that were given up in `FailedTasks`, which may end the phase. Each step is told as an `Event`.
docs/operations.md describes the same for users.
"""

import errno
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from corpusmill.pipeline.errors import CorpusmillError, Damaged, InputError, ProcessKilled
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.manifest import Quarantined
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.stage import Task, load_object

if TYPE_CHECKING:
    from corpusmill.pipeline.engine import Job, TaskDone


class Cause(StrEnum):
    """The cause of a failure. It decides the next step (AGAIN, `Tries`)."""

    USER_ERROR = "user error"  # a CorpusmillError: another try would end the same way
    TRANSIENT_IO = "transient I/O"  # an error of a store or a disk that may work the next time
    EXCEPTION = "exception"  # any other exception
    DEATH = "death"  # the process died, without a known reason
    HANG = "hang"  # the task was not done within its time limit
    NODE = "node"  # the machine that did it is gone
    MEMORY = "memory"  # there was not enough memory


#: Seconds before a task is done again after a transient error: one number for each try.
PAUSES = (0.2, 1.0, 5.0)
#: How many more tries a task gets for each cause. A hang takes the whole time limit again, so it gets one. The loss of a node is never
#: the task's fault, so no task is given up for it: one loss more than this ends the run.
AGAIN = {
    Cause.USER_ERROR: 0,
    Cause.TRANSIENT_IO: len(PAUSES),
    Cause.EXCEPTION: 1,
    Cause.DEATH: 3,
    Cause.HANG: 1,
    Cause.NODE: 20,
    Cause.MEMORY: 6,
}
#: How often a task that ran out of memory is done again in parallel with others. After that, it runs alone.
TOGETHER = 2
#: Error numbers of the system after which all tasks would fail: the disk is full, or not writable.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: Messages of libraries that found no memory for the stack of a thread.
NO_THREAD = ("can't start new thread", "Failed to launch worker thread")
#: Errors of files that another try would meet again.
SETTLED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
#: When this many tasks have failed before any has worked, they have a common cause, and the phase ends. Messages list at most as many.
SYSTEMATIC = 10


# ---- one failure -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """A failed task: `message` is one sentence for the user, `trace` is for the log. `fatal`: the other tasks would fail, too. `damaged`:
    the path of a file that is not the one that the run wrote.

    The texts go to many places (manifest, reports, logs). Libraries put URLs into their errors, signatures included, so URLs are redacted
    here.
    """

    key: str
    message: str
    exit_code: int
    trace: str
    cause: Cause = Cause.EXCEPTION
    fatal: bool = False
    tries: int = 1
    damaged: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", redact(self.message))
        object.__setattr__(self, "trace", redact(self.trace))

    @property
    def error(self) -> CorpusmillError:
        """The failure as an error, to end the run with."""
        if self.damaged:
            return Damaged(self.message, self.damaged)
        return (InputError if self.exit_code == InputError.exit_code else CorpusmillError)(self.message)


def failure(stage: str, task: Task, error: BaseException, fatal: bool = False) -> Failed:
    """Returns an exception as a failure. A CorpusmillError keeps its message; others get stage, task and inputs as a prefix."""
    trace = "".join(traceback.format_exception(error))
    cause, full = _cause(error)
    where = f"{stage}, task {task.key} ({named(task)})"
    if isinstance(error, ProcessKilled):
        return Failed(task.key, f"{where}: {error}", error.exit_code, trace, Cause.DEATH)
    if isinstance(error, CorpusmillError):
        damaged = error.path if isinstance(error, Damaged) else ""
        return Failed(task.key, str(error), error.exit_code, trace, cause, fatal or full or error.ends_run, damaged=damaged)
    message = f"{type(error).__name__}: {error}".rstrip(": ")
    return Failed(task.key, f"{where}: {message}", 1, trace, cause, full)


def hang(stage: str, task: Task, seconds: float, trace: str = "", where: str = "") -> Failed:
    """Returns the failure of a task that was not done within `seconds`. `where`: the place in the code at which it was, if known."""
    message = f"{stage}, task {task.key} ({named(task)}): it was not done after {seconds:g} seconds (--task-timeout)"
    return Failed(task.key, message + (f", in {where}" if where else "") + ".", 1, trace, Cause.HANG)


def named(task: Task) -> str:
    """Returns the inputs of a task (at most three) as text for a message."""
    return ", ".join(i.path for i in task.inputs[:3]) or "no input"


def _cause(error: BaseException) -> tuple[Cause, bool]:
    """Returns the cause, and whether all other tasks will fail for the same one. A CorpusmillError may be caused by a system error."""
    ours = isinstance(error, CorpusmillError)
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, MemoryError) or any(sentence in str(at) for sentence in NO_THREAD):
            return Cause.MEMORY, False
        if isinstance(at, OSError):
            settled = isinstance(at, SETTLED) or (ours and at.errno is None)  # libraries: an OSError without a number for a damaged file
            known = Cause.USER_ERROR if ours else Cause.EXCEPTION
            return known if settled or at.errno in FULL else Cause.TRANSIENT_IO, at.errno in FULL
        at = at.__cause__
    return Cause.USER_ERROR if ours else Cause.EXCEPTION, False


#: An engine calls it in the driver's process, with finished tasks, tasks that are given up, and other events. An exception that it raises
#: ends the phase.
Report: TypeAlias = Callable[[Union["TaskDone", Failed, Event]], None]


# ---- the next try ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """One try of a task: within `limit` seconds (0: no limit), in `parts` parts one after the other, `alone` (while no other task is in
    flight), after `pause` seconds. `node`: Ray's id of the node on which the task failed last."""

    task: Task
    limit: float = 0.0
    parts: int = 1
    alone: bool = False
    pause: float = 0.0
    node: str = ""


class Tries:
    """Counts the failures of each task of a phase, and decides the next attempt."""

    def __init__(self, job: "Job", report: Report):
        self.job, self.report = job, report
        self.failures: Counter[tuple[str, Cause]] = Counter()
        self.tries: Counter[str] = Counter()

    def again(self, attempt: Attempt, failed: Failed) -> Attempt | None:
        """Returns the next attempt at the task. None if it is given up; then that is reported."""
        key = attempt.task.key
        self.tries[key] += 1
        self.failures[key, failed.cause] += 1
        number = self.failures[key, failed.cause]
        if number > AGAIN[failed.cause]:
            counted = failed.cause in (Cause.DEATH, Cause.NODE)
            message = f"{failed.message.rstrip('.')} {number} times." if counted else failed.message
            fatal = failed.fatal or failed.cause is Cause.NODE
            self.report(replace(failed, message=message, fatal=fatal, tries=self.tries[key]))
            return None
        attempt = self._next(attempt, failed, number)
        self.report(self._told(attempt, failed))
        return attempt

    def _next(self, attempt: Attempt, failed: Failed, number: int) -> Attempt:
        if failed.cause is Cause.TRANSIENT_IO:
            return replace(attempt, pause=PAUSES[number - 1])
        attempt = replace(attempt, pause=0.0)
        if failed.cause is Cause.MEMORY or (failed.cause is Cause.DEATH and number > 1):
            parts = attempt.parts * 2 if load_object(self.job.worker).by_parts else 1
            return replace(attempt, parts=parts, alone=parts == 1 or number > TOGETHER)
        return attempt

    def _told(self, attempt: Attempt, failed: Failed) -> Event:
        kind = "death" if failed.cause in (Cause.DEATH, Cause.NODE) else "retry"
        how = ""
        if attempt.parts > 1:
            kind, how = "split", f" in {attempt.parts} parts"
        elif attempt.alone:
            kind, how = "alone", " alone"
        fields: dict[str, Any] = {"cause": failed.cause.value, "tries": self.tries[failed.key]}
        fields |= {"parts": attempt.parts} if attempt.parts > 1 else {}
        message = f"{failed.message.rstrip('.')}; it is done again{how}."
        return Event(kind, self.job.stage, self.job.phase, failed.key, message, "warning", fields, attempt.node, trace=message)


# ---- tasks that were given up ------------------------------------------------------------------------


class FailedTasks:
    """The tasks of a phase that were given up. `todo`: the number of unfinished tasks at its beginning. `worked` counts finished tasks.
    `strict`: the first task that is given up ends the phase. Without `fail_fast`, all tasks may fail. `repairs`: the first damaged file
    ends the phase, so that it is made anew."""

    def __init__(self, todo: int, worked: int, strict: bool, fail_fast: bool = True, repairs: bool = False):
        self.limit = min(SYSTEMATIC, todo)
        self.strict, self.fail_fast, self.worked, self.repairs = strict, fail_fast, worked, repairs
        self.failed: dict[str, Failed] = {}

    def add(self, failed: Failed) -> None:
        """Adds a task. Raises where the phase has to end: the other tasks would fail, too, or many have failed and none has worked."""
        if failed.fatal or (failed.damaged and self.repairs):
            raise failed.error
        self.failed[failed.key] = failed
        if self.strict or (self.fail_fast and not self.worked and len(self.failed) >= self.limit):
            raise next(iter(self.failed.values())).error

    def end(self, stage: str, rows: Sequence[Quarantined]) -> CorpusmillError:
        """Returns the error of a phase that needs these tasks: a single failure as it is, several in one sentence."""
        failed = list(self.failed.values())
        if len(failed) == 1:
            return failed[0].error
        ours = all(each.exit_code == InputError.exit_code for each in failed)
        error = InputError if ours else CorpusmillError
        tasks = _listed([(stage, row) for row in rows])
        return error(f"{stage}: {len(rows)} tasks failed, all others are done, and the stage needs them: {tasks}.")


def sentence_of(stage: str, row: Quarantined) -> str:
    """Returns a sentence, without a full stop, about one task that was given up: stage, task, inputs, cause."""
    begin = f"{stage}, task {row.task} ("
    message = row.message.rstrip(".")
    return message if message.startswith(begin) else f"{begin}{', '.join(ref.path for ref in row.inputs[:3]) or 'no input'}): {message}"


def sentence_of_all(lost: Sequence[tuple[str, Quarantined]]) -> str:
    """Returns the last sentence of a run that went on without these tasks (stage and task); empty where there are none."""
    if not lost:
        return ""
    tasks, them = ("1 task was", "it") if len(lost) == 1 else (f"{len(lost)} tasks were", "them")
    return f"{tasks} given up; the run finished without {them} (run the same command to try again): {_listed(lost)}."


def _listed(lost: Sequence[tuple[str, Quarantined]]) -> str:
    more = f"; and {len(lost) - SYSTEMATIC} more (corpusmill verify lists them)" if len(lost) > SYSTEMATIC else ""
    return "; ".join(sentence_of(stage, row) for stage, row in lost[:SYSTEMATIC]) + more
