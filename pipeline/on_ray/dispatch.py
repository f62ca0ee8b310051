"""Hands the tasks of one phase to worker processes, the largest first, each as soon as a worker is free. Failed tasks come again.

`Dispatch` runs in the driver. A `TaskActor` lives in a Ray worker process; it performs one task after another and publishes their files.
"""

import contextlib
import json
import os
import platform
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corpusmill.pipeline.code import check_here
from corpusmill.pipeline.engine import TASK_TIMEOUT, Job, Performer, TaskDone, task_limit
from corpusmill.pipeline.errors import ClusterLost, CorpusmillError, InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.failures import Attempt, Cause, Failed, Report, Tries, failure, hang, named
from corpusmill.pipeline.memory import forget_peak, release_memory
from corpusmill.pipeline.stage import Task, load_object
from corpusmill.pipeline.storage import is_remote
from corpusmill.pipeline.watch.log import utc_now

#: Seconds without a free CPU in the cluster, after which a message says what the run waits for.
PATIENCE = 20.0
#: The most seconds without a look at the clocks and at the cluster's head.
LOOK = 5.0
#: Seconds between two questions whether the cluster has grown.
GROWTH = 10.0
#: Seconds after a task's time limit in which its worker may report where the task hangs, before the worker is killed.
GRACE = 60.0
#: Workers in a row that may die before they are ready. After one more, no further worker is started.
MOST_FAILED_STARTS = 3
#: Environment variables for the number of threads of a worker's libraries: as many as the worker has CPUs.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Share:
    """What a phase gets of a cluster: `actors` workers, each with `cpus` CPUs (and threads) and the share `gpus` of a GPU."""

    actors: int
    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Call:
    """A call to an actor, and the time (monotonic) by which the actor has to answer. A call without an attempt asks whether it is ready."""

    actor: Any
    attempt: Attempt | None
    until: float = float("inf")


# ---- in the driver ----------------------------------------------------------------------------------


