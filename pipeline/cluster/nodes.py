"""A Ray cluster on this machine: a head that takes jobs and performs no piece, and worker nodes with cores of their own.

Each node is a raylet of its own (`ray start`), so a run meets here what it meets on many machines: several nodes, a job server, a token.
The dashboard, its job server and its agents listen on loopback; Ray's own ports, on which nodes speak with each other, listen everywhere
and ask for the token, but for the nodes' metrics, which Ray gives whoever asks. All processes of a cluster are started with its mark in
their environment, jobs and workers included, by which `down` knows them (`Cluster.processes`), also where whoever started them was killed.
"""

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
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import corpusmill
from corpusmill.pipeline.cluster import marked
from corpusmill.pipeline.errors import CorpusmillError, InputError

#: Where a cluster is written down, by default.
FOLDER = Path("runs/cluster")
FILE, TOKEN, LOG = "cluster.json", "token", "{}.log"
#: The environment variable by which all processes of a cluster are known.
MARK = "CORPUSMILL_CLUSTER"
#: The one that Ray gives to a job's processes.
IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
#: Where the job server listens, and the nodes' own addresses: the head's, then one for each worker. All are loopback.
HOST, HEAD_IP, WORKER_IP = "127.0.0.1", "127.0.0.2", "127.0.0.{}"
HEAD = "head"
#: Bytes of each node's object store: nearly unused, so the smallest that Ray takes.
OBJECT_STORE = 80 * 1024 * 1024
#: The share of the machine's memory that the worker nodes tell Ray of, together.
MEMORY_SHARE = 0.7
#: Seconds that a cluster gets to come up; that jobs get to end by themselves; and that Ray gets, in which nothing is lost by then.
COME_UP, END_JOBS, END = 300.0, 30.0, 5.0
#: How often a node is started, at most, until it is there.
STARTS = 4
#: Asks without the proxy that the environment may name.
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))
#: Seconds that a job which is stopped gets to end by itself: Ray's 3 are less than a piece takes.
JOB_STOP = "30"


@dataclass(frozen=True)
class Node:
    """One raylet: `pid` is that of its `ray start`; `cores` are those that it may use, none where it has none of its own."""

    name: str
    pid: int
    cpus: int
    cores: list[int]
    metrics: str  # where Prometheus finds the node's metrics


@dataclass
class Cluster:
    """What is written down of a cluster, so that another process finds it, submits to it and ends it."""

    mark: str
    address: str  # HOST:PORT: RAY_ADDRESS of a run that is started here
    jobs: str  # where jobs are submitted: the dashboard
    token: str  # the file with its token
    temp: str  # the folder of Ray's own files: sockets, logs
    package: str  # the folder from which its nodes import corpusmill
    nodes: list[Node] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to speak with the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": self.token}

    def processes(self) -> set[int]:
        """All of the cluster. Those that show no mark, as they have a title, are of a node's session and write logs into its folder; only
        both together are proof, for where this was written down long ago, a node's number may be that of somebody's terminal by now."""
        return marked.marked(MARK, self.mark) | marked.with_open(self.temp, {node.pid for node in self.nodes})


def up(folder: Path = FOLDER, nodes: int = 2, cores: Sequence[Sequence[int]] | None = None) -> Cluster:
    """Starts a head and `nodes` workers, waits until they are one cluster, and writes down in `folder` what there is.

    `cores`: those of each worker node, by default a part of the machine's for each; the head then shares the first node's.
    """
    if nodes < 1:
        raise InputError(f"NODES={nodes}: a cluster has at least one worker node.")
    if before := find(folder):
        raise InputError(f"{folder / FILE}: a cluster is running already, jobs are taken at {before.jobs} (make cluster-down ends it).")
    down(folder)  # what is left of one that crashed
    cluster = _new(folder)
    try:
        starts: Starts = {HEAD: partial(_start_head, cluster, folder, cores[0] if cores else [])}
        _bring_up(cluster, folder, starts)  # a worker that comes before the head is registered gives up
        for number, own in enumerate(cores or _cores(nodes)):
            starts[name_of(number)] = partial(_start_worker, cluster, folder, number, own, MEMORY_SHARE / nodes)
        _bring_up(cluster, folder, starts)
    except BaseException:
        down(folder)
        raise
    return cluster


def find(folder: Path = FOLDER) -> Cluster | None:
    """The cluster that is written down in `folder`, where its head is there."""
    cluster = read(folder)
    return cluster if cluster and cluster.nodes and cluster.nodes[0].pid in cluster.processes() else None


def down(folder: Path = FOLDER) -> int:
    """Ends all processes of the cluster that is written down in `folder`: jobs first, so that they can say so. Returns how many those
    were; raises where one stays."""
    cluster = read(folder)
    if cluster is None:
        return 0
    ended = marked.end(lambda: {pid for pid in cluster.processes() if marked.has(pid, IN_JOB)}, signal.SIGTERM, END_JOBS)
    ended |= marked.end(cluster.processes, signal.SIGTERM, END)
    ended |= marked.end(cluster.processes, signal.SIGKILL, END)
    if left := cluster.processes():
        raise CorpusmillError(f"{folder / FILE}: processes of the cluster do not end: {', '.join(map(str, sorted(left)))}.")
    shutil.rmtree(cluster.temp, ignore_errors=True)
    for name in (FILE, TOKEN):
        (folder / name).unlink(missing_ok=True)
    return len(ended)


def read(folder: Path = FOLDER) -> Cluster | None:
    """What is written down in `folder`, be it alive or not."""
    try:
        said = json.loads((folder / FILE).read_bytes())
        return Cluster(**{**said, "nodes": [Node(**node) for node in said["nodes"]]})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / FILE}: is not what make cluster-up writes ({type(error).__name__}: {error}).") from error


