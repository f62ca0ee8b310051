"""All that follows from a failed task: whether it is done again and how, when it is given up, and whether the rest of the phase goes on.

An engine turns an error into a `Failed` (`failure`, `hang`) and asks `Tries` what follows: the same again, in parts, alone, or never. The
runner collects the tasks that were given up in `GivenUp`, which ends the phase where that makes sense. What happens on the way are
`Event`s. docs/operations.md describes the same for users.
"""

import errno
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from corpusmill.pipeline.errors import CorpusmillError, InputError, ProcessKilled
from corpusmill.pipeline.manifest import Quarantined
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.stage import Task, load_object

if TYPE_CHECKING:
    from corpusmill.pipeline.engine import Job, TaskDone


class Cause(StrEnum):
    """Why a task failed, as far as it decides what follows."""

    SENTENCE = "sentence"  # an error of ours: another try would say the same
    HICCUP = "hiccup"  # a store or a disk that may answer the next time
    EXCEPTION = "exception"
    DEATH = "death"  # of its process, unexplained
    HANG = "hang"  # it was not done within its time
    NODE = "node"  # the machine that did it is gone
    MEMORY = "memory"  # there was not enough


#: How many more tries a task gets for each cause. A hang costs all of its time again, so it gets one. The loss of a node is never the
#: task's fault: so many of them end the run, and no task is given up for it.
AGAIN = {
    Cause.SENTENCE: 0, Cause.HICCUP: 3, Cause.EXCEPTION: 1, Cause.DEATH: 3, Cause.HANG: 1, Cause.NODE: 20, Cause.MEMORY: 6,
}  # fmt: skip
#: How often a task that ran out of memory is done again beside others; afterwards it has the machine to itself.
TOGETHER = 2
#: Seconds before a task is done again after a hiccup.
PAUSES = (0.2, 1.0, 5.0)
#: Errors of the system after which all tasks would fail: the disk is full, or nobody may write.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: Messages of libraries where there is no memory for a thread's stack.
NO_THREAD = ("can't start new thread", "Failed to launch worker thread")
#: Errors of files that another try does not mend.
SETTLED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
#: So many tasks that all failed, before any other worked, have a common cause. As many are listed at the end of a run.
SYSTEMATIC = 10


# ---- one failure -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """A task that was not done: one sentence for the user, and the trace for the log. `fatal`: the other tasks would fail, too.

    Both go to many places (manifest, reports, logs), and libraries name the URL to which a server has sent them, signature and all: so
    URLs are redacted here.
    """

    key: str
    message: str
    exit_code: int
    trace: str
    cause: Cause = Cause.EXCEPTION
    fatal: bool = False
    tries: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", redact(self.message))
        object.__setattr__(self, "trace", redact(self.trace))

    @property
    def error(self) -> CorpusmillError:
        """The failure as the error that ends the run."""
        return (InputError if self.exit_code == InputError.exit_code else CorpusmillError)(self.message)


def failure(stage: str, task: Task, error: BaseException, fatal: bool = False) -> Failed:
    """An exception as a failure. Errors of ours are sentences already; others get the task's input named."""
    trace = "".join(traceback.format_exception(error))
    cause, full = _cause(error)
    where = f"{stage}, task {task.key} ({named(task)})"
    if isinstance(error, ProcessKilled):
        return Failed(task.key, f"{where}: {error}", error.exit_code, trace, Cause.DEATH)
    if isinstance(error, CorpusmillError):
        return Failed(task.key, str(error), error.exit_code, trace, cause, fatal or full)
    message = f"{type(error).__name__}: {error}".rstrip(": ")
    return Failed(task.key, f"{where}: {message}", 1, trace, cause, full)


def hang(stage: str, task: Task, seconds: float, trace: str = "", where: str = "") -> Failed:
    """The failure of a task that was not done within its time. `where`: what it was doing, as far as that is known."""
    message = f"{stage}, task {task.key} ({named(task)}): it was not done after {seconds:g} seconds (--task-timeout)"
    return Failed(task.key, message + (f", in {where}" if where else "") + ".", 1, trace, Cause.HANG)


def named(task: Task) -> str:
    """The inputs of a task for a sentence."""
    return ", ".join(i.path for i in task.inputs[:3]) or "no input"


def _cause(error: BaseException) -> tuple[Cause, bool]:
    """The cause, and whether all other tasks will fail for it, too. An error of ours may come from one of the system's."""
    ours = isinstance(error, CorpusmillError)
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, MemoryError) or any(sentence in str(at) for sentence in NO_THREAD):
            return Cause.MEMORY, False
        if isinstance(at, OSError):
            settled = isinstance(at, SETTLED) or (ours and at.errno is None)  # libraries call a damaged file an OSError without a number
            known = Cause.SENTENCE if ours else Cause.EXCEPTION
            return known if settled or at.errno in FULL else Cause.HICCUP, at.errno in FULL
        at = at.__cause__
    return Cause.SENTENCE if ours else Cause.EXCEPTION, False


# ---- events ------------------------------------------------------------------------------------------

#: retry: a task raised an exception and is done again. death: its process died and it is done again. split: it ran out of memory and is
#: done again in parts. alone: it can't be cut, and is done again while nothing else is. quarantine: it is given up, the rest goes on.
#: waiting: the cluster has no room for a worker, or another process may hold what the stage needs.
EventKind: TypeAlias = Literal["retry", "death", "split", "alone", "quarantine", "waiting"]


@dataclass(frozen=True)
class Event:
    """`message` is a sentence for people, stage and task included. `task` is empty where it is about none. `fields` are for programs
    (JSON-able): `tries` so far, `cause`, `parts`, `node`, `trace`, as far as there are any."""

    kind: EventKind
    stage: str
    phase: str
    task: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)


