"""Tasks on Ray: one actor a worker, one piece in flight for each; a piece whose process died is tried again.

Ray is started for this run alone where `RAY_ADDRESS` names no cluster (`ray job submit` sets it), and only when there is so much to do that
it pays: until then a few small pieces are performed in the calling process, which takes a tenth of the seconds that Ray and its workers
need to come up. Actors publish files themselves: nothing but small records passes through the object store.
"""

import contextlib
import logging
import os
import platform
import re
import secrets
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpusmill.pipeline.engine import Done, InlineEngine, Job, Performer
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.ray_share import Share, share_out
from corpusmill.pipeline.retry import AGAIN, Attempt, Cause, Failed, Listener, Tries, failure, named
from corpusmill.pipeline.stage import Piece
from corpusmill.pipeline.storage import is_remote

ADDRESS = "RAY_ADDRESS"
LOCAL = "local"
#: Work that Ray is not started for: so few pieces of a phase, with so many bytes of input in all, and in all but the largest (what others
#: could do meanwhile).
FEW_PIECES, FEW_BYTES, FEW_BYTES_BESIDE = 4, 16 << 20, 1 << 20
#: Object store of a Ray of our own, bytes: nearly unused, so the smallest that Ray takes.
OBJECT_STORE = 80 * 1024 * 1024
#: Seconds without a free CPU in the cluster after which the user is told what the run waits for.
PATIENCE = 20.0
#: Threads of a worker process: one for each CPU that it has, so one where as many workers as cores share the machine.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")

#: What makes Ray say nothing on the terminal: it keeps CUDA variables, and its own account of dead workers goes unprinted.
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}


class PieceActor:
    """Lives in a Ray worker process and performs one piece after another.

    It works in the folder in which the run was started, so that relative paths mean the same on a cluster.
    """

    def __init__(self, job: Job, folder: str, share: Share):
        os.environ.update(dict.fromkeys(THREADS, str(share.cpus)))  # before the stage's libraries are imported
        if job.gpus and not share.gpus:  # a GPU that Ray has not given belongs to others
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.job = job
        self.folder = folder
        self.performer: Performer | None = None

    def ready(self) -> None:
        """Answers as soon as the actor has a process."""

    def perform(self, attempt: Attempt) -> Done | Failed:
        if self.performer is None:
            try:
                self._enter_folder()
            except InputError as error:
                return failure(self.job.stage, attempt.piece, error, fatal=True)
            self.performer = Performer(self.job)
        return self.performer.perform(attempt)

    def _enter_folder(self) -> None:
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        elif not is_remote(self.job.run_root) and not Path(self.job.run_root).is_absolute():
            raise InputError(f"{self.job.run_root}: the node {platform.node()} has no {self.folder}, so give it paths that all nodes have.")


