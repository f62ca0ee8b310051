"""Starts a training on as many processes as its recipe asks for: on this machine, under torchrun, or on a Ray cluster."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from corpusmill.pipeline.code import code_for
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.train.compute import pick_device
from corpusmill.train.options import ParallelConfig
from corpusmill.train.parallel.dims import ParallelDims

if TYPE_CHECKING:
    from torch.distributed import Store

    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.checkpoint_dir import CheckpointDir
    from corpusmill.train.rank import GroupJob


# ---- launch ------------------------------------------------------------------------------------------


def launch_stage(run: "StageRun", job: str, config: Any, place: "CheckpointDir", **arguments: Any) -> dict[str, Any]:
    """Trains by the function `job` (`module:name`), as the configuration of a stage says; returns the first process's result."""
    given = {"config": config.model_dump(mode="json"), "run": run.run.root, "work": place.work, **arguments}
    return launch(
        job, given, config.parallel, config.device, run.progress, folder=place.processes, store=place.store, engine=run.engine,
        title=run.stage.name, log=place.log_file, steps=config.loop.steps,
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
    """Runs the function `module:name` as `function(dims, progress, **arguments)` on every process; returns the first one's result.

    `arguments` and results are JSON. A single process is this one. Several are started on this machine, or by Ray Train where `engine` is
    Ray's and `RAY_ADDRESS` names a cluster; under torchrun they exist already. When a process is killed, the group starts again, up to
    `parallel.max_restarts` times: jobs save their state.

    Processes leave results and errors in `folder`, which on a cluster lies on a disk that all nodes share; where the run lies on a store,
    they leave them in `store`, the training's folder there. On a cluster the bar follows `log`, up to `steps` lines.

    Raises what a process raised where that is a CorpusmillError; else RankError with the trace.
    """
    if under_torchrun():
        _check_torchrun(parallel, title)
    if parallel.world == 1:
        result: dict[str, Any] = load_object(job)(ParallelDims.single(pick_device(device)), progress, **arguments)
        return result
    task: GroupJob = {"job": job, "arguments": arguments, "parallel": parallel.model_dump(), "device": device}
    if under_torchrun():
        return lead_torchrun(task, progress)
    from corpusmill.pipeline.on_ray.engine import ADDRESS, RayEngine

    if isinstance(engine, RayEngine) and os.environ.get(ADDRESS):
        from corpusmill.train.launch_ray import RayGroup
        from corpusmill.train.watch import following

        task["code"] = code_for(load_object(job)).as_json()
        left = store.child("processes") if store else Storage(str(folder.absolute()))
        bar = partial(following, progress, title, None if store else log, steps)
        return with_restarts(RayGroup(task, left, engine, bar, title), parallel.max_restarts, title)
    return with_restarts(LocalGroup(task, folder, progress), parallel.max_restarts, title)


def _check_torchrun(parallel: ParallelConfig, title: str) -> None:
    started = torchrun_world()
    if parallel.world != started:
        raise InputError(
            f"{title}.parallel: replicate x shard x tensor x pipeline are {parallel.world} processes, and torchrun has started "
            f"{started} (WORLD_SIZE)."
        )


# ---- restarts ----------------------------------------------------------------------------------------
#
# A group of processes starts again when one of them is killed. Here is also what their failures mean.

#: What the first process leaves in the group's folder.
RESULT = "result.json"
#: The environment variable with the file descriptor on which the first process may draw its bar.
TERMINAL = "CORPUSMILL_TERMINAL"


class RankError(Exception):
    """A process of the group ended with another exception than CorpusmillError. A note of this error has its trace."""


class Killed(Exception):
    """A process of the group was killed. Says which one, and how."""


class ProcessGroup(Protocol):
    """Processes that work on one task together."""

    left: Storage  # in which each attempt has a folder of its own

    def run(self, left: Storage) -> None:
        """Starts the processes, which leave `result.json` and `error-<rank>.json` in `left`, and waits for them. Raises Killed or RankError
        if one fails."""
        ...


def with_restarts(group: ProcessGroup, restarts: int, title: str) -> dict[str, Any]:
    """The first process's result, after as many attempts as it takes. Files of an attempt stay only if it failed with a trace.

    A process on a lost node may live on and leave its error later. So each attempt has a folder of its own.
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
    raise CorpusmillError(f"{title}: {failure}, and {restarts} restarts are used up; what it said is in {group.left.root}.")


def _errors_left(left: Storage) -> list[dict[str, Any]]:
    """The errors that the processes left, the earliest first."""
    names = [name for name in left.list_files() if name.startswith("error-") and name.endswith(".json")]
    return sorted((json.loads(left.read_bytes(name)) for name in names), key=lambda error: float(error["time"]))


def raise_first(errors: list[dict[str, Any]]) -> None:
    """Raises the first error that is a CorpusmillError, else the first of all (see `rank.described`). Does nothing without errors."""
    for error in errors:
        if error["exit_code"] is not None:
            raise (InputError if error["exit_code"] == InputError.exit_code else CorpusmillError)(error["message"])
    for error in errors[:1]:
        found = RankError(f"process {error['rank'] + 1}: {error['message']}")
        found.add_note(error["trace"])
        raise found from None


# ---- processes on this machine -----------------------------------------------------------------------
#
# Fresh Pythons that meet at a store of this process, and end with it.

#: Seconds between two looks at the processes, and seconds that the others get to end by themselves when one has failed.
LOOK, GRACE = 0.05, 2.0


class LocalGroup:
    """`parallel.world` processes on this machine.

    torch's own launchers (torchrun's agent, `torch.multiprocessing`) restart whatever failed, wrong input too, write about it on the
    terminal, and leave the others half a minute to end; hence these few lines. The meeting is theirs: torchrun's variables, a TCPStore.
    """

    def __init__(self, task: "GroupJob", folder: Path, progress: Progress | None):
        self.task, self.progress = task, progress
        self.left = Storage(str(folder))
        self.world = _world(task)

    def run(self, left: Storage) -> None:
        from torch.distributed import TCPStore

        Path(left.root).mkdir(parents=True)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # a free port that is ours
        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(self._process(rank, store.port, left)) for rank in range(self.world)]
            while (codes := [process.poll() for process in processes]) and None in codes and not any(codes):
                time.sleep(LOOK)
            if any(codes):
                raise self._failure(processes)

    @contextlib.contextmanager
    def _process(self, rank: int, port: int, left: Storage) -> Iterator[subprocess.Popen[bytes]]:
        """A process for the time of the block. It is killed at the end of the block, and kills itself if this process ends before."""
        env = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.world), "LOCAL_WORLD_SIZE": str(self.world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1",
        }  # fmt: skip
        if sys.platform == "linux":
            env.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with open(left.path(f"rank-{rank}.log"), "wb") as log, self._terminal(env, rank) as descriptors:
            process = subprocess.Popen(
                [sys.executable, "-m", "corpusmill.train.rank"], env=env, stdin=subprocess.PIPE, stdout=log, stderr=log,
                pass_fds=descriptors, start_new_session=True,  # Ctrl-C is for this process; it ends the others
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

    @contextlib.contextmanager
    def _terminal(self, env: dict[str, str], rank: int) -> Iterator[tuple[int, ...]]:
        """A descriptor on which the first process can draw its bar, where there is a terminal."""
        if rank or self.progress is None or not self.progress.enabled:
            yield ()
            return
        console = self.progress.console
        descriptor = os.dup(console.file.fileno())
        try:
            env.update({TERMINAL: str(descriptor), "COLUMNS": str(console.size.width), "LINES": str(console.size.height)})
            yield (descriptor,)
        finally:
            os.close(descriptor)

    def _failure(self, processes: list[subprocess.Popen[bytes]]) -> Exception:
        """The error to raise. The death of one process makes others fail, so all get a moment to report."""
        until = time.monotonic() + GRACE
        while any(process.poll() is None for process in processes) and time.monotonic() < until:
            time.sleep(LOOK)
        if self.progress and self.progress.enabled:
            self.progress.console.show_cursor(True)
        for number, process in enumerate(processes, 1):
            if process.returncode is not None and process.returncode < 0:
                cause = signal.Signals(-process.returncode).name
                perhaps = ", perhaps for want of memory" if cause == "SIGKILL" else ""
                return Killed(f"process {number} of {self.world} was killed ({cause}{perhaps})")
        return RankError(f"a process ended with {next(p.returncode for p in processes if p.returncode)}")


def _world(task: "GroupJob") -> int:
    from corpusmill.train.options import ParallelConfig

    return ParallelConfig.model_validate(task["parallel"]).world


# ---- under torchrun ----------------------------------------------------------------------------------
#
# Under `torchrun ... -m corpusmill ...` every process runs the command: the first as always, the others wait until it needs them. Each
# training is published at torchrun's store, where the others look for the next one, or for the end.

#: Seconds between two looks at the store; until the errors of the other processes are read; until the first process has to end.
STORE_LOOK, HEAR, END = 0.2, 1.0, 60.0
_led = 0


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def torchrun_world() -> int:
    """How many processes torchrun started."""
    return int(os.environ["WORLD_SIZE"])


def run_command(main: Callable[[], None]) -> None:
    """Runs the command in the first process, takes part in its trainings in the others; all end with the same exit status."""
    if int(os.environ["RANK"]) > 0:
        sys.exit(_follow_torchrun(_torchrun_store()))
    code: Any = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
        raise
    finally:
        _torchrun_store().set("end", json.dumps(code if isinstance(code, int) else int(bool(code))))


def lead_torchrun(task: "GroupJob", progress: Progress | None) -> dict[str, Any]:
    """The first process's part in a training: calls the others and works with them. Raises what one of them raised first."""
    global _led
    from torch.distributed import PrefixStore

    from corpusmill.train.rank import leave_group, process_group, take_part

    name, store = f"training-{_led}", _torchrun_store()
    _led += 1
    store.set(name, json.dumps(task))
    try:
        with process_group(task["device"], PrefixStore(name, store)):
            return take_part(task, progress)
    except CorpusmillError:
        leave_group()
        raise
    except Exception:
        leave_group()
        raise_first(_torchrun_errors(store, name))
        raise


