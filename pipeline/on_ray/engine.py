"""The Ray engine: starts Ray on this machine, or joins the cluster that `RAY_ADDRESS` names, and performs phases there.

Without `RAY_ADDRESS` (`ray job submit` sets it) a run starts a Ray of its own, which ends with the run. With `here_first` it starts only
for a phase that is worth the seconds that Ray and its workers need to come up: a small one is performed in the calling process.
With `RAY_ADDRESS=local`, a training of several processes runs on such a Ray, too (`train/launch.py`). Workers publish files themselves,
so only small records pass through Ray's object store.
"""

import contextlib
import logging
import os
import secrets
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from corpusmill.pipeline.cache import kernels_folder
from corpusmill.pipeline.engine import TASK_TIMEOUT, Engine, InlineEngine, Job
from corpusmill.pipeline.errors import ClusterLost, CorpusmillError, InputError
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.failures import Report
from corpusmill.pipeline.interrupts import Terminated, kept_handler
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.on_ray.dispatch import Dispatch, Share
from corpusmill.pipeline.stage import Task

EngineName = Literal["auto", "ray", "inline"]
ADDRESS, LOCAL = "RAY_ADDRESS", "local"
#: Whether Ray may have nodes on other machines, and so listens on all addresses.
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
#: A phase of at most FEW_BYTES begins in the calling process. What it has not begun after QUICK seconds (a slow step of the user's) goes to
#: Ray.
FEW_BYTES, QUICK = 16 << 20, 5.0
#: Workers request memory from a cluster in steps of this size, so that most phases can reuse the workers of the phase before.
STEP_MB = 1024
#: Bytes of the object store of a run's own Ray. It is nearly unused, so this is the smallest size that Ray accepts.
OBJECT_STORE = 80 << 20
#: Keeps Ray quiet on the terminal: no warnings about CUDA variables, no lines about dead workers (the run reports these itself).
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}
#: Seconds in which a cluster must take a connection.
REACHED_IN = 10.0
#: Seconds after which a running cluster's head is asked again, and in which it must answer: 60 after the head has gone, Ray ends this
#: process with a trace.
ASKED, MISSED = 1.0, 40.0
#: Absorbs the rounding of parts of a GPU: 1 / 0.1 is a little less than 10.
ROUNDING = 1e-9


