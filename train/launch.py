"""Starts a training on the processes that its recipe asks for: on this machine, under torchrun, or on a Ray cluster.

`python -m corpusmill.train.launch` is one of several processes on this machine. It gets its task as a line of JSON on standard input.
"""

import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, Protocol, TypedDict

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from corpusmill.pipeline.code import Code, check_here, code_for
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.compute import pick_device
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.dims import ParallelDims
from corpusmill.train.watch import following

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.checkpoint_dir import CheckpointDir


# ---- launch ------------------------------------------------------------------------------------------


class GroupJob(TypedDict):
    """A job for all processes of a group, as JSON values."""

    job: str
    arguments: dict[str, Any]
    parallel: dict[str, Any]
    device: str
    code: NotRequired[dict[str, Any]]  # the driver's code (`Code.as_json`), where other machines take part


#: Opens the progress bar of a training, and yields a function that moves the bar when it is called.
Bar = Callable[[], AbstractContextManager[Callable[[], None]]]


def launch_stage(run: "StageRun", job: str, config: Any, checkpoint_dir: "CheckpointDir", **arguments: Any) -> dict[str, Any]:
    """Trains by the function `job` (`module:name`) with the stage's configuration. Returns the first process's result."""
    given = {"config": config.model_dump(mode="json"), "run": run.run.root, "work": checkpoint_dir.work, **arguments}
    return launch(
        job, given, config.parallel, config.device, run.progress, folder=checkpoint_dir.processes, store=checkpoint_dir.store,
        engine=run.engine, title=run.stage.name, log=checkpoint_dir.log_file, steps=config.loop.steps,
    )  # fmt: skip


def launch(
    job: str,
    arguments: dict[str, Any],
    parallel: ParallelConfig,
    device: str,
    progress: Progress | None,
    *,
    folder: Path,
    store: Storage | None = None,
    engine: Engine | None = None,
    title: str = "training",
    log: Path | None = None,
    steps: int = 0,
) -> dict[str, Any]:
    """Runs the function `module:name` as `function(dims, progress, **arguments)` on every process. Returns the first process's result.

    `arguments` and results are JSON. A single process is this one. Several are started on this machine, or by Ray Train where `engine` is
    Ray's and `RAY_ADDRESS` names a cluster; under torchrun they exist already. When a process is killed, the whole group starts again, up
    to `parallel.max_restarts` times; jobs resume from their saved state. The bar of started processes follows `log`, up to `steps` lines.

    Processes leave results and errors in `folder`, which on a cluster must be on a disk that all nodes share. Where the run lies on a
    store, they leave them in `store`, the training's folder there.

    Raises a process's CorpusmillError as it is, and any other exception as RankError with its trace.
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

    group: ProcessGroup
    if isinstance(engine, RayEngine) and os.environ.get(ADDRESS):
        from corpusmill.train.launch_ray import RayGroup

        task["code"] = code_for(load_object(job)).as_json()
        left = store.child("processes") if store else Storage(str(folder.absolute()))
        group = RayGroup(task, left, engine, partial(following, progress, title, None if store else log, steps), title)
    else:
        group = LocalGroup(task, folder, partial(following, progress, title, log, steps))
    return with_restarts(group, parallel.max_restarts, title)


# ---- the work of each process ------------------------------------------------------------------------
#
# Each process finds its device, joins the group, runs the job, and leaves its result or its error in a file.

#: The file in the group's folder with the first process's result.
RESULT = "result.json"


def rank() -> int:
    """Returns this process's number, from the variable that torchrun, Ray Train and our own launcher set."""
    return int(os.environ["RANK"])


def take_part(task: GroupJob, progress: Progress | None, threads: int = 0) -> dict[str, Any]:
    """Runs the job as one of `WORLD_SIZE` processes, in an existing process group, on `threads` threads (0: its share of the cores).
    Raises InputError if this machine's code differs from the driver's."""
    job = load_object(task["job"])
    if "code" in task:
        check_here(Code.from_json(task["code"]))
    dims = ParallelDims.distributed(ParallelConfig.model_validate(task["parallel"]), local_device(task["device"]))
    before = torch.get_num_threads()
    torch.set_num_threads(threads or _share_of_cores())
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


