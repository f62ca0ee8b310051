"""Tests a real Ray cluster of three raylets on this machine, shared by all of these tests: jobs on it, their end, and its end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import living
import psutil
import pytest
import raylets
import victims

from corpusmill.pipeline import cluster as clusters
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.watch.progress import Progress

Here = dict[str, Any]
PIECES = 4
#: A user's step next to the recipe; while the file SLOW exists it does two shards, and all others wait.
STEP = """
import os, time
import pyarrow.compute as pc
from corpusmill.filters.own import measures

@measures(columns={"exclaims": "int64"})
def exclaims(batch, slow):
    while os.path.exists(slow) and not is_one_of_two(slow, batch["url"][0].as_py().split("/")[3]):
        time.sleep(0.1)
    return {"exclaims": pc.cast(pc.count_substring(batch["text"], "!"), "int64")}

def is_one_of_two(slow, number):
    for place in range(2):
        try:
            with open(f"{slow}-{place}", "x") as mine:
                mine.write(number)
            return True
        except FileExistsError:
            if open(f"{slow}-{place}").read() == number:
                return True
    return False
"""
RECIPE = """
ingest: {task_mb: 1}
filter:
  steps:
    - python: {function: ../steps.py:exclaims, options: {slow: SLOW}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Here]:
    token = os.environ["RAY_AUTH_TOKEN"]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        patch.setattr(clusters.secrets, "token_hex", lambda size: token)  # Ray reads it once per process; other tests have Rays, too
        here = clusters.up(folder, 2)
        for name, value in clusters.environment(here).items():
            patch.setenv(name, value)
        yield here
        clusters.down(folder)
        assert alive(here) == set()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a recipe with a user's step in the folder above, and an input of several files."""
    project = tmp_path_factory.mktemp("project")
    (project / "recipes").mkdir()
    (project / "steps.py").write_text(STEP)
    (project / "recipes" / "mine.yaml").write_text(RECIPE.replace("SLOW", str(project / "slow")))
    (project / "in").mkdir()
    for number in range(PIECES):
        rows = [{"text": f"Line {row} of file {number}! " * 3000, "url": f"http://rows.test/{number}/{row}"} for row in range(20)]
        (project / "in" / f"{number:02}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return project


@pytest.fixture(scope="module")
def expected(project: Path, tree: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """Returns the files that the job has to write: those of an undisturbed run in this process."""
    plan = new_plan(str(project / "inline"), str(project / "recipes/mine.yaml"), [str(project / "in")], last="filter")
    execute(plan, InlineEngine(), Progress(False))
    return written(project / "inline", tree)


def written(run: Path, tree: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """Returns data and reports; manifests are left out because they contain the path of the step's file, which differs on the cluster."""
    found = {path: digest for path, digest in tree(run).items() if path.endswith(".parquet")}
    assert len(found) == 4 * PIECES
    return found


def start(cluster: Here, project: Path, run: str, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts `make submit` to the cluster at RAY_ADDRESS, as a process."""
    command = [sys.executable, "-m", "corpusmill.pipeline.cluster", "submit", "recipes/mine.yaml", "in", "--output", run, "--to", "filter"]
    command += options
    given = {"RAY_ADDRESS": cluster["jobs"]} if environment is None else environment
    return subprocess.Popen(command, cwd=project, env=os.environ | given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(job: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = job.communicate(timeout=240)
    return job.returncode, out


def until(done: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def ask(url: str, token: str | None = None) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def alive(cluster: Here) -> set[int]:
    return living.in_sessions(node["session"] for node in cluster["nodes"])


@pytest.mark.long
def test_only_those_with_the_token_get_in(cluster: Here, folder: Path) -> None:
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    for token in (None, "0" * 64):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{cluster['jobs']}/api/jobs/", token)
        assert refused.value.code in (401, 403)


#: A task on a cluster's worker node, so that a worker process listens, too.
TASK = """
import sys, ray
ray.init()
@ray.remote(num_cpus=1)
class Worker:
    def ready(self): return True
worker = Worker.remote()
ray.get(worker.ready.remote())
print("ready", flush=True)
sys.stdin.read()
"""


def listening(pids: Callable[[], Iterable[int]], environment: dict[str, str]) -> set[tuple[str, int]]:
    """Returns the addresses on which the processes of a cluster listen while a worker is at work."""
    command = [sys.executable, "-c", TASK]
    with subprocess.Popen(command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdin and driver.stdout and driver.stdout.readline() == "ready\n"
        processes = [psutil.Process(pid) for pid in pids()]
        assert any(living.command(process).startswith("ray::Worker") for process in processes)
        found = living.listening(processes)
        driver.stdin.close()
    return found


@pytest.mark.long
def test_nobody_on_another_machine_reaches_a_cluster_on_this_one(cluster: Here) -> None:
    found = listening(lambda: alive(cluster), {"RAY_ADDRESS": cluster["address"], **clusters.environment(cluster)})
    assert len(found) > 6 * len(cluster["nodes"]) and {address for address, _ in found} <= {"127.0.0.1", "::1"}


@pytest.mark.long
def test_ports_that_others_could_reach_on_a_cluster_of_machines_are_those_of_the_guide() -> None:
    """Two nodes with addresses of their own, whose ports are set by the options in the guide's table."""
    guide = (Path(__file__).parents[2] / "docs/guides/cluster.md").read_text()
    names = set(re.findall(r"`(--[\w-]+-port)`", guide)) - {"--dashboard-port"}  # of a server that listens on loopback
    ports = {44217, 44227}  # of the head's metrics: `ray start` does not let one choose them

    def options(node: int) -> list[str]:
        chosen = {name: raylets.free_port() for name in names}
        low = min(port for port in range(20_000 + 100 * node, 30_000) if not {port, port + 50} & set(chosen.values()))
        chosen |= {"--min-worker-port": low, "--max-worker-port": low + 50}
        ports.update(chosen.values(), range(low, low + 51))
        return [f"{name}={port}" for name, port in chosen.items()]

    with raylets.Raylets([{"CPU": 1}], dashboard=True, options=options) as nodes:
        ports.add(int(nodes.address.rpartition(":")[2]))
        found = listening(nodes.processes, nodes.environment)
    reached = {port for address, port in found if address not in ("127.0.0.1", "::1")}
    assert len(reached) > len(names) and reached <= ports


@pytest.mark.long
def test_jobs_of_another_cluster_get_the_package_and_this_folder_and_a_mistake_is_the_exit_code_and_one_sentence(
    cluster: Here, project: Path, expected: dict[str, str], tree: Callable[[Path], dict[str, str]]
) -> None:
    right, wrong = start(cluster, project, "sent"), start(cluster, project, "wrong", "--set", "filter.stesp=1")
    code, out = finish(wrong)
    assert code == InputError.exit_code, out
    assert "\ncorpusmill: recipes/mine.yaml: filter.stesp: unknown key" in out
    assert "Traceback" not in out
    code, out = finish(right)
    assert code == 0, out
    assert written(project / "sent", tree) == expected
    logs = "".join(log.read_text() for log in Path(cluster["temp"]).glob("*/session_*/logs/job-driver-*.log"))
    assert "Traceback" not in logs


def tasks_of(cluster: Here, node: str, run: Path) -> set[tuple[str, str]]:
    """Returns stage and task of each line on a finished task of a run in the logs of a node's workers."""
    found = set()
    for log in Path(cluster["temp"], node).glob("session_*/logs/worker-*.out"):
        for line in log.read_text().splitlines():
            if line.startswith("{") and (said := json.loads(line))["event"] == "done" and said["run"] == str(run):
                assert said.get("rows_in") == 20 and "phase" in said
                found.add((said["stage"], said["task"]))
    return found


@pytest.mark.long
def test_a_job_on_this_folders_cluster_is_stopped_in_order_and_goes_on_later_on_both_nodes(
    cluster: Here, folder: Path, project: Path, expected: dict[str, str], tree: Callable[[Path], dict[str, str]]
) -> None:
    (project / "runs").mkdir()
    (project / "runs" / "cluster").symlink_to(folder)  # as in the folder where make cluster-up was called
    (project / "slow").touch()
    job = start(cluster, project, "stopped", "--workers", "2", environment={})
    rows = project / "stopped" / "filter" / "manifest.jsonl"
    until(lambda: job.poll() is not None or len(tasks(rows)) == 2, "no two tasks were finished")
    assert job.poll() is None
    client = clusters._client(cluster["jobs"], {})
    [name] = [info.submission_id for info in client.list_jobs() if info.status.value == "RUNNING"]
    client.stop_job(name)
    code, out = finish(job)
    assert client.get_job_status(name).value == "STOPPED" and code != 0
    # The job has ended by itself: a killed one prints nothing.
    assert "ed; run the same command again to go on where it stopped." in out and "Traceback" not in out, out  # Ray's wait says interrupted
    until(lambda: not workers(cluster), "workers are left", 20)
    assert len(tasks(rows)) == 2
    (project / "slow").unlink()
    code, out = finish(start(cluster, project, "stopped", environment={}))
    assert code == 0, out
    seen = {node["name"]: tasks_of(cluster, node["name"], project / "stopped") for node in cluster["nodes"]}
    assert seen["head"] == set() and seen["worker-1"] and seen["worker-2"]
    assert seen["worker-1"] | seen["worker-2"] == {(stage, f"part-{n:05}") for stage in ("ingest", "filter") for n in range(PIECES)}
    assert written(project / "stopped", tree) == expected
    assert not list((project / "stopped").rglob(".tmp-*"))  # files that a killed worker was about to publish
    assert len(tasks(rows)) == PIECES  # no task was done twice


def tasks(manifest: Path) -> list[str]:
    """Returns the tasks of a manifest's rows; whole lines only, as another process may be writing."""
    lines = manifest.read_bytes().split(b"\n")[:-1] if manifest.exists() else []
    return [row["task"] for row in map(json.loads, lines) if "task" in row]


def workers(cluster: Here) -> list[int]:
    """Returns the processes of the cluster that perform tasks."""
    return [pid for pid in clusters.processes(cluster) if victims.is_worker(victims.title(pid))]


@pytest.mark.long
def test_the_end_of_a_cluster_that_has_crashed(cluster: Here, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This test comes last. The head's server and a worker's raylet are killed: nobody is left to end the other processes."""
    for node, name in ((0, "gcs_server"), (1, "raylet")):
        mine = living.in_sessions([cluster["nodes"][node]["session"]])
        [pid] = [pid for pid in mine if victims.title(pid).split("\0")[0].endswith(name)]
        os.kill(pid, signal.SIGKILL)
    assert clusters.main(["down", "--folder", str(folder)]) == 0
    assert clusters.processes(cluster) | alive(cluster) == set() and not Path(cluster["temp"]).exists()
    assert not (folder / "cluster.json").exists() and not (folder / "token").exists()
    assert clusters.main(["down", "--folder", str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f"processes of the cluster; none is left, and {cluster['temp']} is gone.")
    assert said[1:] == ["No cluster is running."]


# ---- without a cluster --------------------------------------------------------------------------------


def test_a_job_without_its_recipe_or_with_an_index_in_the_copy_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "above.yaml").write_text("dedup: {}\n")
    (tmp_path / "here" / "mine.yaml").write_text("dedup: {index: {path: index}}\n")
    with pytest.raises(InputError, match=r"^\.\./above\.yaml: a job gets this folder"):
        clusters.check_files("../above.yaml", [])
    with pytest.raises(InputError, match=r"^dedup\.index\.path: index would lie in the job's copy"):
        clusters.check_files("mine.yaml", [])
    clusters.check_files("mine.yaml", ["dedup.index.path=/shared/index"])
    clusters.check_files("demo", [])


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID=AKIA", "HF_TOKEN=x", "DB_PASSWORD=x"])
def test_a_secret_is_no_part_of_a_job(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrX")
    with pytest.raises(InputError, match=r"^--env \w+: everybody who sees the cluster's dashboard would read it") as refused:
        clusters.job_variables([name])
    assert "wJalrX" not in str(refused.value) and "AKIA" not in str(refused.value)


def test_no_cluster_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = ["submit", "demo", "x", "--output", "y", "--address", f"http://127.0.0.1:{port}"]
    assert clusters.main(command) == InputError.exit_code
    err = capsys.readouterr().err
    assert err.startswith(f"corpusmill: RAY_ADDRESS=http://127.0.0.1:{port}: no Ray cluster takes jobs there (")
    assert err.count("\n") == 1
