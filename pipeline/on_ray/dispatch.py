"""Hands the pieces of one phase to Ray actors: the largest first, what failed again, and each actor as long as it has work."""

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corpusmill.pipeline.engine import TASK_TIMEOUT, Done, Job, task_limit
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.on_ray.actor import PieceActor
from corpusmill.pipeline.on_ray.pool import Pool
from corpusmill.pipeline.on_ray.share import Share
from corpusmill.pipeline.retry import Attempt, Cause, Failed, Listener, Tries, hang, named
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.watch.events import Event

#: Seconds without a free CPU in the cluster after which the user is told what the run waits for.
PATIENCE = 20.0
#: Seconds after which the cluster is asked again whether it has grown.
GROWTH = 10.0
#: Seconds for which a worker that has not done its pieces in time may still say itself where it hangs, before it is killed. Of pieces
#: that go in one call only the first has any time (`SECONDS_TOGETHER`).
GRACE = 60.0
#: Workers that die one after the other before they are ready, before no more are started beside those that work.
STILLBORN = 3
#: Small pieces of which several go in one call: so many at most, with so many bytes of input in all, and while each actor has so many
#: calls more before it.
TOGETHER, TOGETHER_BYTES, CALLS_LEFT = 16, 1 << 20, 8


@dataclass(frozen=True)
class Call:
    """What an actor does, and until when (monotonic) it has to answer. No attempts: it was asked whether it is there."""

    actor: Any
    attempts: list[Attempt]
    until: float = float("inf")


