"""Runs the processes of a training as Ray Train's workers on a cluster, with the same job and results as on one machine."""

import contextlib
import json
import logging
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.on_ray.engine import ADDRESS, LOCAL, RayEngine
from corpusmill.pipeline.storage import Storage
from corpusmill.train import WAITING
from corpusmill.train.launch import RESULT, RankError, backend, errors_left, leave_error, raise_error, rank, say_restart, take_part
from corpusmill.train.options import ParallelConfig

if TYPE_CHECKING:
    from corpusmill.train.launch import Bar, GroupJob


# ---- resources ---------------------------------------------------------------------------------------


def find_resources(nodes: Sequence[Mapping[str, float]], world: int, device: str, cpus: int = 0) -> dict[str, float] | None:
    """Returns Ray's resources of each of `world` processes on nodes with these resources: a GPU for the device `cuda`, or for `auto` where
    there are enough; `cpus` CPUs, or (0) the largest number with which all processes fit. None if they do not fit.

    A process runs on one node, so fits are counted node by node: a node with only a GPU and one with only CPUs have no room for a process
    that needs both.
    """
    most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    wanted = [{"CPU": float(each)} for each in ([cpus] if cpus else range(most, 0, -1))]
    with_gpu = [{**each, "GPU": 1.0} for each in wanted] + ([] if cpus else [{"GPU": 1.0}])  # nodes may have only GPUs to give
    kinds = {"cpu": wanted, "auto": with_gpu + wanted}.get(device, with_gpu)

    def room(each: Mapping[str, float]) -> int:
        return sum(min(int(node.get(kind, 0) // count) for kind, count in each.items()) for node in nodes)

    return next((each for each in kinds if room(each) >= world), None)


def _wait_for_room(ray: Any, task: "GroupJob", parallel: ParallelConfig, title: str) -> dict[str, float]:
    """Returns the resources of each worker. Waits `parallel.wait` seconds for nodes with room; then raises InputError."""
    wait = 0 if os.environ.get(ADDRESS) == LOCAL else parallel.wait  # a Ray that this run started gets no new nodes
    until, announced = time.monotonic() + wait, False
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if resources := find_resources(nodes, parallel.world, task["device"], parallel.cpus):
            return resources
        lack = _lack(nodes, parallel, task["device"].startswith("cuda"))
        if time.monotonic() >= until:
            raise InputError(f"parallel: {lack}" + (f", for {wait} seconds." if wait else "."))
        if not announced:
            announced = True
            print(f"corpusmill: {title}: waiting for room on the Ray cluster; {lack}.", file=sys.stderr, flush=True)
        time.sleep(LOOK)


def _lack(nodes: Sequence[Mapping[str, float]], parallel: ParallelConfig, gpus: bool) -> str:
    each = [f"{parallel.cpus} CPUs" if parallel.cpus > 1 else "a CPU"] + ["a GPU"] * gpus
    kinds = ["CPU", *["GPU"] * gpus]
    has = [", ".join(f"{node.get(kind, 0):.0f} {kind}s" for kind in kinds) for node in nodes if any(node.get(kind) for kind in kinds)]
    return f"{parallel.world} processes need {' and '.join(each)} each, and the nodes of the cluster have {'; '.join(has) or 'none'}"


# ---- the workers -------------------------------------------------------------------------------------

#: Settings of Ray Train: the health of workers is checked every half second, not every 2 seconds; the working folder is ours; no metrics.
SETTINGS = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}
#: Seconds between two checks of the training, and in which workers must start where there is room (Ray's 60 are short on a busy machine).
LOOK, START = 0.5, 600
#: A file for each start of the workers.
STARTED = "started-"


def train_on_ray(task: "GroupJob", engine: RayEngine, bar: "Bar", title: str) -> dict[str, Any]:
    """Runs the job on `parallel.world` workers of Ray Train on the cluster that `engine` reaches. Returns the first one's result. The
    task's folder `left` is on a disk that all nodes share, or on a store.

    Ray Train starts all workers again when one fails, up to `max_restarts` times, and waits for a node in place of a lost one. States are
    ours, so it handles no checkpoints.
    """
    ray, left, parallel = engine.connect(), Storage(task["left"]), ParallelConfig.model_validate(task["parallel"])
    resources = _wait_for_room(ray, task, parallel, title)
    left.remove_folder("")
    if not left.remote:
        os.makedirs(left.root)
    ended: list[Exception | None] = []

    def fit(folder: str) -> None:  # in another thread: in the main thread Ray Train would handle Ctrl-C itself
        try:
            _trainer(task, parallel, resources, folder).fit()
            ended.append(None)
        except Exception as error:  # noqa: BLE001 - handed to the main thread
            ended.append(error)

    with tempfile.TemporaryDirectory(prefix="corpusmill-train-", ignore_cleanup_errors=True) as folder:
        thread, starts = threading.Thread(target=fit, args=[folder], daemon=True), 1
        thread.start()
        with bar() as look:
            while thread.is_alive():
                thread.join(LOOK)
                look()
                if (now := sum(name.startswith(STARTED) for name in left.list_files())) > starts:
                    starts = now
                    say_restart(title, "a process died", starts - 1, parallel.max_restarts)
    errors = errors_left(left)
    if errors and errors[0]["exit_code"] is not None:
        left.remove_folder("")
        raise_error(errors[0])
    if failure := ended[0]:
        raise _failure(failure, errors, parallel, title)
    result: dict[str, Any] = json.loads(left.read_bytes(RESULT))
    left.remove_folder("")
    return result


def _trainer(task: "GroupJob", parallel: ParallelConfig, resources: dict[str, float], folder: str) -> Any:
    """Returns Ray Train's trainer. It keeps its records in `folder`, which only the driver's machine needs."""
    for name, value in {**SETTINGS, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(max(parallel.wait, START))}.items():
        os.environ.setdefault(name, value)
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    device = "cuda" if resources.get("GPU") else "cpu"
    order = {"task": {**task, "device": device}, "cwd": str(Path.cwd()), "threads": max(1, int(resources.get("CPU", 0)))}
    return TorchTrainer(
        _work,
        train_loop_config=order,
        torch_config=TorchConfig(backend=backend(device)),
        scaling_config=ray.train.ScalingConfig(num_workers=parallel.world, use_gpu=device == "cuda", resources_per_worker=resources),
        run_config=ray.train.RunConfig(
            name="ray", storage_path=folder,
            failure_config=ray.train.FailureConfig(max_failures=parallel.max_restarts, controller_failure_limit=0),
            worker_runtime_env={"env_vars": {name: os.environ[name] for name in WAITING}},  # workers import torch before our package
        ),
    )  # fmt: skip


def _work(order: dict[str, Any]) -> None:
    """Runs in each of Ray Train's workers, which has joined the process group already. Where an earlier attempt has ended with a
    CorpusmillError, there is nothing left to try."""
    left = Storage(order["task"]["left"])
    if not left.remote and not Path(left.root).is_dir():
        raise InputError(
            f"{left.root}: the node {platform.node()} has no such folder; all nodes need the run's on a disk that they share, or "
            "a run on a store (s3://)."
        )
    if any(error["exit_code"] is not None for error in errors_left(left)):
        return
    if rank() == 0:
        left.write_bytes(f"{STARTED}{time.time_ns()}", b"")
    with contextlib.suppress(OSError):
        os.chdir(order["cwd"])  # relative paths start from the folder in which the run was started
    try:
        take_part(order["task"], None, order["threads"])
    except BaseException as error:
        leave_error(left, error)
        raise


def _failure(failure: Exception, errors: list[dict[str, Any]], parallel: ParallelConfig, title: str) -> Exception:
    """Returns our exception for Ray Train's error after the last restart."""
    from ray.exceptions import RayError
    from ray.train import WorkerGroupError

    workers = failure.worker_failures if isinstance(failure, WorkerGroupError) else {}
    for number, error in sorted(workers.items()):
        if isinstance(ours := getattr(error, "base_exc", error), CorpusmillError):
            return ours
        cause = getattr(error, "health_check_failure", error)
        if isinstance(cause, RayError):
            died = f"process {number + 1} of {parallel.world} died ({type(cause).__name__})"
            return CorpusmillError(f"{title}: {died}, and {parallel.max_restarts} restarts are used up.")
    if not workers:
        return CorpusmillError(f"{title}: the Ray cluster had no room for {parallel.world} processes again; run the same command to go on.")
    for error in errors[:1]:
        raise_error(error)
    found = RankError(str(failure).strip().splitlines()[-1])
    found.add_note(str(failure))
    return found