class RayEngine:
    """Performs pieces on Ray actors. `workers=0` means one for each CPU: of the cluster, or of this machine."""

    def __init__(self, workers: int = 0):
        self.workers = workers or os.cpu_count() or 1
        self._asked = workers
        self._started = False

    def perform(self, job: Job, pieces: Sequence[Piece], listener: Listener) -> None:
        if self._is_little(job, pieces):
            InlineEngine().perform(job, pieces, listener)
            return
        ray = self.connect()
        dispatch = _Dispatch(ray, job, pieces, share_out(ray.nodes(), job.gpus, min(self.workers, len(pieces))), listener)
        try:
            dispatch.run()
        finally:
            dispatch.close()

    def _is_little(self, job: Job, pieces: Sequence[Piece]) -> bool:
        """Whether it is done here before a Ray of our own, which is not running yet, would have come up."""
        if self._started or _address() != LOCAL or job.gpus:
            return False
        sizes = [sum(ref.bytes for ref in piece.inputs) for piece in pieces]
        return len(pieces) <= FEW_PIECES and sum(sizes) <= FEW_BYTES and sum(sizes) - max(sizes) <= FEW_BYTES_BESIDE

    def known_workers(self) -> int | None:
        """A cluster is asked how many CPUs it has when it gets the first pieces."""
        return self.workers if self._asked or self._started or _address() == LOCAL else None

    def close(self) -> None:
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def connect(self) -> Any:
        """The module `ray`, connected to the cluster, or to one of its own that this starts."""
        address = _address()
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if address == LOCAL:  # a token of our own: no other user gets in, and Ray writes none into the home folder
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        import ray

        if self._started:
            return ray
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        if address == LOCAL:
            options |= {"num_cpus": self.workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            ray.init(**options)
        except Exception as error:
            raise _start_error(address, error) from error
        self._started = True
        if address != LOCAL and not self._asked:
            self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        return ray


class _Dispatch:
    """Hands the pieces of one phase to actors. An actor for which the cluster has no room yet holds no piece,
    so the others can do all of the work."""

    def __init__(self, ray: Any, job: Job, pieces: Sequence[Piece], share: Share, listener: Listener):
        self.ray = ray
        self.share = share
        self.actor_class = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(PieceActor)
        self.job = ray.put(job)
        self.stage, self.phase = job.stage, job.phase
        self.listener = listener
        self.tries = Tries(job, listener, lambda _: False)
        self.waiting = deque(Attempt(piece) for piece in pieces)
        self.stillborn = 0  # actors that died before they had a piece
        self.actors: set[Any] = set()
        self.flying: dict[Any, tuple[Any, Attempt | None]] = {}  # an answer to come: whose, and to which piece (None: `ready`)

    def run(self) -> None:
        """Performs everything."""
        for _ in range(self.share.actors):
            self._add_actor()
        while self.waiting or any(piece for _, piece in self.flying.values()):
            ref = self._next_answer()
            actor, attempt = self.flying.pop(ref)
            try:
                answer: Done | Failed | None = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                self._bury(actor, attempt, error)
                continue
            if isinstance(answer, Failed) and attempt is not None:
                self._failed(attempt, answer)
            if self.waiting:
                self._call(actor, self.waiting.popleft())
            if isinstance(answer, Done):
                self.listener.on_done([answer])

    def close(self) -> None:
        for actor in self.actors:
            with contextlib.suppress(self.ray.exceptions.RayError):
                self.ray.kill(actor)

    def _add_actor(self) -> None:
        actor = self.actor_class.remote(self.job, str(Path.cwd()), self.share)
        self.actors.add(actor)
        self.flying[actor.ready.remote()] = (actor, None)

    def _call(self, actor: Any, attempt: Attempt) -> None:
        self.flying[actor.perform.remote(attempt)] = (actor, attempt)

    def _failed(self, attempt: Attempt, failed: Failed) -> None:
        if again := self.tries.again(attempt, failed):
            self.waiting.appendleft(again)

    def _next_answer(self) -> Any:
        idle = not any(piece for _, piece in self.flying.values())
        while True:
            ready, _ = self.ray.wait(list(self.flying), num_returns=1, timeout=PATIENCE if idle else None)
            if ready:
                return ready[0]
            said = "waiting for Ray to start a worker process (is a CPU of the cluster free?) ..."
            self.listener.on_event(Event("waiting", self.stage, self.phase, "", said))

    def _bury(self, actor: Any, attempt: Attempt | None, error: Exception) -> None:
        """Replaces a dead actor and says that its piece has failed; raises where actors die before they have one."""
        self.actors.discard(actor)
        cause = _cause(error)
        if attempt is None:
            self.stillborn += 1
            if self.stillborn > AGAIN[Cause.DEATH]:
                cause = _error_line(error) or str(error).strip().splitlines()[-1].rstrip(". ")
                raise CorpusmillError(f"{self.stage}: Ray can't start a worker process ({cause}).") from error
        else:
            piece = attempt.piece
            said = f"{self.stage}, task {piece.key} ({named(piece)}): its process died ({cause})."
            self._failed(attempt, Failed(piece.key, said, 1, str(error), Cause.DEATH))
        self._add_actor()


def _address() -> str:
    return os.environ.get(ADDRESS) or LOCAL


def _cause(error: Exception) -> str:
    """Why a process died, in a few words; the whole of Ray's account goes to the run's log."""
    if type(error).__name__ == "OutOfMemoryError":
        return "the machine ran out of memory: use fewer workers"
    return _error_line(error) or "killed from outside, or a crash in native code"


def _error_line(error: Exception) -> str:
    """The last line of a Ray error that names an exception (`ModuleNotFoundError: ...`), or nothing."""
    lines = [line.strip() for line in str(error).splitlines() if re.match(r"\s*[\w.]*(Error|Exception): ", line)]
    return lines[-1].rstrip(". ") if lines else ""


def _start_error(address: str, error: Exception) -> CorpusmillError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if address == LOCAL:
        return CorpusmillError(f"Ray can't be started on this machine ({reason}); --engine inline works without it.")
    if address.startswith(("http://", "https://")):
        return InputError(f"{ADDRESS}={address}: this is where jobs are submitted (make submit); a run started here needs HOST:6379.")
    return InputError(f"{ADDRESS}={address}: this Ray cluster can't be reached ({reason}).")