class Dispatch:
    """Performs the tasks of one phase on actors. An actor gets tasks only when it is ready, so one that waits for room delays no task.

    `ask_share`: returns what the cluster has for this phase now. `memory`: bytes of Ray's `memory` for each actor. `idle`: actors of
    earlier phases with their memory, to be reused and given back; None: actors are made for this phase and end with it. `check_head`
    raises ClusterLost where the cluster is gone.
    """

    def __init__(
        self,
        ray: Any,
        job: Job,
        tasks: Sequence[Task],
        ask_share: Callable[[], Share],
        report: Report,
        memory: int = 0,
        idle: dict[Any, int] | None = None,
        task_timeout: float = TASK_TIMEOUT,
        check_head: Callable[[], None] | None = None,
    ):
        self.check_head, self.lost = check_head, False
        self.ray, self.ask_share, self.report, self.memory, self.idle = ray, ask_share, report, memory, idle
        self.share, self.asked = ask_share(), time.monotonic()
        place = {"memory": memory} if memory else {}
        self.actor_class = ray.remote(num_cpus=self.share.cpus, num_gpus=self.share.gpus, max_restarts=0, **place)(TaskActor)
        self.stage, self.phase = job.stage, job.phase
        self.job = ray.put(job)
        self.tries = Tries(job, report)
        self.task_timeout = task_timeout
        largest_first = sorted(tasks, key=lambda task: -task.size)
        self.waiting = deque(Attempt(task, task_limit(task, task_timeout)) for task in largest_first)
        self.alone: deque[Attempt] = deque()  # attempts that must run while no other task does
        self.failed_starts = 0  # actors that died before they were ready, since the last one that became ready
        self.actors: dict[Any, int] = {}  # with the memory of each (bytes)
        self.nodes: dict[Any, str] = {}  # Ray's node id of each actor that is ready
        self.reused: set[Any] = set()  # actors that have worked for an earlier phase
        self.answered = time.monotonic()  # when an actor answered last
        self.in_flight: dict[Any, Call] = {}  # calls without an answer so far, by Ray's reference to the answer

    def run(self) -> None:
        """Performs all tasks."""
        self._add_actors()
        while self.waiting or self.alone or self._busy():
            answers = self._answers()
            self._check_cluster()
            self._hear(answers)
            self._end_overdue()
            self._grow()
            self._add_actors()
        for call in self.in_flight.values():  # actors that were not ready before the tasks were done; `close` ends the new ones
            if call.actor in self.reused:
                self._release(call.actor)

    def close(self) -> None:
        for actor in [] if self.lost else list(self.actors):
            self._end(actor)

    def _check_cluster(self) -> None:
        """Raises ClusterLost before Ray is asked anything that it would wait for until it ends this process."""
        try:
            if self.check_head:
                self.check_head()
        except ClusterLost:
            self.lost = True
            raise

    def _busy(self) -> int:
        """Returns how many tasks are in flight."""
        return sum(call.attempt is not None for call in self.in_flight.values())

    # ---- answers ----

    def _answers(self) -> list[Any]:
        """Waits for an answer, and returns all that are there; none where a call's time limit, or LOOK, is over first."""
        refs = list(self.in_flight)
        left = min(call.until for call in self.in_flight.values()) - time.monotonic()
        ready, _ = self.ray.wait(refs, num_returns=1, timeout=max(0.0, min(LOOK, left)))
        if ready:
            self.answered = time.monotonic()
            return self.ray.wait(refs, num_returns=len(refs), timeout=0)[0] or ready
        if not self._busy() and left > LOOK and time.monotonic() - self.answered > PATIENCE:
            self.answered = time.monotonic()  # the next message comes after as long again
            needs = ["a CPU" if self.share.cpus == 1 else f"{self.share.cpus} CPUs"]
            needs += [f"{self.share.gpus:g} GPU"] if self.share.gpus else []
            needs += [f"{self.memory >> 20} MB of Ray's memory"] if self.memory else []
            message = f"waiting for Ray to start a worker process (has a node of the cluster {' and '.join(needs)} free?) ..."
            self.report(Event("waiting", self.stage, self.phase, message=message, level="warning"))
        return []

    def _hear(self, refs: Iterable[Any]) -> None:
        """Handles answers. Finished tasks are recorded before a failure that came at the same time may end the phase."""
        finished: list[TaskDone] = []
        troubled: list[tuple[Any, Failed | Exception]] = []  # still in flight, so that no task runs alone before they are handled
        for ref in refs:
            answer = self._answer(ref)
            if isinstance(answer, Failed | Exception):
                troubled.append((ref, answer))
                continue
            actor = self.in_flight.pop(ref).actor
            if isinstance(answer, TaskDone):
                finished.append(answer)
            else:
                self.failed_starts, self.nodes[actor] = 0, answer
            self._next(actor)
        for done in finished:
            self.report(done)
        for ref, answer in troubled:
            call = self.in_flight.pop(ref)
            if isinstance(answer, Exception):
                self._handle_death(call, answer)
                continue
            assert call.attempt is not None
            self._again(call.attempt, answer, self.nodes[call.actor])
            if answer.cause is Cause.HANG:
                self._end(call.actor)  # interrupted at any place, it may be inconsistent
            else:
                self._next(call.actor)

    def _answer(self, ref: Any) -> str | TaskDone | Failed | Exception:
        """Returns the node of an actor that is ready, the result of a task, or the error of an actor that has died."""
        try:
            answer: str | TaskDone | Failed = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            return error
        return answer

    def _again(self, attempt: Attempt, failed: Failed, node: str) -> None:
        if again := self.tries.again(replace(attempt, node=node), failed):
            if again.alone:
                self.alone.append(again)
                while self.idle:
                    self._kill(self.idle.popitem()[0])  # so that the task can have all memory
            else:
                self.waiting.appendleft(again)

    def _end_overdue(self) -> None:
        """Kills actors that have not answered in time: nothing else interrupts native code."""
        now = time.monotonic()
        for ref in [ref for ref, call in self.in_flight.items() if call.until <= now]:
            call = self.in_flight.pop(ref)
            node = self.nodes.get(call.actor, "")
            self._end(call.actor)
            if call.attempt:
                self._again(call.attempt, hang(self.stage, call.attempt.task, call.attempt.limit), node)

    def _handle_death(self, call: Call, error: Exception) -> None:
        """Handles the death of an actor. Raises where no actor can be started."""
        node = self.nodes.get(call.actor, "")
        self._end(call.actor)
        lost = self._is_lost(node, error)
        if call.attempt is None:
            if not lost and call.actor not in self.reused:
                self._count_failed_start(error)
            return
        cause = Cause.NODE if lost else Cause.MEMORY if type(error).__name__ == "OutOfMemoryError" else Cause.DEATH
        why = "the node on which it was done is gone" if lost else f"its process died ({_why_died(error)})"
        task = call.attempt.task
        message = f"{self.stage}, task {task.key} ({named(task)}): {why}."
        self._again(call.attempt, Failed(task.key, message, 1, str(error), cause), node)

    def _is_lost(self, node: str, error: Exception) -> bool:
        """Whether an actor has died because its node was lost. `node` is empty where it is not known."""
        if not node:
            return "node has died" in str(error)
        return getattr(error, "preempted", False) or all(each["NodeID"] != node for each in self.ray.nodes() if each["Alive"])

    def _count_failed_start(self, error: Exception) -> None:
        """Counts an actor that died before it was ready. Where others work, the phase goes on with those, and one event says so."""
        self.failed_starts += 1
        if self.failed_starts <= MOST_FAILED_STARTS:
            return
        why = _error_line(error) or str(error).strip().splitlines()[-1].rstrip(". ")
        if not self.nodes:
            raise CorpusmillError(f"{self.stage}: Ray can't start a worker process ({why}).") from error
        if self.failed_starts == MOST_FAILED_STARTS + 1:
            message = f"{self.stage}: Ray can't start more worker processes ({why}); it goes on with the {len(self.nodes)} that work."
            self.report(Event("waiting", self.stage, self.phase, message=message, level="warning"))

    # ---- actors ----

    def _grow(self) -> None:
        """Allows more actors where the cluster has grown. The CPUs and GPUs of each actor stay the same."""
        if self.waiting and time.monotonic() - self.asked > GROWTH:
            now, self.asked = self.ask_share(), time.monotonic()
            if now.gpus == self.share.gpus and now.actors > self.share.actors:
                self.share = replace(self.share, actors=now.actors)

    def _add_actors(self) -> None:
        """Adds as many actors as there are tasks for: a failed task may come back after actors have gone. Adds none where some work and
        more than MOST_FAILED_STARTS have died before they were ready."""
        if self.failed_starts > MOST_FAILED_STARTS and self.nodes:
            return
        wanted = min(self.share.actors, len(self.waiting) or bool(self.alone and not self._busy()))
        unready = len(self.in_flight) - self._busy()
        for _ in range(min(wanted - unready, self.share.actors - len(self.actors))):
            self._add_actor()

    def _add_actor(self) -> None:
        """Reuses an idle actor or makes a new one, which may wait without limit for room in the cluster."""
        folder = str(Path.cwd())
        if (actor := self._take_idle()) is not None:
            self.reused.add(actor)
            self._call(actor.begin.remote(self.job, folder), actor, None, self.task_timeout)
        else:
            actor = self.actor_class.remote(self.job, folder, self.share)
            self.actors[actor] = self.memory
            self._call(actor.ready.remote(), actor, None, 0.0)

    def _take_idle(self) -> Any | None:
        """Returns an idle actor with enough memory (it may have died meanwhile). None if there is none: then it ends one with less
        memory, to make room."""
        if not self.idle:
            return None
        for actor, memory in self.idle.items():
            if memory >= self.memory:
                self.actors[actor] = self.idle.pop(actor)
                return actor
        self._kill(self.idle.popitem()[0])
        return None

    def _call(self, ref: Any, actor: Any, attempt: Attempt | None, limit: float) -> None:
        """Registers a call, which has to be answered within `limit` seconds and a grace period (0: without limit)."""
        self.in_flight[ref] = Call(actor, attempt, time.monotonic() + limit + min(limit, GRACE)) if limit else Call(actor, attempt)

    def _next(self, actor: Any) -> None:
        """Gives an actor its next task; without one, `_release`."""
        attempt = self._take(self.nodes[actor])
        if attempt is None:
            self._release(actor)
            return
        limit = attempt.limit + attempt.pause if self.task_timeout else 0.0
        # Ray's dashboard shows this name. It names the phase and not the task, since Ray keeps a count for each name for ever.
        name = f"{self.stage} {self.phase}".rstrip()
        self._call(actor.perform.options(name=name).remote(attempt), actor, attempt, limit)

    def _take(self, node: str) -> Attempt | None:
        """Returns the next task for an actor on `node`. A failed task goes to another node than before if there is one. A task that must
        run alone is taken only when no other task waits or runs."""
        if not self.waiting:
            return self.alone.popleft() if self.alone and not self._busy() else None
        place = 0
        if len(set(self.nodes.values())) > 1:
            place = next((place for place, attempt in enumerate(self.waiting) if attempt.node != node), 0)
        attempt = self.waiting[place]
        del self.waiting[place]
        return attempt

    def _release(self, actor: Any) -> None:
        """Keeps an actor without work for the next phase. Ends it where the phase does not reuse actors, and where a task that runs
        alone needs all memory."""
        if self.idle is None or self.alone:
            self._end(actor)
            return
        self.nodes.pop(actor, None)
        actor.rest.remote()
        self.idle[actor] = self.actors.pop(actor)

    def _end(self, actor: Any) -> None:
        self.actors.pop(actor, None)
        self.nodes.pop(actor, None)
        self._kill(actor)

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(actor)


