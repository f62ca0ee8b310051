"""Tasks on Ray: one actor a worker, one piece after the other for each (`dispatch.py`).

Ray is started for this run alone where `RAY_ADDRESS` names no cluster (`ray job submit` sets it), and only when there is so much to do that
it pays: until then a few small pieces are performed in the calling process, which takes less than the seconds that Ray and its workers need
to come up. `RAY_ADDRESS=local` asks for such a Ray with its agents, for what is not pieces (`train/launch_ray.py`). Actors publish
files themselves: nothing but small records passes through the object store.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from corpusmill.pipeline.engine import TASK_TIMEOUT, InlineEngine, Job
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.interrupts import Terminated, kept_handler
from corpusmill.pipeline.on_ray import own
from corpusmill.pipeline.on_ray.dispatch import Dispatch
from corpusmill.pipeline.on_ray.messages import unheard
from corpusmill.pipeline.on_ray.own import LOCAL
from corpusmill.pipeline.on_ray.pool import STAY, Pool
from corpusmill.pipeline.on_ray.share import Share, share_out
from corpusmill.pipeline.retry import Listener
from corpusmill.pipeline.stage import Piece

ADDRESS = "RAY_ADDRESS"
#: Work that Ray is not started for: so few pieces of a phase, with so many bytes of input in all, and in all but the largest (what others
#: could do meanwhile).
FEW_PIECES, FEW_BYTES, FEW_BYTES_BESIDE = 4, 16 << 20, 1 << 20
#: Actors ask a cluster for memory in such steps, so that most phases can have those of the phase before.
STEP_MB = 1024
#: What makes Ray say nothing on the terminal: it keeps CUDA variables, and its own account of dead workers goes unprinted.
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}


class RayEngine:
    """Performs pieces on Ray actors. `workers=0` means one for each CPU: of the cluster, or of this machine. `task_timeout`: seconds for a
    task (`engine.task_limit`)."""

    def __init__(self, workers: int = 0, task_timeout: float = TASK_TIMEOUT):
        self.task_timeout = task_timeout
        self.workers = workers or os.cpu_count() or 1
        self._asked = workers
        self._started = False
        self._pool: Pool | None = None

    def perform(self, job: Job, pieces: Sequence[Piece], listener: Listener) -> None:
        if self._is_little(job, pieces):
            InlineEngine(self.task_timeout).perform(job, pieces, listener)
            return
        ray = self._connected()
        pool = None if job.gpus else self._pool
        if pool is None:
            self._free()

        def share() -> Share:
            self._count_workers(ray)
            return share_out(ray.nodes(), job.gpus, min(self.workers, len(pieces)))

        place = {} if _address() == LOCAL else _place(ray.nodes(), job.memory_mb)
        if _address() == LOCAL:
            job = replace(job, code=None)  # workers have this machine's
        dispatch = Dispatch(ray, job, pieces, share, listener, place, pool, self.task_timeout)
        try:
            dispatch.run()
        finally:
            dispatch.close()

    def _is_little(self, job: Job, pieces: Sequence[Piece]) -> bool:
        """Whether it is done here before a Ray of our own, which is not running yet, would have come up."""
        if self._started or _address() != LOCAL or job.gpus:
            return False
        sizes = [piece.size for piece in pieces]
        return len(pieces) <= FEW_PIECES and sum(sizes) <= FEW_BYTES and sum(sizes) - max(sizes) <= FEW_BYTES_BESIDE

    def known_workers(self) -> int | None:
        """A cluster is asked how many CPUs it has when it gets the first pieces."""
        return self.workers if self._asked or self._started or _address() == LOCAL else None

    def close(self) -> None:
        if self._started:
            import ray

            if self._pool is not None:
                self._pool.forget()
            ray.shutdown()
            self._started, self._pool = False, None

    def connect(self) -> Any:
        """The module `ray`, connected to the cluster, or to one of its own that this starts, of which all CPUs are free."""
        ray = self._connected()
        self._free()
        return ray

    def _free(self) -> None:
        """Ends workers that have no work."""
        if self._pool is not None:
            self._pool.clear()

    def _connected(self) -> Any:
        address = _address()
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if address == LOCAL:
            own.prepare()
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        import ray

        if self._started:
            return ray
        try:
            with kept_handler(), unheard(ray):  # Ray's own handler would end the process with nothing said
                if address == LOCAL:
                    own.start(ray, self.workers, agents=bool(os.environ.get(ADDRESS)))
                else:
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except SystemExit as end:  # SIGTERM meanwhile
            raise Terminated from end
        except Exception as error:
            raise _start_error(address, error) from error
        self._started = True
        self._pool = Pool(ray, None if address == LOCAL else STAY)
        self._count_workers(ray)
        return ray

    def _count_workers(self, ray: Any) -> None:
        """One for each CPU that the cluster has now: nodes come and go."""
        if _address() != LOCAL and not self._asked:
            self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))


def _place(nodes: Sequence[Mapping[str, Any]], memory_mb: int) -> dict[str, int]:
    """Ray's `memory` of an actor in bytes: in steps of `STEP_MB` where a node has so much; nothing where it is not known, or no node has
    even as much as asked: it would wait for ever."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    most = max((node.get("memory", 0) for node in alive if node.get("CPU")), default=0)
    steps = -(-memory_mb // STEP_MB) * STEP_MB
    return next(({"memory": wanted << 20} for wanted in (steps, memory_mb) if 0 < wanted << 20 <= most), {})


def _address() -> str:
    return os.environ.get(ADDRESS) or LOCAL


def _start_error(address: str, error: Exception) -> CorpusmillError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if address == LOCAL:
        return CorpusmillError(f"Ray can't be started on this machine ({reason}); --engine inline works without it.")
    if address.startswith(("http://", "https://")):
        return InputError(f"{ADDRESS}={address}: this is where jobs are submitted (make submit); a run started here needs HOST:6379.")
    return InputError(f"{ADDRESS}={address}: this Ray cluster can't be reached ({reason}).")
