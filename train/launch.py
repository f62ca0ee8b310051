"""Starts a training on the processes that its recipe asks for: on this machine, under torchrun, or by Ray Train on a cluster."""

import contextlib
import itertools
import json
import logging
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from corpusmill.pipeline.code import Code, check_here, code_for
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import is_remote
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train import WAITING
from corpusmill.train.compute import pick_device
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel import ParallelDims

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from corpusmill.pipeline.on_ray.engine import RayEngine
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.checkpoint import CheckpointDir


# ---- launch ------------------------------------------------------------------------------------------


class GroupJob(TypedDict):
    """A job for all processes of a group, as JSON values."""

    job: str
    arguments: dict[str, Any]
    parallel: dict[str, Any]
    device: str
    code: NotRequired[dict[str, Any]]  # the driver's code (`Code.as_json`), where other machines take part


def launch_stage(run: "StageRun", job: str, config: Any, checkpoint_dir: "CheckpointDir", **arguments: Any) -> dict[str, Any]:
    """Trains by the function `job` (`module:name`) with the stage's configuration. Returns the first process's result."""
    given = {"config": config.model_dump(mode="json"), "run": run.run.root, "work": checkpoint_dir.work, **arguments}
    folder = checkpoint_dir.folder / "processes"
    return launch(job, given, config.parallel, config.device, run.progress, folder=folder, engine=run.engine, title=run.stage.name)


def launch(
    job: str,
    arguments: dict[str, Any],
    parallel: ParallelConfig,
    device: str,
    progress: Progress | None,
    *,
    folder: Path,
    engine: Engine | None = None,
    title: str = "training",
) -> dict[str, Any]:
    """Runs the function `module:name` as `function(dims, progress, **arguments)` on every process. Returns the first process's result.

    `arguments` and results are JSON. A single process is this one. Several are started on this machine, or by Ray Train where `engine` is
    Ray's and `RAY_ADDRESS` names a cluster; under torchrun they exist already. When a process is killed, the whole group starts again, up
    to `parallel.max_restarts` times; jobs resume from their saved state. `folder` has the output of this machine's processes; it is kept
    only after a bug or the last death.

    Raises a process's CorpusmillError as it is, and any other exception as RuntimeError with its trace in a note.
    """
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ
    if torchrun and parallel.world != (started := int(os.environ["WORLD_SIZE"])):
        raise InputError(
            f"{title}.parallel: replicate x shard x tensor x pipeline are {parallel.world} processes, and torchrun has started "
            f"{started} (WORLD_SIZE)."
        )
    if parallel.world == 1:
        result: dict[str, Any] = load_object(job)(ParallelDims.single(pick_device(device)), progress, **arguments)
        return result
    task: GroupJob = {"job": job, "arguments": arguments, "parallel": parallel.model_dump(), "device": device}
    if torchrun:
        return _lead_torchrun(task, progress)
    from corpusmill.pipeline.on_ray.engine import ADDRESS, RayEngine

    restarts = 0
    while True:
        try:
            if isinstance(engine, RayEngine) and os.environ.get(ADDRESS):
                task["code"] = code_for(load_object(job)).as_json()
                return _run_on_ray(task, parallel, engine, title)
            return _run_here(task, parallel.world, progress, folder.absolute())
        except ProcessDied as death:
            restarts += 1
            if restarts > (most := parallel.max_restarts):
                output = f"; its output is in {folder}" if folder.is_dir() else ""
                raise death.__cause__ or CorpusmillError(f"{title}: {death}, and {most} restarts are used up{output}.") from None
            again = f"all begin again from the last state (restart {restarts} of {most})"
            print(f"corpusmill: {title}: {death}; {again}.", file=sys.stderr, flush=True)


# ---- the work of each process ------------------------------------------------------------------------


class ProcessDied(Exception):
    """A process has died. The message says which one and how; its cause, if any, is raised when no restart is left.

    torchrun's agent, `torch.multiprocessing` and Ray Train restart after any failure, even wrong input, or report the first process that
    they find ended, even where another was killed before it. So the restarts are our own.
    """


