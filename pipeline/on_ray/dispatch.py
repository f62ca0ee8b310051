"""Hands the pieces of one phase to Ray actors: the largest first, what failed again, and each actor as long as it has work."""

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpusmill.pipeline.engine import Done, Job
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.on_ray.actor import PieceActor
from corpusmill.pipeline.on_ray.pool import Pool
from corpusmill.pipeline.on_ray.share import Share
from corpusmill.pipeline.retry import AGAIN, Attempt, Cause, Failed, Listener, Tries, named
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.watch.events import Event

#: Seconds without a free CPU in the cluster after which the user is told what the run waits for.
PATIENCE = 20.0
#: Seconds after which the cluster is asked again whether it has grown.
GROWTH = 10.0
#: Small pieces of which several go in one call: so many at most, with so many bytes of input in all, and while each actor has so many
#: calls more before it.
TOGETHER, TOGETHER_BYTES, CALLS_LEFT = 16, 1 << 20, 8


class Dispatch:
    """An actor for which the cluster has no room yet holds no piece, so the others can do all of the work. `ask_share`: what the cluster
    has for this phase now; `place`: further options of the actors (Ray's `memory`, bytes); `pool`: where actors come from, and go to when
    they have no work; None: they are made for this phase, and end with it."""

    def __init__(
        self,
        ray: Any,
        job: Job,
        pieces: Sequence[Piece],
        ask_share: Callable[[], Share],
        listener: Listener,
        place: dict[str, int],
        pool: Pool | None = None,
    ):
        self.ray, self.ask_share, self.listener, self.place, self.pool = ray, ask_share, listener, place, pool
        self.share, self.asked = ask_share(), time.monotonic()
        self.actor_class = ray.remote(num_cpus=self.share.cpus, num_gpus=self.share.gpus, max_restarts=0, **place)(PieceActor)
        self.stage, self.phase = job.stage, job.phase
        self.job = ray.put(job)
        self.tries = Tries(job, listener)
        largest_first = sorted(pieces, key=lambda piece: -piece.size)
        self.waiting = deque(Attempt(piece) for piece in largest_first)
        self.alone: deque[Attempt] = deque()  # what is done when nothing else is
        self.stillborn = 0  # actors that died before they had a piece, since the last that had one
        self.actors: set[Any] = set()
        self.pooled: set[Any] = set()  # those of them that have worked for another phase
        self.flying: dict[Any, tuple[Any, list[Attempt]]] = {}  # an answer to come: whose, and to what (nothing: `ready`, `begin`)

    def run(self) -> None:
        """Performs everything."""
        self._add_actors()
        while self.waiting or self.alone or self._busy():
            finished: list[Done] = []
            troubled: list[tuple[Any, list[Done | Failed] | Exception]] = []
            for ref in self._answers():
                answers = self._answer(ref)
                if isinstance(answers, list):
                    finished += [answer for answer in answers if isinstance(answer, Done)]
                    if not any(isinstance(answer, Failed) for answer in answers):
                        self._go_on(*self.flying.pop(ref), answers)
                        continue
                troubled.append((ref, answers))
            if finished:
                self.listener.on_done(finished)
            for ref, answers in troubled:  # which may end the phase, so behind what was done
                if isinstance(answers, list):
                    self._go_on(*self.flying.pop(ref), answers)
                else:
                    self._bury(*self.flying.pop(ref), answers)
            self._grow()
            self._add_actors()
        for actor, _ in self.flying.values():  # asked too late; a new one may still wait for room, which nobody needs any more
            if actor in self.pooled:
                self._let_go(actor)

    def close(self) -> None:
        for actor in list(self.actors):
            self._release(actor)

    def _answer(self, ref: Any) -> list[Done | Failed] | Exception:
        """What a call has given; the error of an actor that has died."""
        try:
            answers: list[Done | Failed] = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            return error
        return answers

    def _go_on(self, actor: Any, attempts: list[Attempt], answers: Sequence[Done | Failed]) -> None:
        """What follows from an actor's answers: pieces that are done again, and its next ones."""
        if not attempts:
            self.stillborn = 0
        self.waiting.extendleft(reversed(attempts[len(answers) :]))  # there was no time for them
        for attempt, answer in zip(attempts, answers, strict=False):
            if isinstance(answer, Failed):
                self._again(attempt, answer)
        self._next(actor)

    def _busy(self) -> int:
        """How many calls are in flight."""
        return sum(bool(attempts) for _, attempts in self.flying.values())

    def _grow(self) -> None:
        """Makes room for more actors where the cluster has grown; what each of them takes stays."""
        if self.waiting and time.monotonic() - self.asked > GROWTH:
            now, self.asked = self.ask_share(), time.monotonic()
            if now.gpus == self.share.gpus and now.actors > self.share.actors:
                self.share = replace(self.share, actors=now.actors)

    def _add_actors(self) -> None:
        """As many as there is work for: what failed may come when actors have gone already."""
        wanted = min(self.share.actors, len(self.waiting) or bool(self.alone and not self._busy()))
        unready = sum(not attempts for _, attempts in self.flying.values())
        for _ in range(min(wanted - unready, self.share.actors - len(self.actors))):
            actor, ready = self._actor()
            self.actors.add(actor)
            self.flying[ready] = (actor, [])

    def _actor(self) -> tuple[Any, Any]:
        """One that has no work, and its answer to come."""
        folder = str(Path.cwd())
        if self.pool is not None and (actor := self.pool.take(self.place.get("memory", 0))) is not None:
            self.pooled.add(actor)
            return actor, actor.begin.remote(self.job, folder)
        actor = self.actor_class.remote(self.job, folder, self.share)
        return actor, actor.ready.remote()

    def _next(self, actor: Any) -> None:
        """Gives an actor its next pieces, or lets it go."""
        attempts = self._take()
        if attempts:
            self.flying[self._perform(actor).remote(attempts)] = (actor, attempts)
        else:
            self._let_go(actor)

    def _perform(self, actor: Any) -> Any:
        """The call under a name by which people find it in Ray's dashboard. Tasks are named in the worker's log: Ray counts calls by name,
        and never forgets one, which made 17 KB of the driver's memory a task."""
        return actor.perform.options(name=f"{self.stage} {self.phase}".rstrip())

    def _take(self) -> list[Attempt]:
        """What goes in one call: pieces that failed before go by themselves, and those that are done alone wait for all others."""
        if not self.waiting:
            return [self.alone.popleft()] if self.alone and not self._busy() else []
        most = min(TOGETHER, len(self.waiting) // (CALLS_LEFT * self.share.actors))
        attempts = [self.waiting.popleft()]
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
            self.pool.give(actor, self.place.get("memory", 0))

    def _release(self, actor: Any) -> None:
        self.actors.discard(actor)
        if self.pool is not None:
            self.pool.lost(actor)
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(actor)

    def _answers(self) -> list[Any]:
        """All answers that are there, as soon as there is one."""
        idle = not self._busy()
        while True:
            ready, _ = self.ray.wait(list(self.flying), num_returns=1, timeout=PATIENCE if idle else None)
            if ready:
                return self.ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)[0] or ready
            said = f"waiting for Ray to start a worker process (has a node of the cluster {self._needs()} free?) ..."
            self.listener.on_event(Event("waiting", self.stage, self.phase, "", said))

    def _needs(self) -> str:
        """What an actor takes of a node, in words."""
        needs = ["a CPU" if self.share.cpus == 1 else f"{self.share.cpus} CPUs"]
        needs += [f"{self.share.gpus:g} GPU"] if self.share.gpus else []
        needs += [f"{self.place['memory'] >> 20} MB of Ray's memory"] if "memory" in self.place else []
        return " and ".join(needs)

    def _again(self, attempt: Attempt, failed: Failed) -> None:
        if again := self.tries.again(attempt, failed):
            if again.alone:
                self.alone.append(again)
                if self.pool is not None:
                    self.pool.clear()
            else:
                self.waiting.appendleft(again)

    def _bury(self, actor: Any, attempts: list[Attempt], error: Exception) -> None:
        """Says that an actor's piece has failed, or, of several, does each by itself, since any may have killed it. Raises where actors
        die before they have a piece."""
        self._release(actor)
        cause = _cause(error)
        if not attempts:
            self.stillborn += actor not in self.pooled
            if self.stillborn > AGAIN[Cause.DEATH]:
                cause = _error_line(error) or str(error).strip().splitlines()[-1].rstrip(". ")
                raise CorpusmillError(f"{self.stage}: Ray can't start a worker process ({cause}).") from error
        elif len(attempts) > 1:
            self.waiting.extendleft(attempt.by_itself() for attempt in reversed(attempts))
        else:
            piece = attempts[0].piece
            kind = Cause.MEMORY if type(error).__name__ == "OutOfMemoryError" else Cause.DEATH
            said = f"{self.stage}, task {piece.key} ({named(piece)}): its process died ({cause})."
            self._again(attempts[0], Failed(piece.key, said, 1, str(error), kind))


def _cause(error: Exception) -> str:
    """Why a process died, in a few words; the whole of Ray's account goes to the run's log."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the machine ran out of memory: use fewer workers"
    return _error_line(error) or "killed from outside, or a crash in native code"


def _error_line(error: Exception) -> str:
    """The last line of a Ray error that names an exception (`ModuleNotFoundError: ...`), or nothing."""
    lines = [line.strip() for line in str(error).splitlines() if re.match(r"\s*[\w.]*(Error|Exception): ", line)]
    return lines[-1].rstrip(". ") if lines else ""
