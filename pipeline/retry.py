"""Whether a piece that failed is done again, and how: as it was, in parts, or alone; at last it is given up."""

import errno
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import CorpusmillError, ProcessKilled
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.stage import Piece, load_object
from corpusmill.pipeline.watch.events import Event, Kind, OnEvent

if TYPE_CHECKING:
    from corpusmill.pipeline.engine import Done, Job


class Cause(StrEnum):
    """Why a piece failed, as far as it decides what becomes of it."""

    SENTENCE = "sentence"  # an error of ours: doing it again would say the same
    HICCUP = "hiccup"  # a store or a disk that may answer the next time
    EXCEPTION = "exception"
    DEATH = "death"  # of its process, unexplained
    HANG = "hang"  # it was not done within its time
    NODE = "node"  # the machine that did it is gone
    MEMORY = "memory"  # there was not enough


#: How often a piece is done again after it failed for each cause. A hang costs all of its time again, so it gets one more try. The loss
#: of a node is never the piece's fault: so many of them end the run, and no piece is given up for it.
AGAIN = {
    Cause.SENTENCE: 0, Cause.HICCUP: 3, Cause.EXCEPTION: 1, Cause.DEATH: 3, Cause.HANG: 1, Cause.NODE: 20, Cause.MEMORY: 6,
}  # fmt: skip
#: How often a piece that ran out of memory is done again beside others; afterwards it has the machine to itself.
TOGETHER = 2
#: Seconds before a piece is done again after a hiccup.
PAUSES = (0.2, 1.0, 5.0)
#: What the system says when the next piece will fail as this one did: there is no room, or nobody may write.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: What libraries say where there is no room for a thread's stack.
NO_THREAD = ("can't start new thread", "Failed to launch worker thread")
#: Errors of files that a second look does not mend.
SETTLED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


@dataclass(frozen=True)
class Failed:
    """A piece that was not done: one sentence for the user, and the trace for the log. `fatal`: it is no matter of this piece.

    Both go to many places (manifest, reports, logs of workers), and libraries name the URL to which a server has sent them, signature and
    all: so URLs are redacted here.
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


@dataclass(frozen=True)
class Attempt:
    """A piece, and how it is done: in so many parts one after the other, while nothing else is in flight, after a pause (seconds), within
    `limit` seconds (0: any). `node`: Ray's id of the node on which it failed last."""

    piece: Piece
    limit: float = 0.0
    parts: int = 1
    alone: bool = False
    pause: float = 0.0
    node: str = ""
    again: bool = False  # it has failed, or may have killed a process

    def by_itself(self) -> "Attempt":
        """Not in one call with others any more."""
        return replace(self, again=True)


@dataclass(frozen=True)
class Listener:
    """Who hears of a phase, in the driver's process. What one of these raises ends the phase."""

    on_done: Callable[[Sequence["Done"]], None]
    on_failed: Callable[[Failed], None]  # a piece that is given up
    on_event: OnEvent


def named(piece: Piece) -> str:
    """The inputs of a piece for a sentence."""
    return ", ".join(i.path for i in piece.inputs[:3]) or "no input"


def failure(stage: str, piece: Piece, error: BaseException, fatal: bool = False) -> Failed:
    """An exception as a sentence: ours as it is, any other with the piece's input named."""
    trace = "".join(traceback.format_exception(error))
    cause, full = _cause(error)
    if isinstance(error, ProcessKilled):
        return Failed(piece.key, f"{stage}, task {piece.key} ({named(piece)}): {error}", error.exit_code, trace, Cause.DEATH)
    if isinstance(error, CorpusmillError):
        return Failed(piece.key, str(error), error.exit_code, trace, cause, fatal or full)
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    return Failed(piece.key, f"{stage}, task {piece.key} ({named(piece)}): {said}", 1, trace, cause, full)


def hang(stage: str, piece: Piece, seconds: float, trace: str = "", where: str = "") -> Failed:
    """A piece that was not done within its time. `where`: what it was doing, as far as that is known."""
    said = f"{stage}, task {piece.key} ({named(piece)}): it was not done after {seconds:g} seconds (--task-timeout)"
    return Failed(piece.key, said + (f", in {where}" if where else "") + ".", 1, trace, Cause.HANG)


def _cause(error: BaseException) -> tuple[Cause, bool]:
    """The cause, and whether all other pieces will fail for it, too. An error of ours may come from one of the system's."""
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


class Tries:
    """How often each piece of a phase has failed, and what follows from one failure more."""

    def __init__(self, job: "Job", listener: Listener):
        self.job, self.listener = job, listener
        self.failures: Counter[tuple[str, Cause]] = Counter()
        self.tries: Counter[str] = Counter()

    def again(self, attempt: Attempt, failed: Failed) -> Attempt | None:
        """How the piece is done again; None where it is given up, which the listener is told."""
        key = attempt.piece.key
        self.tries[key] += 1
        self.failures[key, failed.cause] += 1
        number = self.failures[key, failed.cause]
        if number > AGAIN[failed.cause]:
            counted = failed.cause in (Cause.DEATH, Cause.NODE)
            said = f"{failed.message.rstrip('.')} {number} times." if counted else failed.message
            fatal = failed.fatal or failed.cause is Cause.NODE
            self.listener.on_failed(replace(failed, message=said, fatal=fatal, tries=self.tries[key]))
            return None
        attempt = self._next(attempt, failed, number)
        self._tell(attempt, failed)
        return attempt

    def _next(self, attempt: Attempt, failed: Failed, number: int) -> Attempt:
        attempt = replace(attempt, again=True, pause=0.0)
        if failed.cause is Cause.HICCUP:
            return replace(attempt, pause=PAUSES[number - 1])
        if failed.cause is Cause.MEMORY or (failed.cause is Cause.DEATH and number > 1):
            parts = attempt.parts * 2 if load_object(self.job.worker).by_parts else 1
            return replace(attempt, parts=parts, alone=parts == 1 or number > TOGETHER)
        return attempt

    def _tell(self, attempt: Attempt, failed: Failed) -> None:
        kind: Kind = "death" if failed.cause in (Cause.DEATH, Cause.NODE) else "retry"
        how = ""
        if attempt.parts > 1:
            kind, how = "halves", f" in {attempt.parts} parts"
        elif attempt.alone:
            kind, how = "alone", " when nothing else is"
        fields: dict[str, Any] = {"cause": failed.cause.value, "tries": self.tries[failed.key], "trace": failed.trace}
        fields |= {"parts": attempt.parts} if attempt.parts > 1 else {}
        fields |= {"node": attempt.node} if attempt.node else {}
        said = failed.message.rstrip(".")
        self.listener.on_event(Event(kind, self.job.stage, self.job.phase, failed.key, f"{said}; it is done again{how}.", fields))
