"""Starts a training on the processes that its recipe asks for: on this machine, under torchrun, or on a Ray cluster."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

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
    from multiprocessing.process import BaseProcess

    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.checkpoint_dir import CheckpointDir


# ---- launch ------------------------------------------------------------------------------------------


class GroupJob(TypedDict):
    """A job for all processes of a group, as JSON values. They leave their results and errors in the folder `left` (a path or URL)."""

    job: str
    arguments: dict[str, Any]
    parallel: dict[str, Any]
    device: str
    left: str
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

    Processes leave results and errors in `folder`. On several machines that must be on a disk that all share or, where the run lies on a
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
    left = store.child("processes").root if store else str(folder.absolute())
    task: GroupJob = {"job": job, "arguments": arguments, "parallel": parallel.model_dump(), "device": device, "left": left}
    if torchrun:
        return _lead_torchrun(task, progress)
    from corpusmill.pipeline.on_ray.engine import ADDRESS, RayEngine

    if isinstance(engine, RayEngine) and os.environ.get(ADDRESS):
        from corpusmill.train.launch_ray import train_on_ray

        task["code"] = code_for(load_object(job)).as_json()
        return train_on_ray(task, engine, partial(following, progress, title, None if store else log, steps), title)
    return _train_here({**task, "left": str(folder.absolute())}, partial(following, progress, title, log, steps), title)


# ---- the work of each process ------------------------------------------------------------------------
#
# Each process finds its device, joins the group, runs the job, and leaves its result or its error in a file.

#: The file with the first process's result.
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
    if not threads:  # they decide the last bits of sums, so all launchers use this rule
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))
    torch.set_num_threads(threads)
    try:
        result: dict[str, Any] = job(dims, progress, **task["arguments"])
    finally:
        torch.set_num_threads(before)
    if rank() == 0:
        Storage(task["left"]).write_bytes(RESULT, json.dumps(result).encode())
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


@contextmanager
def process_group(task: GroupJob, store: dist.Store) -> Iterator[None]:
    """Joins the group of all processes for the block; they meet at `store`. An error in the block is left as a file before this process
    leaves the group, which the others notice."""
    number, world = rank(), int(os.environ["WORLD_SIZE"])
    try:
        dist.init_process_group(backend(task["device"]), store=store, rank=number, world_size=world)
        yield
        store.set(f"done/{number}", "")  # so that no process leaves while another still reads
        store.wait([f"done/{other}" for other in range(world)])
    except BaseException as error:
        leave_error(Storage(task["left"]), error)
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


# ---- errors ------------------------------------------------------------------------------------------


class RankError(Exception):
    """A process of the group ended with an exception other than CorpusmillError. A note has the trace."""


def leave_error(left: Storage, error: BaseException) -> None:
    """Writes the error of this process to a file; `exit_code` is null unless it is a CorpusmillError."""
    ours = isinstance(error, CorpusmillError)
    described = {
        "rank": rank(),
        "time": time.time(),
        "message": str(error) if ours else f"{type(error).__name__}: {error}",
        "exit_code": error.exit_code if isinstance(error, CorpusmillError) else None,
        "trace": "".join(traceback.format_exception(error)),
    }
    left.write_bytes(f"error-{rank()}.json", json.dumps(described).encode())


def errors_left(left: Storage) -> list[dict[str, Any]]:
    """Returns the processes' errors: CorpusmillErrors first, then by time."""
    names = [name for name in left.list_files() if name.startswith("error-") and name.endswith(".json")]
    found = [json.loads(left.read_bytes(name)) for name in names]
    return sorted(found, key=lambda error: (error["exit_code"] is None, error["time"]))


def raise_error(error: dict[str, Any]) -> None:
    """Raises the exception that a file of `leave_error` describes."""
    if error["exit_code"] is not None:
        raise (InputError if error["exit_code"] == InputError.exit_code else CorpusmillError)(error["message"])
    found = RankError(f"process {error['rank'] + 1}: {error['message']}")
    found.add_note(error["trace"])
    raise found from None