class RayEngine:
    """Performs tasks in Ray actors. `workers=0` means one for each CPU of the cluster or, without one, of this machine. `task_timeout`:
    seconds for a task (`engine.task_limit`). `here_first`: performs small phases in this process, as long as no Ray is running."""

    def __init__(self, workers: int = 0, task_timeout: float = TASK_TIMEOUT, here_first: bool = False):
        self.task_timeout = task_timeout
        self.here_first = here_first
        self.workers = workers or os.cpu_count() or 1
        self._asked = workers
        self._started = False
        self._idle: dict[Any, int] = {}  # actors of earlier phases, with the bytes of Ray's `memory` that each has

    def perform(self, job: Job, tasks: Sequence[Task], report: Report) -> None:
        if self._is_small(job, tasks):
            tasks = self._perform_here(job, tasks, report)
        if not tasks:
            return
        ray = self._connected()
        try:
            self._perform_on(ray, job, tasks, report)
        except ClusterLost:
            self._started = False  # what Ray is told now, it would wait for
            raise

    def _perform_on(self, ray: Any, job: Job, tasks: Sequence[Task], report: Report) -> None:
        local = _address() == LOCAL
        check = None if local else Head(ray.get_runtime_context().gcs_address, job, report).check
        if check:
            check()  # the cluster may have gone between two phases
        if job.gpus:
            self._end_idle()

        def share() -> Share:
            self._count_workers(ray)
            return share_out(ray.nodes(), job.gpus, min(self.workers, len(tasks), job.most or len(tasks)))

        memory = 0 if local else memory_of_actor(ray.nodes(), job.memory_mb)
        if local:
            job = replace(job, code=None)  # workers run this machine's code
        idle = None if job.gpus else self._idle
        with contextlib.closing(Dispatch(ray, job, tasks, share, report, memory, idle, self.task_timeout, check)) as dispatch:
            dispatch.run()

    def _is_small(self, job: Job, tasks: Sequence[Task]) -> bool:
        """Whether this process may finish the phase before Ray, which is not running yet, would have started."""
        here = self.here_first and not self._started and _address() == LOCAL and not job.gpus
        return here and sum(task.size for task in tasks) <= FEW_BYTES

    def _perform_here(self, job: Job, tasks: Sequence[Task], report: Report) -> list[Task]:
        """Performs tasks in this process. Returns those that were not begun after QUICK seconds, if there are several."""
        waiting, until = deque(tasks), time.monotonic() + QUICK

        def soon() -> Iterator[Task]:
            while waiting and (len(waiting) == 1 or time.monotonic() < until):
                yield waiting.popleft()

        InlineEngine(self.task_timeout).perform(job, soon(), report)
        return list(waiting)

    @property
    def elsewhere(self) -> bool:
        return _address() != LOCAL

    def known_workers(self) -> int | None:
        """Returns the number of workers. None if it depends on a cluster's CPUs and no task has been sent there yet."""
        return self.workers if self._asked or self._started or _address() == LOCAL else None

    def close(self) -> None:
        if self._started:
            import ray

            self._idle.clear()  # they end with Ray
            ray.shutdown()
            self._started = False

    def connect(self) -> Any:
        """Returns the module `ray`, connected to a cluster on which no idle worker holds a CPU."""
        ray = self._connected()
        self._end_idle()
        return ray

    def _end_idle(self) -> None:
        import ray

        while self._idle:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._idle.popitem()[0])

    def _connected(self) -> Any:
        address = _address()
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if address == LOCAL:
            # Ray reads these variables when it is imported. With a token of our own, Ray writes none into the home folder. Without clusters
            # (whose switch has an odd name) it listens on loopback alone. The last one makes workers run with this Python even where
            # `uv run` started it.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            os.environ.setdefault(CLUSTERS, "0")
            os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        import ray

        if self._started:
            return ray
        try:
            with kept_handler():  # Ray's own handler would end the process without a message
                if address == LOCAL:
                    _start(ray, self.workers)
                else:
                    _check_answers(address)
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except SystemExit as end:  # SIGTERM came meanwhile
            raise Terminated from end
        except Exception as error:
            raise _start_error(address, error) from error
        self._started = True
        self._count_workers(ray)
        if address != LOCAL:
            nodes = sum(bool(node["Alive"]) for node in ray.nodes())
            cpus = int(ray.cluster_resources().get("CPU", 0))
            at = ray.get_runtime_context().gcs_address  # RAY_ADDRESS may be `auto`
            print(f"On the Ray cluster at {at}: {counted(nodes, 'node')}, {counted(cpus, 'CPU')}.", file=sys.stderr, flush=True)
        return ray

    def _count_workers(self, ray: Any) -> None:
        """Sets `workers` to the CPUs that the cluster has now, since nodes come and go, unless the user gave a number."""
        if _address() != LOCAL and not self._asked:
            self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))


def make_engine(name: EngineName, workers: int = 0, task_timeout: float | None = None) -> Engine:
    """Returns an engine by its name. `workers`: 0 means one for each CPU. `task_timeout`: seconds; None means TASK_TIMEOUT.

    Raises InputError if there is no such engine, for a negative number, and if nothing listens at RAY_ADDRESS.
    """
    if name not in get_args(EngineName):
        raise InputError(f"engine={name!r}: expected auto, ray or inline.")
    for option, number in (("workers", workers), ("task_timeout", task_timeout or 0)):
        if number < 0:
            raise InputError(f"{option}={number}: expected 0 or more.")
    if name != "inline" and _address() != LOCAL:
        _reach(_address())
    kernels_folder()  # if it can't be written, this process reports that, instead of each worker
    timeout = TASK_TIMEOUT if task_timeout is None else task_timeout
    return InlineEngine(timeout) if name == "inline" else RayEngine(workers, timeout, here_first=name == "auto")


