"""What each process of a group does: find its device, join the others, run the job, leave its result or its error in a file.

`python -m corpusmill.train.rank` is such a process on this machine; its task comes as a line of JSON on standard input.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NotRequired, TypedDict

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from corpusmill.pipeline.code import Code, check_here
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.launch import RESULT, TERMINAL
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.dims import ParallelDims


class GroupJob(TypedDict):
    """A job for all processes of a group; JSON."""

    job: str
    arguments: dict[str, Any]
    parallel: dict[str, Any]
    device: str
    code: NotRequired[dict[str, Any]]  # the driver's (`Code.as_json`), where other machines take part


def rank() -> int:
    """This process's number, as torchrun, Ray Train and our own launcher tell it."""
    return int(os.environ["RANK"])


def take_part(task: GroupJob, progress: Progress | None, threads: int = 0) -> dict[str, Any]:
    """Runs the job as one of `WORLD_SIZE` processes, on `threads` threads (0: its share of the cores). The process group exists.
    Raises InputError where this machine has other code than the driver."""
    job = load_object(task["job"])
    if "code" in task:
        check_here(Code.from_json(task["code"]))
    dims = ParallelDims.distributed(ParallelConfig.model_validate(task["parallel"]), local_device(task["device"]))
    with _threads(threads or _share_of_cores()):
        result: dict[str, Any] = job(dims, progress, **task["arguments"])
    return result


def backend(device: str) -> str:
    """What carries the messages: NCCL between GPUs, gloo for tensors on CPUs."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"


def local_device(device: str) -> torch.device:
    """The CPU, or the GPU that is this process's by its number on its machine."""
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
    """The processes of a machine share its cores evenly. How many threads add up decides the last bits, so all launchers do the same."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def process_group(device: str, store: dist.Store) -> Iterator[None]:
    """The group of all processes for the time of the block; `store` is where they meet. After an error in the block the group stays: a
    process reports its error first and then leaves (`leave_group`), which the others notice."""
    number, world = rank(), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend(device), store=store, rank=number, world_size=world)
    yield
    store.set(f"done/{number}", "")  # no process leaves while another still reads
    store.wait([f"done/{other}" for other in range(world)])
    dist.destroy_process_group()


def leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def described(error: BaseException) -> dict[str, Any]:
    """An error as JSON; `exit_code` is null where it is none of ours."""
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


def _end_with_parent() -> None:
    """Standard input ends when the process that started this one does, however it does."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def _terminal() -> Progress | None:
    """The launcher's terminal, where it has given this process one; its standard error is a file."""
    if TERMINAL not in os.environ:
        return None
    from rich.console import Console

    progress = Progress(True)
    progress.console = Console(file=os.fdopen(int(os.environ[TERMINAL]), "w"), force_terminal=True)
    return progress


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    left = Storage(order["left"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 0
    try:
        with process_group(order["task"]["device"], next(rendezvous("env://"))[0]):
            leave_result(left, take_part(order["task"], _terminal()))
    except BaseException as error:  # noqa: BLE001 - the boundary where any failure becomes a file
        leave_error(left, error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # gloo's threads abort about one in ten processes that end in the usual way (pytorch#190489)


if __name__ == "__main__":
    main()