def package() -> str:
    """The folder from which this process imports corpusmill."""
    return str(Path(corpusmill.__file__).resolve().parent)


#: How each node is started, by its name, the head first.
Starts: TypeAlias = dict[str, Callable[[], Node]]


# ---- starting ---------------------------------------------------------------------------------------


def _new(folder: Path) -> Cluster:
    """Written down before anything is started, so that `down` finds it whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    token = (folder / TOKEN).absolute()
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(new_token())
    temp = tempfile.mkdtemp(prefix="cm-", dir="/tmp")  # sockets lie in it, whose paths may have 107 bytes
    address, jobs = f"{HEAD_IP}:{_free_port()}", f"http://{HOST}:{_free_port()}"
    cluster = Cluster(secrets.token_hex(8), address, jobs, str(token), temp, package())
    write(cluster, folder)
    return cluster


def new_token() -> str:
    return secrets.token_hex(32)


def write(cluster: Cluster, folder: Path) -> None:
    temporary = folder / f".tmp-{FILE}"
    temporary.write_text(json.dumps(asdict(cluster), indent=1) + "\n")
    temporary.replace(folder / FILE)


def name_of(number: int) -> str:
    """The name of a worker node, counted from 0."""
    return f"worker-{number + 1}"


def _cores(nodes: int) -> list[list[int]]:
    """The cores of each worker node; with fewer cores than nodes none has any of its own."""
    cores = sorted(os.sched_getaffinity(0))
    return [cores[number::nodes] if len(cores) >= nodes else [] for number in range(nodes)]


def _start_head(cluster: Cluster, folder: Path, cores: Sequence[int]) -> Node:
    port, jobs = (address.rpartition(":")[2] for address in (cluster.address, cluster.jobs))
    options = ["--head", f"--port={port}", "--dashboard-host", HOST, f"--dashboard-port={jobs}"]
    options += [f"--ray-client-server-port={_free_port()}", "--include-log-monitor=true"]
    return _start(cluster, folder, HEAD, HEAD_IP, 0, cores, options)


def _start_worker(cluster: Cluster, folder: Path, number: int, cores: Sequence[int], memory_share: float) -> Node:
    name = name_of(number)
    memory = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * memory_share)
    resources = json.dumps({name: 1})
    options = [f"--address={cluster.address}", f"--resources={resources}", f"--labels=corpusmill/node={name}", f"--memory={memory}"]
    ip = WORKER_IP.format(number + 3)
    return _start(cluster, folder, name, ip, max(1, len(cores)), cores, [*options, "--include-log-monitor=false"])


def _start(cluster: Cluster, folder: Path, name: str, ip: str, cpus: int, cores: Sequence[int], options: Sequence[str]) -> Node:
    """One raylet, held by a `ray start --block` that is no child of this terminal. Each has a temporary folder of its own: nodes that share
    one unpack a job's files over each other's, while processes work in them."""
    metrics = _free_port()
    command = [*ray_command(), "start", "--block", "--disable-usage-stats", f"--node-ip-address={ip}", f"--num-cpus={cpus}"]
    command += [f"--object-store-memory={OBJECT_STORE}", f"--metrics-export-port={metrics}", f"--temp-dir={cluster.temp}/{name}"]
    command += [f"--dashboard-agent-listen-port={_free_port()}", f"--dashboard-agent-grpc-port={_free_port()}", *options]
    more = {MARK: cluster.mark, "RAY_JOB_STOP_WAIT_TIME_S": JOB_STOP, "RAY_USAGE_STATS_ENABLED": "0"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with open(folder / LOG.format(name), "wb") as log:
        process = subprocess.Popen(
            command, env=kept | cluster.environment() | more, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
        )  # fmt: skip
    return Node(name, process.pid, cpus, list(cores), f"http://{ip}:{metrics}/metrics")


def ray_command() -> list[str]:
    """The `ray` of this Python."""
    beside = Path(sys.executable).with_name("ray")
    return [str(beside)] if beside.exists() else ["ray"]


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def _bring_up(cluster: Cluster, folder: Path, starts: Starts) -> None:
    """Starts the nodes that are not there yet and waits until the job server knows all of them. A node that gives up is started again:
    Ray has 30 seconds for what takes longer on a machine that has much else to do."""
    left = dict.fromkeys(starts, STARTS)
    deadline = time.monotonic() + COME_UP
    while (known := _nodes(cluster)) < len(starts):
        there = cluster.processes()
        alive = [node for node in cluster.nodes if node.pid in there]
        for name in starts.keys() - {node.name for node in alive}:
            if not left[name]:
                raise CorpusmillError(f"{name}: Ray can't be started on this machine ({_last_words(folder, name)}).")
            left[name] -= 1
            alive.append(starts[name]())
        if alive != cluster.nodes:
            cluster.nodes = sorted(alive, key=lambda node: list(starts).index(node.name))
            write(cluster, folder)
        if time.monotonic() > deadline:
            raise CorpusmillError(f"{cluster.jobs}: after {COME_UP:.0f} s the cluster has {known} of {len(starts)} nodes.")
        time.sleep(0.2)


def _nodes(cluster: Cluster) -> int:
    """How many nodes the job server counts; 0 while it does not answer."""
    token = Path(cluster.token).read_text()
    request = urllib.request.Request(f"{cluster.jobs}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"})
    try:
        with LOOPBACK.open(request, timeout=5) as answer:
            found = json.load(answer)["data"]["summary"]
    except (OSError, ValueError, KeyError):
        return 0
    return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in found)


def _last_words(folder: Path, name: str) -> str:
    lines = (folder / LOG.format(name)).read_text(errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "it said nothing"
