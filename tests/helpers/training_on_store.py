"""Trains on a store in a process of its own, which may kill itself. It is no fork: a fork can't use the store that its parent has used."""

import multiprocessing
import os
import signal
from typing import Any

from launch_runs import PRETRAIN
from stage_runs import perform

from corpusmill.pipeline.storage import Storage
from corpusmill.train import pretrain_job
from corpusmill.train.pretrain import PretrainStage

EARLIER = ("ingest", "tokenizer", "tokens")
ONE = {
    **PRETRAIN,
    "model": {**PRETRAIN["model"], "context": 128},
    "loop": {**PRETRAIN["loop"], "threads": 1, "async_save": False},
    "parallel": {},
}
PRETRAINING = PretrainStage(PretrainStage.Config.model_validate(ONE))


def exit_code(run: Storage, patch: str) -> int | None:
    """Returns the exit code (less than 0: the signal) of a pre-training that dies as the function of this name says."""
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(run, patch))
    process.start()
    process.join()
    return process.exitcode


def _train(run: Storage, patch: str) -> None:
    globals()[patch]()
    perform(run, PRETRAINING, earlier=EARLIER)


def dying_in_step_6() -> None:
    batches = pretrain_job._Job.batches

    def dying(self: Any, step: int, share: Any) -> Any:
        if step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from batches(self, step, share)

    pretrain_job._Job.batches = dying  # type: ignore[method-assign]


def dying_before_state_8_is_whole() -> None:
    write = Storage.write_bytes

    def dying(self: Storage, relative: str, content: bytes) -> None:
        if self.path(relative).endswith("/step-00000008/state.json"):
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, relative, content)

    Storage.write_bytes = dying  # type: ignore[method-assign]