OnEvent: TypeAlias = Callable[[Event], None]


def print_event(event: Event) -> None:
    print(f"corpusmill: {event.message}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Listener:
    """Callbacks of a phase in the driver's process. What one of these raises ends the phase."""

    on_done: Callable[[Sequence["TaskDone"]], None]
    on_failed: Callable[[Failed], None]  # a task that is given up
    on_event: OnEvent


# ---- the next try ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """A task, and how it is done: within `limit` seconds (0: any), in so many parts one after the other, while nothing else is in flight,
    after a pause (seconds). `node`: Ray's id of the node on which it failed last."""

    task: Task
    limit: float = 0.0
    parts: int = 1
    alone: bool = False
    pause: float = 0.0
    node: str = ""


class Tries:
    """How often each task of a phase has failed, and what follows from the next failure."""

    def __init__(self, job: "Job", listener: Listener):
        self.job, self.listener = job, listener
        self.failures: Counter[tuple[str, Cause]] = Counter()
        self.tries: Counter[str] = Counter()

    def again(self, attempt: Attempt, failed: Failed) -> Attempt | None:
        """How the task is done again. None where it is given up; then the listener has got it."""
        key = attempt.task.key
        self.tries[key] += 1
        self.failures[key, failed.cause] += 1
        number = self.failures[key, failed.cause]
        if number > AGAIN[failed.cause]:
            counted = failed.cause in (Cause.DEATH, Cause.NODE)
            message = f"{failed.message.rstrip('.')} {number} times." if counted else failed.message
            fatal = failed.fatal or failed.cause is Cause.NODE
            self.listener.on_failed(replace(failed, message=message, fatal=fatal, tries=self.tries[key]))
            return None
        attempt = self._next(attempt, failed, number)
        self._report(attempt, failed)
        return attempt

    def _next(self, attempt: Attempt, failed: Failed, number: int) -> Attempt:
        if failed.cause is Cause.HICCUP:
            return replace(attempt, pause=PAUSES[number - 1])
        attempt = replace(attempt, pause=0.0)
        if failed.cause is Cause.MEMORY or (failed.cause is Cause.DEATH and number > 1):
            parts = attempt.parts * 2 if load_object(self.job.worker).by_parts else 1
            return replace(attempt, parts=parts, alone=parts == 1 or number > TOGETHER)
        return attempt

    def _report(self, attempt: Attempt, failed: Failed) -> None:
        kind: EventKind = "death" if failed.cause in (Cause.DEATH, Cause.NODE) else "retry"
        how = ""
        if attempt.parts > 1:
            kind, how = "split", f" in {attempt.parts} parts"
        elif attempt.alone:
            kind, how = "alone", " when nothing else is"
        fields: dict[str, Any] = {"cause": failed.cause.value, "tries": self.tries[failed.key], "trace": failed.trace}
        fields |= {"parts": attempt.parts} if attempt.parts > 1 else {}
        fields |= {"node": attempt.node} if attempt.node else {}
        message = f"{failed.message.rstrip('.')}; it is done again{how}."
        self.listener.on_event(Event(kind, self.job.stage, self.job.phase, failed.key, message, fields))


# ---- tasks that were given up ------------------------------------------------------------------------


class GivenUp:
    """The tasks of a phase, of `todo` in all, that were given up; `worked` counts the finished ones. Where none is `needed`, all may
    fail. `strict`: the first one ends the phase."""

    def __init__(self, todo: int, worked: int, strict: bool, needed: bool = True):
        self.limit = min(SYSTEMATIC, todo)
        self.strict, self.needed, self.worked = strict, needed, worked
        self.failed: dict[str, Failed] = {}

    def add(self, failed: Failed) -> None:
        """One more. Raises where the phase has to end: the other tasks would fail, too, or nothing has worked so far."""
        if failed.fatal:
            raise failed.error
        self.failed[failed.key] = failed
        if self.strict or (self.needed and not self.worked and len(self.failed) >= self.limit):
            raise next(iter(self.failed.values())).error

    def end(self, stage: str, rows: Sequence[Quarantined]) -> CorpusmillError:
        """The error of a phase that can't go on without them: one failure as it is, several in one sentence."""
        failed = list(self.failed.values())
        if len(failed) == 1:
            return failed[0].error
        ours = all(each.exit_code == InputError.exit_code for each in failed)
        error = InputError if ours else CorpusmillError
        tasks = _listed([(stage, row) for row in rows])
        return error(f"{stage}: {len(rows)} tasks failed, all others are done, and the stage needs them: {tasks}.")


def sentence_of(stage: str, row: Quarantined) -> str:
    """One task that was given up, without a full stop: stage, task, inputs, cause."""
    begin = f"{stage}, task {row.task} ("
    message = row.message.rstrip(".")
    return message if message.startswith(begin) else f"{begin}{', '.join(ref.path for ref in row.inputs[:3]) or 'no input'}): {message}"


def sentence_of_all(lost: Sequence[tuple[str, Quarantined]]) -> str:
    """The last sentence of a run that went on without these tasks (stage and task); none: nothing."""
    if not lost:
        return ""
    tasks = "1 task was" if len(lost) == 1 else f"{len(lost)} tasks were"
    return f"{tasks} given up, and the run is finished without (the same command tries again): {_listed(lost)}."


def _listed(lost: Sequence[tuple[str, Quarantined]]) -> str:
    more = f"; and {len(lost) - SYSTEMATIC} more (corpusmill verify lists them)" if len(lost) > SYSTEMATIC else ""
    return "; ".join(sentence_of(stage, row) for stage, row in lost[:SYSTEMATIC]) + more