def take_part(task: GroupJob, progress: Progress | None, threads: int = 0) -> dict[str, Any]:
    """Runs the job as one of `WORLD_SIZE` processes, in an existing process group, on `threads` threads (0: its share of the cores).
    Raises InputError if this machine's code differs from the driver's."""
    job = load_object(task["job"])
    if "code" in task:
        check_here(Code.from_json(task["code"]))
    dims = ParallelDims.distributed(ParallelConfig.model_validate(task["parallel"]), local_device(task["device"]))
    before = torch.get_num_threads()
    # they decide the last bits of sums, so all launchers use this rule
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])))
    try:
        result: dict[str, Any] = job(dims, progress, **task["arguments"])
    finally:
        torch.set_num_threads(before)
    return result


def backend(device: str) -> str:
    """Returns torch's communication backend: NCCL between GPUs, gloo for tensors on CPUs."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"


def local_device(device: str) -> torch.device:
    """Returns the CPU, or the GPU that has this process's number on its machine."""
    if not backend(device).endswith("nccl"):
        return torch.device("cpu")
    if ":" in device:
        raise InputError(f"device {device}: several processes can't share one GPU; `cuda` gives each its own.")
    number, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= found:
        raise InputError(f"device {device}: this machine has {found} GPUs for {os.environ['LOCAL_WORLD_SIZE']} processes.")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _join(task: GroupJob, progress: Progress | None, store: dist.Store) -> dict[str, Any]:
    """Takes part in a group of processes that meet at `store`. Leaves the result or the error there before it leaves the group, which the
    others notice."""
    number, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        dist.init_process_group(backend(task["device"]), store=store, rank=number, world_size=world)
        result = take_part(task, progress)
        store.set(f"done/{number}", json.dumps(result))
        store.wait([f"done/{other}" for other in range(world)])  # so that no process leaves while another still reads
        return result
    except BaseException as error:
        message = str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}"
        described = {"rank": number, "time": time.time(), "message": message, "exit_code": getattr(error, "exit_code", None),
                     "trace": "".join(traceback.format_exception(error))}  # fmt: skip
        store.set(f"error/{number}", json.dumps(described))
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _error_in(store: dist.Store, world: int) -> Exception | None:
    """Returns the error that a process has left: a CorpusmillError if there is one, else the first."""
    names = [f"error/{number}" for number in range(world)]
    found = [parse_json(store.get(name)) for name in names if store.check([name])]
    if not found:
        return None
    first = min(found, key=lambda error: (error["exit_code"] is None, error["time"]))
    if first["exit_code"] is not None:
        return (InputError if first["exit_code"] == InputError.exit_code else CorpusmillError)(first["message"])
    error = RuntimeError(f"process {first['rank'] + 1}: {first['message']}")
    error.add_note(first["trace"])
    return error


# ---- processes on this machine -----------------------------------------------------------------------
#
# Fresh Python processes with torchrun's variables, which meet at a store in this process and end with it.

#: Seconds in which the others may end by themselves after one has failed.
GRACE = 2.0


