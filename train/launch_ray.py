"""Runs the processes of a training as Ray Train's workers on a cluster, with the same job and results as on one machine."""

import contextlib
import logging
import os
import platform
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.on_ray.engine import ADDRESS, LOCAL, RayEngine
from corpusmill.pipeline.storage import Storage
from corpusmill.train import WAITING
from corpusmill.train.launch import Killed, RankError
from corpusmill.train.options import ParallelConfig

if TYPE_CHECKING:
    from corpusmill.train.launch import GroupJob


# ---- resources ---------------------------------------------------------------------------------------
#
# The CPUs and GPUs that each process takes of a cluster's nodes, which may differ, and whether all processes fit.

#: Seconds within which a living node must answer.
ANSWER = 2.0


@dataclass(frozen=True)
class WorkerResources:
    """CPUs and GPUs for each process. `cpus` may be 0 on nodes that have only GPUs to give."""

    cpus: int
    gpus: int

    @property
    def resources(self) -> dict[str, float]:
        """The resources in Ray's form."""
        return {kind: float(count) for kind, count in (("CPU", self.cpus), ("GPU", self.gpus)) if count}


def find_resources(nodes: Sequence[Mapping[str, float]], world: int, device: str, cpus: int = 0) -> WorkerResources | None:
    """Returns the resources of each of `world` processes on nodes with these resources: a GPU for the device `cuda`, or for `auto` where
    there are enough; `cpus` CPUs, or (0) the largest number with which all processes fit. None if they do not fit.

    A process runs on one node, so fits are counted node by node: a node with only a GPU and one with only CPUs have no room for a process
    that needs both.
    """
    wanted = [cpus] if cpus else range(max((int(node.get("CPU", 0)) for node in nodes), default=0), 0, -1)
    if device.startswith("cuda") or device == "auto":
        for each in [*wanted, *([] if cpus else [0])]:  # nodes may have only GPUs to give
            if _places(nodes, each, 1) >= world:
                return WorkerResources(each, 1)
    if device.startswith("cuda"):
        return None
    return next((WorkerResources(each, 0) for each in wanted if _places(nodes, each, 0) >= world), None)