def _why_died(error: Exception) -> str:
    """Returns in a few words why a process died. Ray's full report goes to the run's log."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the machine ran out of memory: use fewer workers"
    return _error_line(error) or "killed from outside, or a crash in native code"


def _error_line(error: Exception) -> str:
    """Returns the last line of a Ray error that names an exception (`ModuleNotFoundError: ...`); empty where there is none."""
    lines = [line.strip() for line in str(error).splitlines() if re.match(r"\s*[\w.]*(Error|Exception): ", line)]
    return lines[-1].rstrip(". ") if lines else ""


# ---- in a worker process ----------------------------------------------------------------------------


class TaskActor:
    """Performs tasks in a Ray worker process, in the folder in which the run was started: relative paths mean the same everywhere."""

    def __init__(self, job: Job, folder: str, share: Share):
        os.environ.update(dict.fromkeys(THREADS, str(share.cpus)))  # before the stage's libraries are imported
        if job.gpus and not share.gpus:  # Ray has given this worker no GPU: hides those of others
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.job = job
        self.folder = folder
        self.performer: Performer | None = None

    def __repr__(self) -> str:
        """The name in Ray's logs and dashboard."""
        return f"corpusmill {self.job.stage} {self.job.phase}".rstrip()

    def ready(self) -> str:
        """Returns Ray's id of the actor's node, as soon as the actor has a process."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def rest(self) -> None:
        """Releases the models and child processes of a finished phase."""
        if self.performer is not None:
            self.performer.close()
            self.performer = None
        release_memory()

    def begin(self, job: Job, folder: str) -> str:
        """Makes the actor work for another phase. Returns as `ready`."""
        self.job, self.folder = job, folder
        forget_peak()
        return self.ready()

    def perform(self, attempt: Attempt) -> TaskDone | Failed:
        """Performs a task. Logs its begin and end to the worker's log, which Ray's dashboard shows."""
        if self.performer is None:
            try:
                self._enter_folder()
                self._check_code()
            except InputError as error:
                return failure(self.job.stage, attempt.task, error, fatal=True)
            self.performer = Performer(self.job)
        self._log(attempt, "begins", parts=attempt.parts)
        answer = self.performer.perform(attempt)
        if isinstance(answer, TaskDone):
            self._log(attempt, "done", seconds=round(answer.seconds, 3), rows_in=answer.rows_in, bytes_in=answer.bytes_in)
        else:
            self._log(attempt, "failed", cause=answer.cause.value, message=answer.message)
        return answer

    def _log(self, attempt: Attempt, event: str, **fields: Any) -> None:
        where = {"run": self.job.run_root, "stage": self.job.stage, "phase": self.job.phase, "task": attempt.task.key}
        print(json.dumps({"time": utc_now(), "event": event, **where, **fields}, ensure_ascii=False), flush=True)

    def _enter_folder(self) -> None:
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        elif not is_remote(self.job.run_root) and not Path(self.job.run_root).is_absolute():
            raise InputError(f"{self.job.run_root}: the node {platform.node()} has no {self.folder}, so give it paths that all nodes have.")

    def _check_code(self) -> None:
        """Raises InputError if this node has other code, which may write other bytes. A job without `code` runs on the driver's
        machine, so there is nothing to compare."""
        if self.job.code is None:
            return
        with contextlib.suppress(ImportError):  # making the worker reports a missing module
            load_object(self.job.worker)
            check_here(self.job.code)
