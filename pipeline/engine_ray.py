"""Tasks on Ray: one actor a worker, a bounded number of pieces in flight, restarted when it dies.

Ray is started locally where no cluster is named (`RAY_ADDRESS`, or a job of `ray job submit`), and only when
there is work to do. Actors publish files themselves: nothing but small records passes through the object store.
"""

import contextlib
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from corpusmill.pipeline.engine import Done, Failed, Job, Performer
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.stage import Piece

#: Pieces handed to an actor before its first answer: one at work, one waiting.
IN_FLIGHT = 2
#: How often a piece is tried again after its process died (killed, out of memory).
RETRIES = 3
#: Local object store, bytes: nearly unused, so the smallest that Ray takes.
OBJECT_STORE = 80 * 1024 * 1024
#: One thread a worker process: as many workers as cores already share the machine.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class RayEngine:
    """Performs pieces on Ray actors. `workers=0` means one for each CPU of the cluster."""

    def __init__(self, workers: int = 0):
        self.workers = workers or os.cpu_count() or 1
        self._asked = workers
        self._started = False

    def _start(self) -> Any:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # keep CUDA variables, silence the notice
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        import ray

        if self._started:
            return ray
        address = os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if not address:
            options |= {"num_cpus": self.workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            ray.init(**options)
        except Exception as error:  # whatever Ray raises, the user needs one sentence
            where = f"the Ray cluster at {address} can't be reached" if address else "Ray can't be started here"
            raise CorpusmillError(f"{where} ({str(error).splitlines()[0]}).") from error
        if address and not self._asked:
            self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._started = True
        return ray

    def perform(self, job: Job, pieces: Sequence[Piece], on_done: Callable[[Done], None]) -> Failed | None:
        ray = self._start()
        actor_class = ray.remote(num_cpus=1, max_restarts=RETRIES, max_task_retries=RETRIES, runtime_env={"env_vars": ONE_THREAD})(
            Performer
        )
        actors = [actor_class.remote(job) for _ in range(min(self.workers, len(pieces)))]
        waiting = deque(pieces)
        flying: dict[Any, tuple[Any, Piece]] = {}
        try:
            for _ in range(IN_FLIGHT):
                for actor in actors:
                    if waiting:
                        piece = waiting.popleft()
                        flying[actor.perform.remote(piece)] = (actor, piece)
            while flying:
                ready, _ = ray.wait(list(flying), num_returns=1)
                actor, piece = flying.pop(ready[0])
                result = self._result(ray, job, piece, ready[0])
                if isinstance(result, Failed):
                    return result
                on_done(result)
                if waiting:
                    piece = waiting.popleft()
                    flying[actor.perform.remote(piece)] = (actor, piece)
            return None
        finally:
            for actor in actors:
                with contextlib.suppress(Exception):
                    ray.kill(actor)

    @staticmethod
    def _result(ray: Any, job: Job, piece: Piece, ref: Any) -> Done | Failed:
        try:
            result: Done | Failed = ray.get(ref)
            return result
        except ray.exceptions.RayError as error:
            where = ", ".join(i.path for i in piece.inputs[:3])
            message = f"{job.stage}, task {piece.key} ({where}): its process died {RETRIES + 1} times ({type(error).__name__})."
            return Failed(piece.key, message, 1, str(error))

    def close(self) -> None:
        if self._started:
            import ray

            ray.shutdown()
            self._started = False