def _torchrun_errors(store: "Store", name: str) -> list[dict[str, Any]]:
    """The errors that other processes report within a moment, the earliest first."""
    time.sleep(HEAR)
    keys = [key for key in (f"{name}/error/{other}" for other in range(1, torchrun_world())) if store.check([key])]
    return sorted((json.loads(store.get(key)) for key in keys), key=lambda error: float(error["time"]))


def _follow_torchrun(store: "Store") -> int:
    """What processes other than the first do: training after training, silently. Returns the exit status of the first."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torchrun passes Ctrl-C on; the first process handles it
    if not os.environ.get("CORPUSMILL_DEBUG"):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    number = 0
    while not store.check(["end"]):
        name = f"training-{number}"
        if not store.check([name]):
            time.sleep(STORE_LOOK)
            continue
        number += 1
        if not _took_part(store, name):
            until = time.monotonic() + END
            while not store.check(["end"]) and time.monotonic() < until:
                time.sleep(STORE_LOOK)
            break
    code = int(json.loads(store.get("end"))) if store.check(["end"]) else 1
    time.sleep(HEAR if code else 0.0)  # torchrun kills the others as soon as one has failed: the first process goes first
    return code


def _took_part(store: "Store", name: str) -> bool:
    from torch.distributed import PrefixStore

    from corpusmill.train.rank import described, leave_group, process_group, rank, take_part

    task = json.loads(store.get(name))
    try:
        with process_group(task["device"], PrefixStore(name, store)):
            take_part(task, None)
    except Exception as error:  # noqa: BLE001 - the boundary where any failure becomes a sentence of the first process
        store.set(f"{name}/error/{rank()}", json.dumps(described(error)))
        leave_group()
        return False
    return True


def _torchrun_store() -> "Store":
    """A part of torchrun's own store, for this attempt of its (`--max-restarts`)."""
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    return PrefixStore(f"corpusmill-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
