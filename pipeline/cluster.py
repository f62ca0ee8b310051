"""A Ray cluster on this machine, and runs as jobs of a cluster: what `make cluster-up`, `make submit` and `make cluster-down` do.

    python -m corpusmill.pipeline.cluster up | submit RECIPE INPUT... --output RUN | down

`up` starts a head, which takes jobs and performs no task, and worker nodes, each with cores of its own. Each node is started by
`ray start`, so a run works here as on many machines. All of their processes have `CORPUSMILL_CLUSTER` in their environment, by which
`down` finds them. `submit` submits a job as `ray job submit` does, shows its log, and ends with its exit code.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.on_ray.engine import CLUSTERS
from corpusmill.pipeline.recipe import read_raw
from corpusmill.pipeline.storage import is_remote

#: The folder in which `up` describes its cluster, and the environment variable of all its processes.
COMMAND, FOLDER, MARK = "python -m corpusmill.pipeline.cluster", Path("runs/cluster"), "CORPUSMILL_CLUSTER"
#: Bytes of each node's object store (nearly unused, so the smallest that Ray accepts), and the share of the memory that Ray may hand out.
OBJECT_STORE, MEMORY_SHARE = 80 << 20, 0.7
#: Seconds that a stopped job gets to end in order (Ray's default of 3 is less than a task takes), and seconds for Ray's processes.
JOB_STOP, END = 30.0, 5.0
#: The most tries to start a node: Ray's limit of 30 seconds may be too short on a busy machine.
STARTS = 3
#: Names of environment variables whose values are secret.
SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL", re.IGNORECASE)
#: This machine, in the head's address. A node at 127.0.0.1 listens there alone, but where `ray start` reads 127.0.0.1 or localhost it takes
#: the machine's other address.
HERE = "LOCALHOST"
#: Ray's default address for jobs.
JOBS = "http://127.0.0.1:8265"


# ---- a cluster on this machine ----------------------------------------------------------------------


def up(folder: Path = FOLDER, nodes: int = 2, cores: Sequence[Sequence[int]] | None = None) -> dict[str, Any]:
    """Starts a head and `nodes` worker nodes, and returns the cluster's description, which `read` returns later. `cores`: the cores of each
    worker node (default: an equal part of the machine's). The head uses those of the first one, too."""
    if nodes < 1:
        raise InputError(f"NODES={nodes}: a cluster has at least one worker node.")
    if (before := read(folder)) and processes(before):
        raise InputError(
            f"{folder}/cluster.json: a cluster is running already, jobs are taken at {before['jobs']} ({COMMAND} down ends it)."
        )
    folder.mkdir(parents=True, exist_ok=True)
    token = (folder / "token").absolute()
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    here: dict[str, Any] = {
        "address": f"{HERE}:{_free_port()}", "jobs": f"http://127.0.0.1:{_free_port()}", "token": str(token),
        "temp": tempfile.mkdtemp(prefix="cm-", dir="/tmp"),  # a short path: those of the sockets in it may have 107 bytes
        "package": _package(), "nodes": [],
    }  # fmt: skip
    machine = sorted(os.sched_getaffinity(0))
    cores = cores or [machine[number::nodes] if len(machine) >= nodes else [] for number in range(nodes)]
    memory = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE / nodes)
    try:
        port, jobs_port = (here[name].rpartition(":")[2] for name in ("address", "jobs"))
        head = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={jobs_port}", "--num-cpus=0"]
        _start(here, folder, "head", cores[0], [*head, f"--ray-client-server-port={_free_port()}"], {CLUSTERS: "0"})
        for number, node_cores in enumerate(cores, start=1):
            options = [f"--address={here['address']}", f"--num-cpus={max(1, len(node_cores))}", f"--memory={memory}"]
            _start(here, folder, f"worker-{number}", node_cores, options)
    except BaseException:
        down(folder)
        raise
    return here


def read(folder: Path = FOLDER) -> dict[str, Any] | None:
    """Returns the description of the cluster that `up` has started and `down` has not ended, alive or not; None if there is none."""
    try:
        found: dict[str, Any] = parse_json((folder / "cluster.json").read_bytes())
        return found
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{folder}/cluster.json: is not what {COMMAND} up writes ({error}).") from error