# ---- processes on this machine -----------------------------------------------------------------------
#
# Fresh Python processes, which meet at a store in this process and end with it.
#
# torchrun's agent and `torch.multiprocessing` restart after any failure, even wrong input, or report the first process that they find
# ended, even where another was killed before it. So this part is our own; it sets torchrun's variables.

#: Seconds between two checks of the processes; seconds in which the others may end by themselves after one has failed.
LOOK, GRACE = 0.05, 2.0


def _train_here(task: GroupJob, bar: Bar, title: str) -> dict[str, Any]:
    """Runs the processes, again after each kill. Returns the first one's result. Their files are kept only after a bug or the last kill."""
    left, parallel = Storage(task["left"]), ParallelConfig.model_validate(task["parallel"])
    for attempt in range(parallel.max_restarts + 1):
        left.remove_folder("")
        Path(left.root).mkdir(parents=True)
        codes = _run_processes(task, parallel.world, bar)
        errors = errors_left(left)
        if errors and errors[0]["exit_code"] is not None:
            left.remove_folder("")
            raise_error(errors[0])
        if not any(codes):
            result: dict[str, Any] = json.loads(left.read_bytes(RESULT))
            left.remove_folder("")
            return result
        killed = next((number for number, code in enumerate(codes) if code and code < 0), None)
        if killed is None:
            for error in errors[:1]:
                raise_error(error)
            failed = next(number for number, code in enumerate(codes) if code)
            raise RankError(f"process {failed + 1} of {parallel.world} ended with {codes[failed]}; its output is in {left.root}")
        cause = signal.Signals(-(codes[killed] or 0)).name
        perhaps = ", perhaps for want of memory" if cause == "SIGKILL" else ""
        what = f"process {killed + 1} of {parallel.world} was killed ({cause}{perhaps})"
        if attempt < parallel.max_restarts:
            say_restart(title, what, attempt + 1, parallel.max_restarts)
    raise CorpusmillError(f"{title}: {what}, and {parallel.max_restarts} restarts are used up; its output is in {left.root}.")


def say_restart(title: str, what: str, number: int, most: int) -> None:
    again = f"all begin again from the last state (restart {number} of {most})"
    print(f"corpusmill: {title}: {what}; {again}.", file=sys.stderr, flush=True)


def _run_processes(task: GroupJob, world: int, bar: Bar) -> Sequence[int | None]:
    """Runs the processes until all have ended, or a moment after one has failed. Returns their exit codes; None: was still running."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # on a free port of its own
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = [
        context.Process(target=_work, args=(number, world, store.port, task), daemon=True) for number in range(world)
    ]
    with bar() as look:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which they inherit: Ctrl-C reaches this process only
        try:
            for process in processes:
                process.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            until = float("inf")
            while any(process.exitcode is None for process in processes) and time.monotonic() < until:
                time.sleep(LOOK)
                look()
                if any(process.exitcode for process in processes):  # the death of one makes others fail, so all get a moment to end
                    until = min(until, time.monotonic() + GRACE)
            return [process.exitcode for process in processes]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()


def _work(number: int, world: int, port: int, task: GroupJob) -> None:
    """Runs one of the processes, from its start to its end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = os.open(Storage(task["left"]).path(f"rank-{number}.log"), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    code = 1
    with contextlib.suppress(Exception), process_group(task, dist.TCPStore("127.0.0.1", port)):
        take_part(task, None)
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
    """Runs the first process's part of a training. Raises the first error of all processes."""
    left = Storage(task["left"])
    left.remove_folder("")
    try:
        with process_group(task, dist.PrefixStore(_order(task), _torchrun_store())):
            return take_part(task, progress)
    except Exception as error:
        if not isinstance(error, CorpusmillError):
            time.sleep(HEAR)
            raise_error(errors_left(left)[0])
        raise
    finally:
        left.remove_folder("")


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
            with process_group(order, dist.PrefixStore(name, store)):
                take_part(order, None)
        except Exception:  # noqa: BLE001 - `process_group` has left it for the first process
            patience = END


@cache
def _torchrun_store() -> dist.Store:
    """Returns a part of torchrun's own store, for the current attempt (`--max-restarts`)."""
    store, _, _ = next(rendezvous("env://"))
    return dist.PrefixStore(f"corpusmill-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