def _share_of_cores() -> int:
    """Returns this process's even share of the cores. Threads decide the last bits of sums, so all launchers use this rule."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))


@contextmanager
def process_group(device: str, store: dist.Store) -> Iterator[None]:
    """Joins the group of all processes for the block; they meet at `store`. After an error in the block this process stays in the group:
    it reports its error first and leaves then (`leave_group`), which the others notice."""
    number, world = rank(), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend(device), store=store, rank=number, world_size=world)
    yield
    store.set(f"done/{number}", "")  # so that no process leaves while another still reads
    store.wait([f"done/{other}" for other in range(world)])
    dist.destroy_process_group()


def leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def described(error: BaseException) -> dict[str, Any]:
    """Returns an error as JSON; `exit_code` is null unless it is a CorpusmillError."""
    ours = isinstance(error, CorpusmillError)
    return {
        "rank": rank(),
        "time": time.time(),
        "message": str(error) if ours else f"{type(error).__name__}: {error}",
        "exit_code": error.exit_code if isinstance(error, CorpusmillError) else None,
        "trace": "".join(traceback.format_exception(error)),
    }


def leave_error(left: Storage, error: BaseException) -> None:
    left.write_bytes(f"error-{rank()}.json", json.dumps(described(error)).encode())


def leave_result(left: Storage, result: dict[str, Any]) -> None:
    if rank() == 0:
        left.write_bytes(RESULT, json.dumps(result).encode())


def main() -> None:
    """Runs a process of a LocalGroup."""
    order = json.loads(sys.stdin.buffer.readline())
    left = Storage(order["left"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 0
    try:
        with process_group(order["task"]["device"], next(rendezvous("env://"))[0]):
            leave_result(left, take_part(order["task"], None))
    except BaseException as error:  # noqa: BLE001 - the boundary where any failure becomes a file
        leave_error(left, error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # gloo's threads abort about one in ten processes that end in the usual way (pytorch#190489)


def _end_with_parent() -> None:
    """Kills this process when the process that started it ends, in whatever way: standard input ends then."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


# ---- restarts ----------------------------------------------------------------------------------------
#
# A group of processes starts again when one of them is killed. The classes here name the kinds of failure.


class RankError(Exception):
    """A process of the group ended with an exception other than CorpusmillError. A note has the trace."""


class Killed(Exception):
    """A process of the group was killed. The message says which one, and how."""


class ProcessGroup(Protocol):
    """Processes that work together on one task."""

    left: Storage  # the parent of a folder for each attempt

    def run(self, left: Storage) -> None:
        """Starts the processes, which leave `result.json` and `error-<rank>.json` in `left`, and waits for them. Raises Killed or RankError
        where one fails."""
        ...


def with_restarts(group: ProcessGroup, restarts: int, title: str) -> dict[str, Any]:
    """Runs the group, again after each kill, up to `restarts` times. Returns the first process's result. The files of an attempt are kept
    only if it failed with a trace.

    Each attempt has a folder of its own, because a process on a lost node may live on and leave its error later.
    """
    for attempt in range(restarts + 1):
        group.left.remove_folder("")
        left = group.left.child(f"{attempt + 1}-{secrets.token_hex(4)}")
        failure: Exception | None = None
        try:
            group.run(left)
        except (Killed, RankError) as error:
            failure = error
        except CorpusmillError:
            group.left.remove_folder("")
            raise
        errors = _errors_left(left)
        if failure is None or any(error["exit_code"] for error in errors):
            try:
                raise_first(errors)
                result: dict[str, Any] = json.loads(left.read_bytes(RESULT))
                return result
            finally:
                group.left.remove_folder("")
        if isinstance(failure, RankError):
            raise_first(errors)
            for log in (name for name in left.list_files() if name.endswith(".log")):
                failure.add_note(f"{left.path(log)}:\n{left.read_bytes(log).decode(errors='replace')[-4000:]}")
            raise failure
        if attempt < restarts:
            again = f"all begin again from the last state (restart {attempt + 1} of {restarts})"
            print(f"corpusmill: {title}: {failure}; {again}.", file=sys.stderr, flush=True)
    raise CorpusmillError(f"{title}: {failure}, and {restarts} restarts are used up; its output is in {group.left.root}.")


def _errors_left(left: Storage) -> list[dict[str, Any]]:
    names = [name for name in left.list_files() if name.startswith("error-") and name.endswith(".json")]
    return [json.loads(left.read_bytes(name)) for name in names]


def raise_first(errors: list[dict[str, Any]]) -> None:
    """Raises the earliest CorpusmillError, else the earliest of all errors (see `described`). Does nothing without errors."""
    errors = sorted(errors, key=lambda error: float(error["time"]))
    for error in errors:
        if error["exit_code"] is not None:
            raise (InputError if error["exit_code"] == InputError.exit_code else CorpusmillError)(error["message"])
    for error in errors[:1]:
        found = RankError(f"process {error['rank'] + 1}: {error['message']}")
        found.add_note(error["trace"])
        raise found from None


# ---- processes on this machine -----------------------------------------------------------------------
#
# Fresh Python processes, which meet at a store in this process and end with it.

#: Seconds between two checks of the processes; seconds in which the others may end by themselves after one has failed.
LOOK, GRACE = 0.05, 2.0