def environment(here: dict[str, Any]) -> dict[str, str]:
    """Returns the environment variables that a process needs to use the cluster."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": here["token"]}


def processes(here: dict[str, Any]) -> set[int]:
    """Returns the living processes of a cluster: those with its mark in their environment, and those in its nodes' sessions whose title
    Ray has set, which hides their environment."""
    mark, sessions, found = f"{MARK}={here['temp']}".encode(), {node["session"] for node in here["nodes"]}, set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):  # the process has ended, or belongs to another user
            titled = os.getsid(pid) in sessions and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
            if titled or mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found - {os.getpid()}


def down(folder: Path = FOLDER) -> int:
    """Ends the jobs in order, then all processes of the cluster. Returns the number of processes. Raises where one does not end."""
    here = read(folder)
    if here is None:
        return 0
    _stop_jobs(here)
    ended = processes(here)
    for number, seconds in ((signal.SIGTERM, END), (signal.SIGKILL, 2 * END)):
        until = time.monotonic() + seconds
        while (left := processes(here)) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.2)
    if left := processes(here):
        raise CorpusmillError(f"{folder}/cluster.json: processes of the cluster do not end: {', '.join(map(str, sorted(left)))}.")
    shutil.rmtree(here["temp"], ignore_errors=True)
    for name in ("cluster.json", "token"):
        (folder / name).unlink(missing_ok=True)
    return len(ended)


def _start(
    here: dict[str, Any], folder: Path, name: str, cores: Sequence[int], options: Sequence[str], more: Mapping[str, str] | None = None
) -> None:
    """Starts a node, with `more` environment variables. Each has a temporary folder of its own: in a shared one, nodes would overwrite each
    other's files of a job."""
    metrics, ray = _free_port(), Path(sys.executable).with_name("ray")
    command = [str(ray) if ray.exists() else "ray", "start", *options, f"--temp-dir={here['temp']}/{name}"]
    command += [f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={_free_port()}"]
    command += [f"--object-store-memory={OBJECT_STORE}", "--disable-usage-stats"]
    ours = {MARK: here["temp"], "RAY_JOB_STOP_WAIT_TIME_S": f"{JOB_STOP:.0f}", "RAY_USAGE_STATS_ENABLED": "0", **(more or {})}
    variables = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | environment(here) | ours
    node: dict[str, Any] = {
        "name": name,
        "session": 0,
        "cores": list(cores),
        "metrics": f"http://127.0.0.1:{metrics}/metrics",
    }
    here["nodes"].append(node)
    for _ in range(STARTS):
        with open(folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
            )  # fmt: skip
        node["session"] = process.pid
        (folder / "cluster.json").write_text(json.dumps(here, indent=1) + "\n")  # before it is up, so that `down` finds it
        if process.wait() == 0:
            return
    lines = (folder / f"{name}.log").read_text(errors="replace").strip().splitlines() or ["it says nothing"]
    raise CorpusmillError(f"{name}: Ray can't be started on this machine ({lines[-1].strip().rstrip('.')}).")


def _stop_jobs(here: dict[str, Any]) -> None:
    """Stops the jobs, and waits until they have ended in order. Does nothing where the head is gone."""
    with contextlib.suppress(Exception):
        client = _client(here["jobs"], environment(here))
        names = [job.submission_id for job in client.list_jobs() if job.submission_id and not job.status.is_terminal()]
        for name in names:
            client.stop_job(name)
        until = time.monotonic() + JOB_STOP + END
        while time.monotonic() < until and not all(client.get_job_status(name).is_terminal() for name in names):
            time.sleep(0.2)


def _package() -> str:
    return str(Path(corpusmill.__file__).resolve().parent)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# ---- a job ------------------------------------------------------------------------------------------


def submit(given: argparse.Namespace) -> int:
    """Runs `corpusmill run` as a job, shows its log, and returns its exit code. A cluster that `up` has started sees the same files, so
    nothing is sent to it. Another cluster gets a copy of this folder (without the files that git ignores) and of the package."""
    here = None if given.address else read()
    if here is not None and not processes(here):
        here = None
    address = given.address or (here["jobs"] if here else JOBS)
    inputs = [
        path if is_remote(path) or path.startswith("cc:") else str(Path(path.removeprefix("file://")).absolute()) for path in given.inputs
    ]
    output = given.output if is_remote(given.output) else str(Path(given.output).absolute())
    command = ["-m", "corpusmill", "run", given.recipe, *inputs, "--output", output, "--engine", "ray"]
    command += [f"--set={each}" for each in given.set] + ["--strict"] * given.strict
    command += [f"--{name}={vars(given)[name]}" for name in ("workers", "from", "to") if vars(given)[name] is not None]
    variables = job_variables(given.env)
    runtime_env: dict[str, Any] = {"env_vars": variables}
    # Ray sets one thread for a job that takes no CPU. Trainings in the job need more, unless the user has set the number.
    shell = "" if "OMP_NUM_THREADS" in variables else "unset OMP_NUM_THREADS; "
    name = f"corpusmill-{secrets.token_hex(6)}"
    with tempfile.TemporaryDirectory(prefix="corpusmill-job-") as folder:
        if here is not None and here["package"] == _package() and given.pip is None:
            shell += f"cd {shlex.quote(os.getcwd())} && exec {shlex.join([sys.executable, *command])}"
        else:
            check_files(given.recipe, given.set)
            package = shutil.copytree(_package(), Path(folder, "corpusmill"), ignore=shutil.ignore_patterns("__pycache__"))
            runtime_env |= {"working_dir": os.getcwd(), "py_modules": [str(package)]}
            python = shlex.quote(sys.executable)  # only if the head's node has it, too, and pip makes no environment
            shell += f"P={python}; [ -x $P ] || P=python; " if given.pip is None else "P=python; "
            shell += f"exec $P {shlex.join(command)}"
        if given.pip is not None:
            runtime_env["pip"] = requirements(given.pip)
        client = _client(address, environment(here) if here else {})
        try:
            client.submit_job(entrypoint=shlex.join(["sh", "-c", shell]), submission_id=name, runtime_env=runtime_env)
        except Exception as error:
            raise CorpusmillError(f"RAY_ADDRESS={address}: the cluster does not take the job ({_reason(error)}).") from error
    print(f"Job {name} at {address}: corpusmill {shlex.join(command[2:])}", flush=True)
    try:
        asyncio.run(_show_log(client, name))
        info = client.get_job_info(name)
    except KeyboardInterrupt:
        print(f"corpusmill: the log is no longer shown; the job goes on until: ray job stop --address {address} {name}", file=sys.stderr)
        return 130
    except Exception as error:
        more = f"the job may go on: ray job logs --follow --address {address} {name}"
        raise CorpusmillError(f"{address}: the cluster does not answer any more ({_reason(error)}); {more}") from error
    if isinstance(info.driver_exit_code, int) and info.driver_exit_code >= 0:  # tells more than the status (3: quarantined tasks)
        return int(info.driver_exit_code)
    raise CorpusmillError(f"the job is {info.status.value.lower()} ({(info.message or 'no reason is given').strip()}).")


async def _show_log(client: Any, name: str) -> None:
    """Prints the job's log until the job ends. Connects again and again, since there is no log while the job's environment is made."""
    shown = 0
    while True:
        log = ""
        async for lines in client.tail_job_logs(name):
            log += lines
            print(log[shown:], end="", flush=True)
            shown = max(shown, len(log))
        if client.get_job_status(name).is_terminal():
            return
        await asyncio.sleep(1)


def _client(address: str, variables: dict[str, str]) -> Any:
    """Returns Ray's client for jobs. Ray sends a token only if `RAY_AUTH_MODE` is set, so this sets it where there is a token."""
    os.environ.update(variables)
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")) or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise InputError(
            f"RAY_ADDRESS={address}: the cluster asks for its token; put the output of its `ray get-auth-token` "
            "into ~/.ray/auth_token, or its path into RAY_AUTH_TOKEN_PATH."
        ) from error
    except Exception as error:
        raise InputError(
            f"RAY_ADDRESS={address}: no Ray cluster takes jobs there ({_reason(error)}); start one with: {COMMAND} up"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def job_variables(names: Sequence[str]) -> dict[str, str]:
    """Returns the environment variables of a job from NAME=VALUE, or from NAME alone, for its value here. Raises InputError."""
    found = {}
    for given in names:
        name, equals, value = given.partition("=")
        if SECRET.search(name):
            raise InputError(f"--env {name}: everybody who sees the cluster's dashboard would read it; set it on the nodes instead.")
        if not equals and name not in os.environ:
            raise InputError(f"--env {name}: there is no such environment variable here.")
        found[name] = value if equals else os.environ[name]
    return found


def check_files(recipe: str, overrides: Sequence[str]) -> None:
    """Raises InputError if a job with a copy of this folder would not find its recipe, or would write its index into the copy."""
    path = Path(recipe)
    if path.exists() and not path.absolute().resolve().is_relative_to(Path.cwd().resolve()):
        raise InputError(f"{recipe}: a job gets this folder, and the recipe is not in it; go to a folder that holds it and what it names.")
    index = read_raw(recipe, overrides).get("dedup") if path.exists() else None
    index = index.get("index") if isinstance(index, dict) else None
    written = index.get("path") if isinstance(index, dict) else None
    if isinstance(written, str) and not is_remote(written) and not Path(written).is_absolute():
        raise InputError(f"dedup.index.path: {written} would lie in the job's copy of this folder; give its whole path.")


def requirements(extras: str) -> list[str]:
    """Returns the requirements that pip has to install on a node for this package with these extras (comma-separated)."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("corpusmill") or ()]
    names = ["", *filter(None, extras.split(","))]
    chosen: dict[str, None] = {}
    for name in names:  # it grows: an extra may name others (`corpusmill[train]`)
        for each in wanted:
            if each.marker is None or each.marker.evaluate({"extra": name}):
                if each.name == "corpusmill":
                    names += [extra for extra in sorted(each.extras) if extra not in names]
                else:
                    chosen[str(each).partition(";")[0].strip()] = None
    return list(chosen)


# ---- the command ------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="A Ray cluster on this machine, and jobs.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("up", "start a cluster on this machine"), ("down", "end the cluster")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--folder", type=Path, default=FOLDER, help="the folder with the cluster's description [default: %(default)s]")
        if name == "up":
            command.add_argument("--nodes", type=int, default=2, help="worker nodes [default: %(default)s]")
    job = commands.add_parser("submit", help="run a recipe as a job")
    job.add_argument("recipe", metavar="RECIPE")
    job.add_argument("inputs", metavar="INPUT", nargs="*")
    job.add_argument("--output", metavar="RUN", required=True)
    job.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="where jobs are submitted (RAY_ADDRESS)")
    job.add_argument("--env", metavar="NAME[=VALUE]", action="append", default=[], help="an environment variable of the job")
    job.add_argument("--pip", metavar="EXTRAS", nargs="?", const="", help="install the libraries on the nodes (with extras, as stores)")
    job.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="as for corpusmill run")
    job.add_argument("--strict", action="store_true", help="as for corpusmill run")
    for name in ("--workers", "--from", "--to"):
        job.add_argument(name, help="as for corpusmill run")
    given = parser.parse_args(argv)
    try:
        require("a cluster", "grpc")
        if given.command == "submit":
            return submit(given)
        _bring_up(given.folder, given.nodes) if given.command == "up" else _take_down(given.folder)
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _bring_up(folder: Path, nodes: int) -> None:
    here = up(folder, nodes)
    for node in here["nodes"]:
        cores = f"core{'s' if node['cores'][1:] else ''} {', '.join(map(str, node['cores']))}, " if node["cores"] else ""
        print(f"{node['name']}: {cores}metrics at {node['metrics']}")
    print(f"The cluster takes jobs (and shows its dashboard) at {here['jobs']}; it is described in {folder}/cluster.json.")
    print(f"A job:     {COMMAND} submit fineweb crawl.warc.gz --output runs/job   (in a checkout: make submit)")
    variables = " ".join(f"{name}={value}" for name, value in {"RAY_ADDRESS": here["address"], **environment(here)}.items())
    print(f"From here: {variables} corpusmill run ...")
    print(f"Its end:   {COMMAND} down   (make cluster-down)")


def _take_down(folder: Path) -> None:
    here = read(folder)
    if here is None:
        print("No cluster is running.")
        return
    print(f"Ended {down(folder)} processes of the cluster; none is left, and {here['temp']} is gone.")


if __name__ == "__main__":
    sys.exit(main())