def _run_here(task: GroupJob, world: int, progress: Progress | None, folder: Path) -> dict[str, Any]:
    """Runs the job on `world` processes, until all have ended, or a moment after one has failed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # on a free port of its own
    shows = progress is not None and progress.enabled and not progress.notebook
    context = multiprocessing.get_context("spawn")
    given = (task, world, store.port, folder, shows)
    processes: list[BaseProcess] = [context.Process(target=_work, args=(number, *given), daemon=True) for number in range(world)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which they inherit: Ctrl-C reaches this process only
    try:
        for process in processes:
            process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        until = float("inf")
        while any(process.exitcode is None for process in processes) and time.monotonic() < until:
            time.sleep(0.05)
            if any(process.exitcode for process in processes):  # the death of one makes others fail, so all get a moment to end
                until = min(until, time.monotonic() + GRACE)
        codes = [process.exitcode for process in processes]  # None: runs still
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
        if progress is not None and shows:
            progress.console.show_cursor()  # which the first process hides, and can't show again if it is killed
    error = _error_in(store, world)
    if isinstance(error, CorpusmillError) or not any(codes):
        shutil.rmtree(folder, ignore_errors=True)
        if error:
            raise error
        result: dict[str, Any] = parse_json(store.get("done/0"))
        return result
    for number, code in enumerate(codes, 1):
        if code and code < 0:
            cause = signal.Signals(-code).name
            perhaps = ", perhaps for want of memory" if cause == "SIGKILL" else ""
            raise ProcessDied(f"process {number} of {world} was killed ({cause}{perhaps})")
    raise error or RuntimeError(f"a process of {world} ended; the output of all is in {folder}")


def _work(number: int, task: GroupJob, world: int, port: int, folder: Path, shows: bool) -> None:
    """Runs one of the processes, from its start to its end. The first one shows the progress on the terminal."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    progress = Progress(shows and number == 0)
    progress.console.file = os.fdopen(os.dup(2), "w")
    log = os.open(folder / f"rank-{number}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    code = 1
    with contextlib.suppress(Exception):
        _join(task, progress, dist.TCPStore("127.0.0.1", port))
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # gloo's threads abort about one in ten processes that end in the usual way (pytorch#190489)


def _end_with_parent() -> None:
    """Kills this process when the process that started it ends, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


# ---- under torchrun ----------------------------------------------------------------------------------
#
# Under `torchrun ... -m corpusmill ...` every process runs the command. The first runs it as usual; the others wait for its orders at
# torchrun's store. An order is a training, or the end.

#: Seconds to wait for the errors of other processes, and more time than any stage takes.
HEAR, EVER = 1.0, timedelta(days=1000)
_numbers = itertools.count()


def run_command(main: Callable[[], None]) -> None:
    """Runs the command in the first process; the others take part in its trainings. All end with the same exit status."""
    if int(os.environ["RANK"]) > 0:
        sys.exit(_follow_torchrun())
    code: Any = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
        raise
    finally:
        _order({"end": code if isinstance(code, int) else int(bool(code))})


def _order(order: Any) -> str:
    """Writes the next order for the other processes to torchrun's store. Returns its key."""
    name = f"order-{next(_numbers)}"
    _torchrun_store().set(name, json.dumps(order))
    return name


def _lead_torchrun(task: GroupJob, progress: Progress | None) -> dict[str, Any]:
    """Runs the first process's part of a training. Raises the first error of all processes."""
    store = dist.PrefixStore(_order(task), _torchrun_store())
    try:
        return _join(task, progress, store)
    except Exception as error:
        if isinstance(error, CorpusmillError):
            raise
        time.sleep(HEAR)
        raise (_error_in(store, int(os.environ["WORLD_SIZE"])) or error) from None


def _follow_torchrun() -> int:
    """Runs the other processes: training after training, silently. Returns the exit status of the first process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torchrun forwards Ctrl-C; the first process handles it
    if not os.environ.get("CORPUSMILL_DEBUG"):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    store = _torchrun_store()
    while True:
        name = f"order-{next(_numbers)}"
        store.wait([name], EVER)
        order = parse_json(store.get(name))
        if "end" in order:
            time.sleep(HEAR if order["end"] else 0.0)  # lets the first process end first: torchrun kills all others after one has failed
            return int(order["end"])
        with contextlib.suppress(Exception):  # it is in the store, for the first process
            _join(order, None, dist.PrefixStore(name, store))


@cache
def _torchrun_store() -> dist.Store:
    """Returns a part of torchrun's own store, for the current attempt (`--max-restarts`)."""
    store, _, _ = next(rendezvous("env://"))
    return dist.PrefixStore(f"corpusmill-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


# ---- on a Ray cluster --------------------------------------------------------------------------------
#
# Ray Train's workers do the same job. It starts them once: restarts and saved states are ours.

#: Seconds between two looks at the cluster, and in which workers must start where there is room (Ray's 60 are short on a busy machine).
LOOK, START = 0.5, 600


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


def _wait_for_room(ray: Any, device: str, parallel: ParallelConfig, title: str) -> dict[str, float]:
    """Returns the resources of each worker. Waits `parallel.wait` seconds for nodes with room; then raises InputError."""
    from corpusmill.pipeline.on_ray.engine import ADDRESS, LOCAL

    wait = 0 if os.environ.get(ADDRESS) == LOCAL else parallel.wait  # a Ray that this run started gets no new nodes
    kinds = ["CPU", "GPU"] if device.startswith("cuda") else ["CPU"]
    until, announced = time.monotonic() + wait, False
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if resources := find_resources(nodes, parallel.world, device, parallel.cpus):
            return resources
        each = (f"{parallel.cpus} CPUs" if parallel.cpus > 1 else "a CPU") + (" and a GPU" if len(kinds) > 1 else "")
        has = [", ".join(f"{node.get(kind, 0):.0f} {kind}s" for kind in kinds) for node in nodes if any(map(node.get, kinds))]
        lack = f"{parallel.world} processes need {each} each, and the nodes of the cluster have {'; '.join(has) or 'none'}"
        if time.monotonic() >= until:
            raise InputError(f"parallel: {lack}" + (f", for {wait} seconds." if wait else "."))
        if not announced:
            announced = True
            print(f"corpusmill: {title}: waiting for room on the Ray cluster; {lack}.", file=sys.stderr, flush=True)
        time.sleep(LOOK)


def _run_on_ray(task: GroupJob, parallel: ParallelConfig, engine: "RayEngine", title: str) -> dict[str, Any]:
    """Runs the job on workers of the cluster that `engine` reaches. All nodes need to see the run's folder."""
    ray = engine.connect()
    resources = _wait_for_room(ray, task["device"], parallel, title)
    ended: list[dict[str, Any] | Exception] = []

    def fit(records: str) -> None:  # in another thread: in the main thread Ray Train would handle Ctrl-C itself
        try:
            ended.append(_trainer(task, parallel, resources, records).fit().return_value)
        except Exception as error:  # noqa: BLE001 - handed to the main thread
            ended.append(error)

    with tempfile.TemporaryDirectory(prefix="corpusmill-train-", ignore_cleanup_errors=True) as records:
        thread = threading.Thread(target=fit, args=[records], daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK)
    if isinstance(ended[0], Exception):
        raise _failure(ended[0], parallel, title)
    return ended[0]


def _trainer(task: GroupJob, parallel: ParallelConfig, resources: dict[str, float], records: str) -> Any:
    """Returns Ray Train's trainer. It keeps its records in the folder `records`, which only the driver's machine needs."""
    for name, value in {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the working folder is ours
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(max(parallel.wait, START)),
    }.items():
        os.environ.setdefault(name, value)
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    device = "cuda" if resources.get("GPU") else "cpu"
    order = {"task": {**task, "device": device}, "cwd": str(Path.cwd()), "threads": max(1, int(resources.get("CPU", 0)))}
    return TorchTrainer(
        _work_on_ray,
        train_loop_config=order,
        torch_config=TorchConfig(backend=backend(device)),
        scaling_config=ray.train.ScalingConfig(num_workers=parallel.world, use_gpu=device == "cuda", resources_per_worker=resources),
        run_config=ray.train.RunConfig(
            name="ray", storage_path=records,
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
            worker_runtime_env={"env_vars": {name: os.environ[name] for name in WAITING}},  # workers import torch before our package
        ),
    )  # fmt: skip


def _work_on_ray(order: dict[str, Any]) -> dict[str, Any]:
    """Runs in each of Ray Train's workers, which has joined the process group already."""
    with contextlib.suppress(OSError):
        os.chdir(order["cwd"])  # relative paths start from the folder in which the run was started
    run = order["task"]["arguments"].get("run", ".")
    if not is_remote(run) and not Path(run).is_dir():
        where = f"the node {platform.node()} has no such folder"
        raise InputError(f"{run}: {where}; all nodes need the run's on a disk that they share, or a run on a store (s3://).")
    return take_part(order["task"], None, order["threads"])


def _failure(failure: Exception, parallel: ParallelConfig, title: str) -> Exception:
    """Returns our exception for Ray Train's error. The death of a worker makes others fail, which may be seen first, so a restart may help
    after each failure but a CorpusmillError."""
    from ray.exceptions import RayError
    from ray.train import WorkerGroupError

    if not isinstance(failure, WorkerGroupError):
        return CorpusmillError(f"{title}: the Ray cluster had no room for {parallel.world} processes; run the same command to go on.")
    errors = {number: getattr(error, "base_exc", error) for number, error in sorted(failure.worker_failures.items())}
    for error in errors.values():
        if isinstance(error, CorpusmillError):
            return error
    for number, error in errors.items():
        if isinstance(cause := getattr(error, "health_check_failure", error), RayError):
            return ProcessDied(f"process {number + 1} of {parallel.world} died ({type(cause).__name__})")
    number, error = next(iter(errors.items()))
    death = ProcessDied(f"process {number + 1} of {parallel.world} failed")
    death.__cause__ = RuntimeError(f"process {number + 1}: {type(error).__name__}: {error}")
    death.__cause__.add_note(str(failure))
    return death