class LocalGroup:
    """`parallel.world` processes on this machine.

    torch's own launchers (torchrun's agent, `torch.multiprocessing`) restart after any failure, even wrong input, write about it on the
    terminal, and give the other processes half a minute to end. So this class replaces them. It uses torchrun's variables and a TCPStore.
    """

    def __init__(self, task: GroupJob, folder: Path, bar: Bar):
        self.task, self.bar = task, bar
        self.left = Storage(str(folder))
        self.world = ParallelConfig.model_validate(task["parallel"]).world

    def run(self, left: Storage) -> None:
        Path(left.root).mkdir(parents=True)
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # on a free port of its own
        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(self._process(rank, store.port, left)) for rank in range(self.world)]
            look = stack.enter_context(self.bar())
            while (codes := [process.poll() for process in processes]) and None in codes and not any(codes):
                time.sleep(LOOK)
                look()
            if any(codes):
                raise self._failure(processes)

    @contextmanager
    def _process(self, rank: int, port: int, left: Storage) -> Iterator[subprocess.Popen[bytes]]:
        """Runs a process during the block. It is killed at the end of the block, and kills itself if this process ends first."""
        env = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.world), "LOCAL_WORLD_SIZE": str(self.world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1",
        }  # fmt: skip
        if sys.platform == "linux":
            env.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with open(left.path(f"rank-{rank}.log"), "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "corpusmill.train.launch"], env=env, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process only, which ends the others
            )  # fmt: skip
        assert process.stdin
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps({"task": self.task, "left": left.root}).encode() + b"\n")
                process.stdin.flush()
            yield process
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def _failure(self, processes: list[subprocess.Popen[bytes]]) -> Exception:
        """Returns the error to raise. The death of one process makes others fail, so all get a moment to end."""
        until = time.monotonic() + GRACE
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(LOOK)
        for number, process in enumerate(processes, 1):
            if process.returncode is not None and process.returncode < 0:
                cause = signal.Signals(-process.returncode).name
                perhaps = ", perhaps for want of memory" if cause == "SIGKILL" else ""
                return Killed(f"process {number} of {self.world} was killed ({cause}{perhaps})")
        return RankError(f"a process ended with {next(p.returncode for p in processes if p.returncode)}")


# ---- under torchrun ----------------------------------------------------------------------------------
#
# Under `torchrun ... -m corpusmill ...` every process runs the command. The first runs it as usual; the others wait for its orders at
# torchrun's store. An order is a training, or the end.

#: Seconds to wait for the errors of other processes; the time in which the first process must end after another has failed; more than any
#: stage.
HEAR, END, EVER = 1.0, timedelta(seconds=60), timedelta(days=1000)
_numbers = itertools.count()


def run_command(main: Callable[[], None]) -> None:
    """Runs the command in the first process; the others take part in its trainings. All end with the same exit status."""
    if rank() > 0:
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
    """Runs the first process's part of a training. Raises the first error of the other processes."""
    name, store = _order(task), _torchrun_store()
    try:
        with process_group(task["device"], dist.PrefixStore(name, store)):
            return take_part(task, progress)
    except Exception as error:
        leave_group()
        if not isinstance(error, CorpusmillError):
            time.sleep(HEAR)
            keys = [f"{name}/error/{other}" for other in range(1, int(os.environ["WORLD_SIZE"]))]
            raise_first([json.loads(store.get(key)) for key in keys if store.check([key])])
        raise


def _follow_torchrun() -> int:
    """Runs the other processes: training after training, silently. Returns the exit status of the first process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torchrun forwards Ctrl-C; the first process handles it
    if not os.environ.get("CORPUSMILL_DEBUG"):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    store, patience = _torchrun_store(), EVER
    while True:
        name = f"order-{next(_numbers)}"
        try:
            store.wait([name], patience)
        except dist.DistError:  # the first process has not ended in time
            return 1
        order = json.loads(store.get(name))
        if "end" in order:
            time.sleep(HEAR if order["end"] else 0.0)  # lets the first process end first: torchrun kills all others after one has failed
            return int(order["end"])
        try:
            with process_group(order["device"], dist.PrefixStore(name, store)):
                take_part(order, None)
        except Exception as error:  # noqa: BLE001 - the boundary where any failure becomes a sentence of the first process
            store.set(f"{name}/error/{rank()}", json.dumps(described(error)))
            leave_group()
            patience = END


@cache
def _torchrun_store() -> dist.Store:
    """Returns a part of torchrun's own store, for the current attempt (`--max-restarts`)."""
    store, _, _ = next(rendezvous("env://"))
    return dist.PrefixStore(f"corpusmill-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


if __name__ == "__main__":
    main()
