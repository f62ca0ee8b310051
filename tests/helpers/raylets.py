"""A Ray cluster of several raylets on this machine: a head and workers, each with its own loopback address, resources and folder.

They are the processes that `ray start` starts on several machines. Every process of a node has the node's mark in its environment. By this
mark a node's processes are found and killed, and none is left when the cluster is closed, whatever has died before.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import marked

from corpusmill.pipeline.on_ray.engine import CLUSTERS  # a run with a Ray of its own forbids them in its process

MARK = "CORPUSMILL_TEST_NODE"
#: Object store of a node, bytes: nearly unused, so the smallest that Ray accepts.
OBJECT_STORE = 80 * 1024 * 1024
#: A node that fails to answer three times, one second apart, is dead (with its defaults, Ray takes 15 seconds to notice).
NOTICE = {"RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
#: Seconds for a node to come up, and for its processes to end after a kill.
UP, DOWN = 180.0, 20.0
HEAD = 0


class Raylets:
    """As a context manager, closes itself at the end. Node 0 is the head; workers are numbered from 1 in the order of their start.

    `workers` are the resources of the first workers: `{"CPU": 1, "GPU": 2, "big": 1}`; the head has `head`.
    `variables` are added to the environment of all nodes and of their processes, which also find the modules that this process finds.
    `dashboard` is needed for jobs (`ray job submit`), whose address is `dashboard_url`. `options`: further ones of `ray start` by node.
    """

    def __init__(
        self,
        workers: Sequence[Mapping[str, float]] = ({"CPU": 1}, {"CPU": 1}),
        head: Mapping[str, float] | None = None,
        variables: Mapping[str, str] | None = None,
        dashboard: bool = False,
        options: Callable[[int], list[str]] = lambda node: [],
    ):
        self.mark, self.folder = secrets.token_hex(8), Path(tempfile.mkdtemp(prefix="rl-"))  # sockets' names have at most 107 bytes
        self.variables, self.count, self.dashboard_url, self.options = dict(variables or {}), 1, "", options
        self.token = os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # read once per process, so all clusters share it
        try:
            self._start_head(head or {"CPU": 0}, dashboard)
            self.add(*workers)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Raylets":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment that a driver needs to reach the cluster: its address and its token."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_TOKEN": self.token, "RAY_AUTH_MODE": "token"}

    def add(self, *workers: Mapping[str, float]) -> list[int]:
        """Starts further workers with these resources, all at once; returns their numbers when they are up."""
        numbers = list(range(self.count, self.count + len(workers)))
        self.count += len(workers)
        begun = [(n, resources, self._begin(n, resources, self._joining)) for n, resources in zip(numbers, workers, strict=True)]
        for number, resources, process in begun:
            try:
                _finish(process)
            except AssertionError:  # Ray gives a node 30 seconds, which may be too short on a busy machine
                self._end(number)
                _finish(self._begin(number, resources, self._joining))
        return numbers

    @property
    def _joining(self) -> list[str]:
        return [f"--address={self.address}"]

    def raylet(self, node: int) -> int | None:
        """Returns the process id of a node's raylet; None where it is dead."""
        return next((pid for pid in self.processes(node) if _command(pid)[:1] and _command(pid)[0].endswith("/raylet/raylet")), None)

    def processes(self, node: int | None = None) -> list[int]:
        """Returns the ids of all living processes of a node (or of all nodes), including those that its processes started."""
        mark = f"{MARK}={self.mark}-{'' if node is None else node}".encode()
        return [pid for pid, variables in _environments() if any(v == mark or (node is None and v.startswith(mark)) for v in variables)]

    def kill(self, node: int, whole: bool = False) -> None:
        """Sends SIGKILL to a node's raylet, after which its workers end by themselves; or to the `whole` node, as if a machine died."""
        raylet = self.raylet(node)
        assert raylet is not None, f"the raylet of node {node} is dead already"
        os.kill(raylet, signal.SIGKILL)
        if whole:
            self._end(node)

    def close(self) -> None:
        """Ends all processes of all nodes, and removes their folder. Raises AssertionError where one lives on."""
        self._end(None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_head(self, resources: Mapping[str, float], dashboard: bool) -> None:
        options = ["--head", "--port=0", f"--ray-client-server-port={free_port()}", f"--include-dashboard={str(dashboard).lower()}"]
        if dashboard:
            port = free_port()
            options += [f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
            self.dashboard_url = f"http://127.0.0.1:{port}"
        _finish(self._begin(HEAD, resources, options))
        self.address = (self.folder / str(HEAD) / "ray_current_cluster").read_text().strip()

    def _begin(self, node: int, resources: Mapping[str, float], options: list[str]) -> "subprocess.Popen[str]":
        """Runs `ray start` for a node; it ends when the node is up."""
        others = {name: value for name, value in resources.items() if name not in ("CPU", "GPU")}
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", *options, f"--node-ip-address={_address(node)}",
            f"--temp-dir={self.folder / str(node)}", f"--num-cpus={resources.get('CPU', 0):.0f}",
            f"--num-gpus={resources.get('GPU', 0):.0f}", f"--resources={json.dumps(others)}", f"--object-store-memory={OBJECT_STORE}",
            "--disable-usage-stats", "--include-log-monitor=false", *self.options(node),
        ]  # fmt: skip
        env = {
            **{name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", CLUSTERS)}, **NOTICE,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_AUTH_TOKEN": self.token, "RAY_AUTH_MODE": "token",
            MARK: f"{self.mark}-{node}", **self.variables,
        }  # fmt: skip
        output = open(self.folder / f"start-{node}.log", "w+")  # no pipe: the node's processes would hold it open
        with output:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True)
        process.log = output.name  # type: ignore[attr-defined]
        return process

    def _end(self, node: int | None) -> None:
        """Kills repeatedly until no process is left: one that is just starting is in no list."""
        until = time.monotonic() + DOWN
        while left := self.processes(node):
            assert time.monotonic() < until, f"processes {left} of node {node} live on"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def _address(node: int) -> str:
    return f"127.0.0.{node + 2}"  # not 127.0.0.1, which Ray replaces by the machine's own address


def _finish(process: "subprocess.Popen[str]") -> None:
    try:
        code = process.wait(UP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = -1
    assert code == 0, f"ray start ended with {code}: {Path(process.log).read_text()}"  # type: ignore[attr-defined]


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """Yields each living process with the environment of its start; skips processes of other users."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        yield int(name), marked.environment(int(name))


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
