"""What lives in a Ray worker process: it performs one piece after another, and publishes their files itself."""

import contextlib
import gc
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from corpusmill.pipeline.code import check_here
from corpusmill.pipeline.collecting import collect_seldom
from corpusmill.pipeline.engine import Done, Job, Performer
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.memory import forget_peak, release_memory
from corpusmill.pipeline.on_ray.share import Share
from corpusmill.pipeline.retry import Attempt, Failed, failure
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import is_remote
from corpusmill.pipeline.watch.log import utc_now

#: Threads of a worker process: one for each CPU that it has, so one where as many workers as cores share the machine.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
#: After so many seconds the driver hears of what is done, whatever else was in the same call.
SECONDS_TOGETHER = 1.0


class PieceActor:
    """It works in the folder in which the run was started, so that relative paths mean the same on a cluster."""

    def __init__(self, job: Job, folder: str, share: Share):
        collect_seldom()
        os.environ.update(dict.fromkeys(THREADS, str(share.cpus)))  # before the stage's libraries are imported
        if job.gpus and not share.gpus:  # a GPU that Ray has not given belongs to others
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.job = job
        self.folder = folder
        self.performer: Performer | None = None

    def __repr__(self) -> str:
        """How Ray's logs and dashboard call it."""
        return f"corpusmill {self.job.stage} {self.job.phase}".rstrip()

    def ready(self) -> str:
        """Answers as soon as the actor has a process: with Ray's id of the node on which that is."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def rest(self) -> None:
        """Lets go of everything of a phase that is done: models, and processes beside this one."""
        if self.performer is not None:
            self.performer.close()
            self.performer = None
        release_memory()
        gc.freeze()  # libraries, which the next time need not be looked through again

    def begin(self, job: Job, folder: str) -> str:
        """Works for another phase from now on; answers as `ready`."""
        self.job, self.folder = job, folder
        forget_peak()
        return self.ready()

    def perform(self, attempts: list[Attempt]) -> list[Done | Failed]:
        """What became of each, in order; the first at least, and of further ones as many as were begun in time."""
        if self.performer is None:
            try:
                self._enter_folder()
                self._check_code()
            except InputError as error:
                return [failure(self.job.stage, attempt.piece, error, fatal=True) for attempt in attempts]
            self.performer = Performer(self.job)
        answers, until = [self._perform(attempts[0])], time.monotonic() + SECONDS_TOGETHER
        for attempt in attempts[1:]:
            if time.monotonic() > until:
                break
            answers.append(self._perform(attempt))
        return answers

    def _perform(self, attempt: Attempt) -> Done | Failed:
        """Says in the worker's own log, which Ray's dashboard shows, what is done for which run."""
        assert self.performer is not None
        where = {"run": self.job.run_root, "stage": self.job.stage, "phase": self.job.phase, "task": attempt.piece.key}
        self._log(where, "begins", parts=attempt.parts)
        answer = self.performer.perform(attempt)
        if isinstance(answer, Done):
            self._log(where, "done", seconds=round(answer.seconds, 3), rows_in=answer.rows_in, bytes_in=answer.bytes_in)
        else:
            self._log(where, "failed", cause=answer.cause.value, message=answer.message)
        return answer

    def _log(self, where: dict[str, str], event: str, **fields: Any) -> None:
        print(json.dumps({"time": utc_now(), "event": event, **where, **fields}, ensure_ascii=False), flush=True)

    def _enter_folder(self) -> None:
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        elif not is_remote(self.job.run_root) and not Path(self.job.run_root).is_absolute():
            raise InputError(f"{self.job.run_root}: the node {platform.node()} has no {self.folder}, so give it paths that all nodes have.")

    def _check_code(self) -> None:
        """Other code may write other bytes. On this machine it is the driver's own, so it is not asked for."""
        if self.job.code is None:
            return
        with contextlib.suppress(ImportError):  # a worker's module that is not there is reported by whoever makes the worker
            load_object(self.job.worker)
            check_here(self.job.code)