class Dispatch:
    """An actor for which the cluster has no room yet holds no piece, so the others can do all of the work. `ask_share`: what the cluster
    has for this phase now; `place`: further options of the actors (Ray's `memory`, bytes); `pool`: where actors come from, and go to when
    they have no work; None: they are made for this phase, and end with it; `task_timeout`: see `task_limit`."""

    def __init__(
        self,
        ray: Any,
        job: Job,
        pieces: Sequence[Piece],
        ask_share: Callable[[], Share],
        listener: Listener,
        place: dict[str, int],
        pool: Pool | None = None,
        task_timeout: float = TASK_TIMEOUT,
    ):
        self.ray, self.ask_share, self.listener, self.place, self.pool = ray, ask_share, listener, place, pool
        self.share, self.asked = ask_share(), time.monotonic()
        self.actor_class = ray.remote(num_cpus=self.share.cpus, num_gpus=self.share.gpus, max_restarts=0, **place)(PieceActor)
        self.stage, self.phase = job.stage, job.phase
        self.job = ray.put(job)
        self.tries = Tries(job, listener)
        self.task_timeout = task_timeout
        largest_first = sorted(pieces, key=lambda piece: -piece.size)
        self.waiting = deque(Attempt(piece, task_limit(piece, task_timeout)) for piece in largest_first)
        self.alone: deque[Attempt] = deque()  # what is done when nothing else is
        self.stillborn = 0  # actors that died before they were ready, since the last that was
        self.actors: set[Any] = set()
        self.nodes: dict[Any, str] = {}  # of those that are ready: Ray's id of the node on which each is
        self.pooled: set[Any] = set()  # those that have worked for another phase
        self.flying: dict[Any, Call] = {}  # by the answer to come

    def run(self) -> None:
        """Performs everything."""
        self._add_actors()
        while self.waiting or self.alone or self._busy():
            self._hear(self._answers())
            self._end_overdue()
            self._grow()
            self._add_actors()
        for call in self.flying.values():  # asked too late; a new one may still wait for room, which nobody needs any more
            if call.actor in self.pooled:
                self._let_go(call.actor)

    def close(self) -> None:
        for actor in list(self.actors):
            self._release(actor)

    def _answers(self) -> list[Any]:
        """All answers that are there, as soon as there is one; none where the time of a call is over before, or patience is."""
        refs = list(self.flying)
        left = min(call.until for call in self.flying.values()) - time.monotonic()
        ready, _ = self.ray.wait(refs, num_returns=1, timeout=max(0.0, min(PATIENCE, left)))
        if ready:
            return self.ray.wait(refs, num_returns=len(refs), timeout=0)[0] or ready
        if not self._busy() and left > PATIENCE:
            said = f"waiting for Ray to start a worker process (has a node of the cluster {self._needs()} free?) ..."
            self.listener.on_event(Event("waiting", self.stage, self.phase, "", said))
        return []

    def _hear(self, refs: Iterable[Any]) -> None:
        """What follows from answers. What was done is told before a failure beside it may end the phase."""
        finished: list[Done] = []
        troubled: list[tuple[Any, list[Done | Failed] | Exception]] = []  # in flight until then, so that nothing is done alone beside
        for ref in refs:
            answers = self._answer(ref)
            if isinstance(answers, str):
                actor = self.flying.pop(ref).actor
                self.stillborn, self.nodes[actor] = 0, answers
                self._next(actor)
                continue
            if isinstance(answers, list):
                finished += [answer for answer in answers if isinstance(answer, Done)]
                if not any(isinstance(answer, Failed) for answer in answers):
                    self._go_on(self.flying.pop(ref), answers)
                    continue
            troubled.append((ref, answers))
        if finished:
            self.listener.on_done(finished)
        for ref, answers in troubled:
            if isinstance(answers, list):
                self._go_on(self.flying.pop(ref), answers)
            else:
                self._bury(self.flying.pop(ref), answers)

    def _answer(self, ref: Any) -> str | list[Done | Failed] | Exception:
        """What a call has given: the node of an actor that is ready, or what became of pieces; the error of an actor that has died."""
        try:
            answers: str | list[Done | Failed] = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            return error
        return answers

    def _go_on(self, call: Call, answers: Sequence[Done | Failed]) -> None:
        """What follows from what became of an actor's pieces: some are done again, and its next ones."""
        self.waiting.extendleft(reversed(call.attempts[len(answers) :]))  # there was no time for them
        for attempt, answer in zip(call.attempts, answers, strict=False):
            if isinstance(answer, Failed):
                self._again(attempt, answer, self.nodes[call.actor])
        if any(isinstance(answer, Failed) and answer.cause is Cause.HANG for answer in answers):
            self._release(call.actor)  # it was interrupted anywhere, and may not be well
        else:
            self._next(call.actor)

    def _busy(self) -> int:
        """How many calls are in flight."""
        return sum(bool(call.attempts) for call in self.flying.values())

    def _grow(self) -> None:
        """Makes room for more actors where the cluster has grown; what each of them takes stays."""
        if self.waiting and time.monotonic() - self.asked > GROWTH:
            now, self.asked = self.ask_share(), time.monotonic()
            if now.gpus == self.share.gpus and now.actors > self.share.actors:
                self.share = replace(self.share, actors=now.actors)

    def _add_actors(self) -> None:
        """As many as there is work for: what failed may come when actors have gone already. Where several have died before they were
        ready, those that work do all of it."""
        if self.stillborn > STILLBORN and self.nodes:
            return
        wanted = min(self.share.actors, len(self.waiting) or bool(self.alone and not self._busy()))
        unready = len(self.flying) - self._busy()
        for _ in range(min(wanted - unready, self.share.actors - len(self.actors))):
            self._add_actor()

    def _add_actor(self) -> None:
        """One that has no work yet. A new one may wait for room in the cluster for as long as it takes."""
        folder = str(Path.cwd())
        if self.pool is not None and (actor := self.pool.take(self.place.get("memory", 0))) is not None:
            self.pooled.add(actor)
            self._call(actor.begin.remote(self.job, folder), actor, [], self.task_timeout)
        else:
            actor = self.actor_class.remote(self.job, folder, self.share)
            self._call(actor.ready.remote(), actor, [], 0.0)
        self.actors.add(actor)

    def _call(self, ref: Any, actor: Any, attempts: list[Attempt], limit: float) -> None:
        """Waits for an answer for so many seconds (0: for ever)."""
        self.flying[ref] = Call(actor, attempts, time.monotonic() + limit + min(limit, GRACE)) if limit else Call(actor, attempts)

    def _next(self, actor: Any) -> None:
        """Gives an actor its next pieces, or lets it go."""
        attempts = self._take(self.nodes[actor])
        if attempts:
            limit = max(attempt.limit + attempt.pause for attempt in attempts) if self.task_timeout else 0.0
            self._call(self._perform(actor).remote(attempts), actor, attempts, limit)
        else:
            self._let_go(actor)

    def _perform(self, actor: Any) -> Any:
        """The call under a name by which people find it in Ray's dashboard. Tasks are named in the worker's log: Ray counts calls by name,
        and never forgets one, which made 17 KB of the driver's memory a task."""
        return actor.perform.options(name=f"{self.stage} {self.phase}".rstrip())

    def _take(self, node: str) -> list[Attempt]:
        """What goes in one call to an actor on a node: pieces that failed before go by themselves, if there is a choice to another node
        than that on which they failed, and those that are done alone wait for all others."""
        if not self.waiting:
            return [self.alone.popleft()] if self.alone and not self._busy() else []
        most = min(TOGETHER, len(self.waiting) // (CALLS_LEFT * self.share.actors))
        place = 0
        if len(set(self.nodes.values())) > 1:
            place = next((place for place, attempt in enumerate(self.waiting) if attempt.node != node), 0)
        attempts = [self.waiting[place]]
        del self.waiting[place]
        room = 0 if attempts[0].again else TOGETHER_BYTES - attempts[0].piece.size
        while len(attempts) < most and not self.waiting[0].again and (room := room - self.waiting[0].piece.size) >= 0:
            attempts.append(self.waiting.popleft())
        return attempts

    def _let_go(self, actor: Any) -> None:
        """Of an actor that has no work and is well. It ends where what is done alone wants all the memory that there is."""
        if self.pool is None or self.alone:
            self._release(actor)
        else:
            self.actors.discard(actor)
            self.nodes.pop(actor, None)
            self.pool.give(actor, self.place.get("memory", 0))

    def _release(self, actor: Any) -> None:
        self.actors.discard(actor)
        self.nodes.pop(actor, None)
        if self.pool is not None:
            self.pool.lost(actor)
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(actor)

    def _needs(self) -> str:
        """What an actor takes of a node, in words."""
        needs = ["a CPU" if self.share.cpus == 1 else f"{self.share.cpus} CPUs"]
        needs += [f"{self.share.gpus:g} GPU"] if self.share.gpus else []
        needs += [f"{self.place['memory'] >> 20} MB of Ray's memory"] if "memory" in self.place else []
        return " and ".join(needs)

    def _again(self, attempt: Attempt, failed: Failed, node: str) -> None:
        if again := self.tries.again(replace(attempt, node=node), failed):
            if again.alone:
                self.alone.append(again)
                if self.pool is not None:
                    self.pool.clear()
            else:
                self.waiting.appendleft(again)

    def _end_overdue(self) -> None:
        """Kills actors that have not answered in time: what native code does can't be ended otherwise."""
        now = time.monotonic()
        for ref in [ref for ref, call in self.flying.items() if call.until <= now]:
            call = self.flying.pop(ref)
            node = self.nodes.get(call.actor, "")
            self._release(call.actor)
            self._charge(call.attempts, node, lambda piece, limit: hang(self.stage, piece, limit))

    def _bury(self, call: Call, error: Exception) -> None:
        """What follows from the death of an actor. Raises where none can be started."""
        node = self.nodes.get(call.actor, "")
        self._release(call.actor)
        lost = self._is_lost(node, error)
        if not call.attempts and not lost and call.actor not in self.pooled:
            self._count_stillborn(error)
        cause = Cause.NODE if lost else Cause.MEMORY if type(error).__name__ == "OutOfMemoryError" else Cause.DEATH
        why = "the node on which it was done is gone" if lost else f"its process died ({_cause(error)})"

        def failed(piece: Piece, limit: float) -> Failed:
            return Failed(piece.key, f"{self.stage}, task {piece.key} ({named(piece)}): {why}.", 1, str(error), cause)

        self._charge(call.attempts, node, failed)

    def _charge(self, attempts: list[Attempt], node: str, failed: Callable[[Piece, float], Failed]) -> None:
        """Of pieces whose process has ended. Of several, each is done by itself, since any may have been the cause."""
        if len(attempts) > 1:
            self.waiting.extendleft(attempt.by_itself() for attempt in reversed(attempts))
        for attempt in attempts if len(attempts) == 1 else ():
            self._again(attempt, failed(attempt.piece, attempt.limit), node)

    def _is_lost(self, node: str, error: Exception) -> bool:
        """Whether an actor has died because its node (empty: not known) went away."""
        if not node:
            return "node has died" in str(error)
        return getattr(error, "preempted", False) or all(each["NodeID"] != node for each in self.ray.nodes() if each["Alive"])

    def _count_stillborn(self, error: Exception) -> None:
        """Of an actor that died before it was ready. While others work, the phase goes on with fewer, which is said once."""
        self.stillborn += 1
        if self.stillborn <= STILLBORN:
            return
        why = _error_line(error) or str(error).strip().splitlines()[-1].rstrip(". ")
        if not self.nodes:
            raise CorpusmillError(f"{self.stage}: Ray can't start a worker process ({why}).") from error
        if self.stillborn == STILLBORN + 1:
            said = f"{self.stage}: Ray can't start more worker processes ({why}); it goes on with the {len(self.nodes)} that work."
            self.listener.on_event(Event("waiting", self.stage, self.phase, "", said))


def _cause(error: Exception) -> str:
    """Why a process died, in a few words; the whole of Ray's account goes to the run's log."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the machine ran out of memory: use fewer workers"
    return _error_line(error) or "killed from outside, or a crash in native code"


def _error_line(error: Exception) -> str:
    """The last line of a Ray error that names an exception (`ModuleNotFoundError: ...`), or nothing."""
    lines = [line.strip() for line in str(error).splitlines() if re.match(r"\s*[\w.]*(Error|Exception): ", line)]
    return lines[-1].rstrip(". ") if lines else ""
