"""The processes of a group as Ray Train's workers on a cluster: the same job, the same numbers as on one machine."""

import contextlib
import logging
import os
import platform
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.engine_ray import RayEngine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.train import WAITING
from corpusmill.train.options import ParallelConfig
from corpusmill.train.restart import Killed, RankError

if TYPE_CHECKING:
    from corpusmill.train.rank import Task

#: Workers may take so many seconds to start (its default, 60, is short for a busy machine); it looks at them so often, not every 2
#: seconds; and it leaves the folder to us, and measures nothing.
SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}  # fmt: skip
#: Seconds between two looks at the training.
LOOK = 0.2


class RayGroup:
    """`parallel.world` workers of Ray Train on the cluster that `engine` reaches; `folder` is on a disk that all its nodes have.

    `bar` gives, for a time, what is called now and then to show how far they are. A worker takes one CPU and, where the job is for
    GPUs, one GPU. States are ours, so Ray is told of no checkpoint, and it restarts nothing: it would after wrong input, too.
    """

    def __init__(self, task: "Task", folder: Path, engine: RayEngine, bar: Callable[[], AbstractContextManager[Callable[[], None]]]):
        self.task, self.folder, self.engine, self.bar = task, folder.absolute(), engine, bar
        self.parallel = ParallelConfig.model_validate(task["parallel"])

    def run(self) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        ray = self.engine.connect()
        gpus = self._gpus(ray)
        trainer = self._trainer(gpus)
        ended: list[Exception | None] = []

        def fit() -> None:  # not in the main thread, where Ray Train would take Ctrl-C for itself
            try:
                trainer.fit()
                ended.append(None)
            except Exception as error:  # noqa: BLE001 - handed to the main thread
                ended.append(error)

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        with self.bar() as look:
            while thread.is_alive():
                thread.join(LOOK)
                look()
        if error := ended[0]:
            raise _failure(error, self.parallel.world)

    def _gpus(self, ray: Any) -> bool:
        """Whether workers get a GPU each. Raises InputError where the cluster has not the resources, for which Ray would wait for ever."""
        has, world, device = ray.cluster_resources(), self.parallel.world, self.task["device"]
        gpus = device.startswith("cuda") or (device == "auto" and has.get("GPU", 0) >= world)
        for kind, wanted in (("CPU", True), ("GPU", gpus)):
            if wanted and has.get(kind, 0) < world:
                raise InputError(f"parallel: {world} processes need as many {kind}s, and the Ray cluster has {has.get(kind, 0):.0f}.")
        return gpus

    def _trainer(self, gpus: bool) -> Any:
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        task = self.task | {"device": "cuda" if gpus else "cpu"}
        return TorchTrainer(
            _work,
            train_loop_config={"task": task, "folder": str(self.folder), "cwd": str(Path.cwd())},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=self.parallel.world, use_gpu=gpus),
            run_config=ray.train.RunConfig(
                name="ray", storage_path=str(self.folder),
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": {name: os.environ[name] for name in WAITING}},  # torch is there before our package is
            ),
        )  # fmt: skip


def _work(order: dict[str, Any]) -> None:
    """In each of Ray Train's workers, which has joined the process group already."""
    from corpusmill.train.rank import leave_error, leave_result, take_part

    folder = Path(order["folder"])
    try:
        if not folder.is_dir():
            raise InputError(
                f"{folder}: the node {platform.node()} has no such folder; all nodes need the run's on a disk that they share."
            )
        with contextlib.suppress(OSError):
            os.chdir(order["cwd"])  # relative paths are those of the folder in which the run was started
        leave_result(folder, take_part(order["task"], None))
    except BaseException as error:
        if folder.is_dir():
            leave_error(folder, error)
        raise


def _failure(error: Exception, world: int) -> Exception:
    """What Ray Train's error means."""
    from ray.exceptions import RayError
    from ray.train import WorkerGroupError

    workers = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for number, failure in sorted(workers.items()):
        cause = getattr(failure, "health_check_failure", failure)
        if isinstance(cause, RayError):
            return Killed(f"process {number + 1} of {world} died ({type(cause).__name__})")
    for _, failure in sorted(workers.items()):
        if isinstance(ours := getattr(failure, "base_exc", failure), CorpusmillError):
            return ours
    found = RankError(str(error).strip().splitlines()[-1])
    found.add_note(str(error))
    return found