def _places(nodes: Sequence[Mapping[str, float]], cpus: int, gpus: int) -> int:
    """Returns how many processes with these resources fit on the nodes."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return sum(min(int(node.get(kind, 0) // count) for kind, count in wanted.items() if count) for node in nodes)


def living(nodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """Returns the resources of those Ray nodes (`ray.nodes()`) that answer. Ray itself takes up to 15 seconds to notice a dead node."""
    return [node["Resources"] for node in nodes if node["Alive"] and _answers(node["NodeManagerAddress"], int(node["NodeManagerPort"]))]


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=ANSWER):
            return True
    except OSError:
        return False


# ---- the group ---------------------------------------------------------------------------------------

#: Settings of Ray Train: workers may take 600 seconds to start (the default, 60, is short on a busy machine); their health is checked every
#: half second, not every 2 seconds; the working folder is ours; no metrics.
SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}  # fmt: skip
#: Seconds between two checks of the training, and of a cluster without room.
LOOK, WAIT = 0.2, 1.0


class RayGroup:
    """`parallel.world` workers of Ray Train on the cluster that `engine` reaches. `left` is a folder on a disk that all its nodes share, or
    on a store.

    `bar` opens a progress bar and yields a function that moves it. The first start decides the resources of a worker (`find_resources`).
    Later starts keep its number of threads, even with fewer CPUs, as bits depend on it. Ray Train handles no checkpoints, as states are
    ours, and no restarts, as it would restart after wrong input, too.
    """

    def __init__(
        self, task: "GroupJob", left: Storage, engine: RayEngine, bar: Callable[[], AbstractContextManager[Callable[[], None]]], title: str
    ):  # fmt: skip
        self.task, self.left, self.engine, self.bar, self.title = task, left, engine, bar, title
        self.parallel = ParallelConfig.model_validate(task["parallel"])
        self.threads = 0  # not started yet

    def run(self, left: Storage) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        per_worker = self._worker_resources(self.engine.connect())
        self.threads = self.threads or max(1, per_worker.cpus)
        if not left.remote:
            os.makedirs(left.root)
        ended: list[Exception | None] = []

        def fit(folder: str) -> None:  # in another thread: in the main thread Ray Train would handle Ctrl-C itself
            try:
                self._trainer(per_worker, left, folder).fit()
                ended.append(None)
            except Exception as error:  # noqa: BLE001 - handed to the main thread
                ended.append(error)

        with tempfile.TemporaryDirectory(prefix="corpusmill-train-", ignore_cleanup_errors=True) as folder:
            thread = threading.Thread(target=fit, args=[folder], daemon=True)
            thread.start()
            with self.bar() as look:
                while thread.is_alive():
                    thread.join(LOOK)
                    look()
        if error := ended[0]:
            raise _failure(error, self.parallel.world)

    def _worker_resources(self, ray: Any) -> WorkerResources:
        """Returns the resources of each worker. Waits `parallel.wait` seconds for room: the cluster may have lost a node, or scale up.

        Then raises CorpusmillError, or InputError at the first start.
        """
        wait = 0 if os.environ.get(ADDRESS) == LOCAL else self.parallel.wait  # a Ray that this run started gets no new nodes
        until = time.monotonic() + wait
        announced = False
        while True:
            nodes = living(ray.nodes())
            if per_worker := find_resources(nodes, self.parallel.world, self.task["device"], self.parallel.cpus):
                return per_worker
            if time.monotonic() >= until:
                break
            if not announced:
                announced = True
                print(f"corpusmill: {self.title}: waiting for room on the Ray cluster; {self._lack(nodes)}.", file=sys.stderr, flush=True)
            time.sleep(WAIT)
        lack = self._lack(nodes) + (f", for {wait} seconds" if wait else "")
        if self.threads:
            raise CorpusmillError(f"{self.title}: {lack}; run the same command to go on.")
        raise InputError(f"parallel: {lack}.")

    def _lack(self, nodes: Sequence[Mapping[str, float]]) -> str:
        gpus = self.task["device"].startswith("cuda")
        each = [f"{self.parallel.cpus} CPUs" if self.parallel.cpus > 1 else "a CPU"] + ["a GPU"] * gpus
        kinds = ["CPU", *["GPU"] * gpus]
        has = [", ".join(f"{node.get(kind, 0):.0f} {kind}s" for kind in kinds) for node in nodes if any(node.get(kind) for kind in kinds)]
        return (
            f"{self.parallel.world} processes need {' and '.join(each)} each, and the nodes of the cluster have {'; '.join(has) or 'none'}"
        )

    def _trainer(self, per_worker: WorkerResources, left: Storage, folder: str) -> Any:
        """Returns Ray Train's trainer. It keeps its records in `folder`, which only the driver's machine needs."""
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        task = self.task | {"device": "cuda" if per_worker.gpus else "cpu"}
        return TorchTrainer(
            _work,
            train_loop_config={"task": task, "left": left.root, "cwd": str(Path.cwd()), "threads": self.threads},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if per_worker.gpus else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=self.parallel.world, use_gpu=bool(per_worker.gpus), resources_per_worker=per_worker.resources
            ),
            run_config=ray.train.RunConfig(
                name="ray", storage_path=folder, failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
                worker_runtime_env={"env_vars": {name: os.environ[name] for name in WAITING}},  # workers import torch before our package
            ),
        )  # fmt: skip


def _work(order: dict[str, Any]) -> None:
    """Runs in each of Ray Train's workers, which has joined the process group already."""
    from corpusmill.train.launch import leave_error, leave_result, take_part

    left = Storage(order["left"])
    there = left.remote or Path(left.root).is_dir()
    try:
        if not there:
            raise InputError(
                f"{left.root}: the node {platform.node()} has no such folder; all nodes need the run's on a disk that they share, or "
                "a run on a store (s3://)."
            )
        with contextlib.suppress(OSError):
            os.chdir(order["cwd"])  # relative paths start from the folder in which the run was started
        leave_result(left, take_part(order["task"], None, order["threads"]))
    except BaseException as error:
        if there:
            leave_error(left, error)
        raise


def _failure(error: Exception, world: int) -> Exception:
    """Returns our exception for Ray Train's error."""
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