def _start(ray: Any, workers: int) -> None:
    """Starts Ray on this machine. Tries twice, since Ray's limit of 30 seconds may be too short on a busy machine."""
    options = {
        "address": LOCAL, "num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE, "log_to_driver": False,
        "logging_level": logging.ERROR,
    }  # fmt: skip
    try:
        ray.init(**options)
    except Exception:  # noqa: BLE001 - the second try reports the error
        ray.shutdown()
        ray.init(**options)


def share_out(nodes: Sequence[Mapping[str, Any]], gpus: float, actors: int) -> Share:
    """Returns the shares of at most `actors` workers, each of which requests the share `gpus` of a GPU (at most 1; 0: none).

    `nodes` are those of `ray.nodes()`. Where no node has a GPU, workers use the CPU. Else there are as many workers as fit on the GPUs,
    and they divide the CPUs of their node: each GPU needs texts to be read and tokenized.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0) >= gpus]
    if not gpus or not resources:
        return Share(actors)
    places = [int(node["GPU"] / gpus + ROUNDING) for node in resources]
    cpus = min(int(node.get("CPU", 1)) // min(places_here, actors) for node, places_here in zip(resources, places))
    return Share(min(actors, sum(places)), max(1, cpus), gpus)


def memory_of_actor(nodes: Sequence[Mapping[str, Any]], memory_mb: int) -> int:
    """Returns the bytes of Ray's `memory` for an actor: `memory_mb`, rounded up to steps of `STEP_MB` where a node has that much. Returns
    0 where the need is not known, and where no node has enough, since the actor would wait for ever."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    most = max((node.get("memory", 0) for node in alive if node.get("CPU")), default=0)
    steps = -(-memory_mb // STEP_MB) * STEP_MB
    return next((wanted << 20 for wanted in (steps, memory_mb) if wanted << 20 <= most), 0)


class Head:
    """The head of a cluster (`address`: HOST:PORT of its control store) in a phase."""

    def __init__(self, address: str, job: Job, report: Report):
        self.address, self.job, self.report = address, job, report
        self.asked = float("-inf")

    def check(self) -> None:
        """Asks the head whether it answers, if the last time is ASKED seconds ago. Raises ClusterLost after MISSED seconds without an
        answer."""
        began, said = time.monotonic(), False
        while time.monotonic() - self.asked >= ASKED:
            try:
                _check_answers(self.address)
                self.asked = time.monotonic()
            except OSError as error:
                if time.monotonic() - began >= MISSED:
                    raise ClusterLost(f"the Ray cluster at {self.address} is gone; start it, and the same command goes on.") from error
                message = f"the Ray cluster at {self.address} does not answer; this run waits {MISSED:.0f} s for it ..."
                if not said:
                    self.report(Event("waiting", self.job.stage, self.job.phase, message=message, level="warning"))
                said = True
                time.sleep(ASKED)


def _address() -> str:
    return os.environ.get(ADDRESS) or LOCAL


def _reach(address: str) -> None:
    """Raises InputError if a cluster's address is of another kind, or nothing listens there."""
    try:
        if "://" in address:
            raise OSError
        _check_answers(address)
    except OSError as error:
        raise _start_error(address, error) from error


def _check_answers(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), REACHED_IN).close()


def _start_error(address: str, error: Exception) -> CorpusmillError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if address == LOCAL:
        return CorpusmillError(f"Ray can't be started on this machine ({reason}); --engine inline works without it.")
    if address.startswith(("http://", "https://")):
        how = "ray job submit -- corpusmill run ..."
        return InputError(f"{ADDRESS}={address}: this is where jobs are submitted ({how}); a run started here needs HOST:6379.")
    if "://" in address:
        return InputError(f"{ADDRESS}={address}: Ray Client is not used; a run started here needs HOST:6379.")
    token = "" if os.environ.get("RAY_AUTH_MODE") else "; if it asks for its token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
    return InputError(f"{ADDRESS}={address}: this Ray cluster can't be reached ({reason}){token}.")
