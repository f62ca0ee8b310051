"""Runs functions on several real processes at once, joined by gloo; none of them can make a test hang.

The processes are forked from a server that has imported torch but not used it, so they start in milliseconds and inherit no
threads. They end with `os._exit` once their results are written: about one gloo process in ten aborts in its teardown
(https://github.com/pytorch/pytorch/issues/190489), even after a correct computation.
"""

import importlib.util
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch

PRELOADED = ["pytest", "ranks", "torch.distributed.fsdp", "torch.distributed.tensor.parallel", "torch.distributed.pipelining",
             "torch.distributed.checkpoint", "torch.distributed.device_mesh", "torch._dynamo", "corpusmill.train.pretrain_job"]  # fmt: skip
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
FAILED = 3  # the exit code of a rank that has written its exception to a file


def run_ranks(function: Callable[..., Any], world: int, *args: Any, timeout: float = 300) -> list[Any]:
    """Runs `function(*args)` on each of `world` processes of one gloo group; returns their results by rank.

    Arguments and results travel by pickle. The exception of a rank is raised here, with a note of its rank and its trace;
    after `timeout` seconds all are killed and TimeoutError is raised.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        target = (function.__module__, sys.modules[function.__module__].__file__, function.__qualname__)
        context = _context()
        processes = [
            context.Process(target=_rank, args=(rank, world, folder, target, pickle.dumps(args), timeout), daemon=True)
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        try:
            _wait(processes, timeout)
            return [_result(Path(folder), rank, processes[rank].exitcode) for rank in _culprit_first(Path(folder), processes)]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _context() -> Any:
    """Returns the context that forks processes; started at first use, with an environment that keeps each rank on one thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}).items():
            patch.setenv(name, value)
        multiprocessing.forkserver.ensure_running()
    return context


def _wait(processes: list[Any], timeout: float) -> None:
    """Waits until all have ended, or a moment after one has failed, because the others may wait for it for ever."""
    deadline, failed = time.monotonic() + timeout, False
    while running := [process for process in processes if process.exitcode is None]:
        left = deadline - time.monotonic()
        if left <= 0 and not failed:
            raise TimeoutError(f"ranks {[processes.index(p) for p in running]} of {len(processes)} did not end in {timeout} seconds")
        if left <= 0:
            return
        wait([process.sentinel for process in running], timeout=left)
        if not failed and any(process.exitcode for process in processes):
            deadline, failed = time.monotonic() + 1, True


def _culprit_first(folder: Path, processes: list[Any]) -> list[int]:
    """Returns the ranks in order, but first a rank that died without an exception or was the first to fail: it made the others fail."""
    died = [rank for rank, process in enumerate(processes) if process.exitcode not in (None, 0, FAILED)]
    failed = sorted(folder.glob("failed-*"), key=lambda path: path.stat().st_mtime_ns)
    return [*died, *(int(path.name.removeprefix("failed-")) for path in failed), *range(len(processes))][: len(processes)]


def _result(folder: Path, rank: int, exitcode: int | None) -> Any:
    failed = folder / f"failed-{rank}"
    if failed.exists():
        error, trace = pickle.loads(failed.read_bytes())
        error.add_note(f"on rank {rank}:\n{trace}")
        raise error
    done = folder / f"done-{rank}"
    if not done.exists():
        raise RuntimeError(f"rank {rank} ended with {exitcode} and no result")
    return torch.load(done, weights_only=False)


def _rank(rank: int, world: int, folder: str, target: tuple[str, str, str], arguments: bytes, timeout: float) -> None:
    """Runs one process from its start to its end."""
    code = 0
    try:
        torch.set_num_threads(1)
        group = torch.distributed
        store = group.FileStore(f"{folder}/store", world)
        group.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout))
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
        _write(folder, f"done-{rank}", lambda path: torch.save(_function(target)(*pickle.loads(arguments)), path))
    except BaseException as error:  # noqa: BLE001 - it is raised again in the test
        trace, code = traceback.format_exc(), FAILED
        try:
            blob = pickle.dumps((error, trace))
            pickle.loads(blob)
        except Exception:  # noqa: BLE001 - not every exception can be pickled
            blob = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), trace))
        _write(folder, f"failed-{rank}", lambda path: path.write_bytes(blob))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _write(folder: str, name: str, write: Callable[[Path], Any]) -> None:
    """Writes a file atomically."""
    temporary = Path(folder) / f"new-{name}"
    write(temporary)
    temporary.rename(Path(folder) / name)


def _function(target: tuple[str, str, str]) -> Callable[..., Any]:
    """Returns a function of a test module, which pytest imported under a name that is not on the path."""
    module, file, name = target
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec and spec.loader
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]
