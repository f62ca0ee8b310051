"""A real Ray cluster of three raylets on this machine: jobs on it, their end, and its own end. One for all of these tests."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import living
import pytest
import victims
from breaking import Breaking

from corpusmill.pipeline.cluster import command as cluster_command
from corpusmill.pipeline.cluster import job as ray_job
from corpusmill.pipeline.cluster import nodes as clusters
from corpusmill.pipeline.cluster.nodes import Cluster
from corpusmill.pipeline.errors import CorpusmillError, InputError

PIECES = 8
#: A step of the user's beside the recipe; while the file SLOW is there it does two shards, and all others wait.
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
ingest: {piece_mb: 1}
filter:
  steps:
    - python: {function: ../steps.py:exclaims, options: {slow: SLOW}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    token = os.environ["RAY_AUTH_TOKEN"]
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        patch.setattr(clusters, "new_token", lambda: token)  # Ray reads a process's token once, and other tests here have Rays, too
        here = clusters.up(folder, 2)
        for name, value in here.environment().items():
            patch.setenv(name, value)
        yield here
        clusters.down(folder)
        assert alive(here) == set()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with a step of its own above it, and an input of several files."""
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
    """What the job has to write: an undisturbed run in one process."""
    command = [sys.executable, "-m", "corpusmill", "run", "recipes/mine.yaml", str(project / "in"), "--output", "inline", "--to", "filter"]
    command += ["--engine", "inline"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return written(project / "inline", tree)


def written(run: Path, tree: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    """Data and reports; manifests hold the place of the step's file, which is another one on the cluster."""
    found = {path: digest for path, digest in tree(run).items() if path.endswith(".parquet")}
    assert len(found) == 4 * PIECES
    return found


def start(cluster: Cluster, project: Path, run: str, *options: str) -> subprocess.Popen[str]:
    """`make submit`, as a process."""
    command = [sys.executable, "-m", "corpusmill.pipeline.cluster.job", "recipes/mine.yaml", "in", "--output", run, "--to", "filter"]
    command += options
    environment = os.environ | {"RAY_ADDRESS": cluster.jobs}
    return subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


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


def alive(cluster: Cluster) -> set[int]:
    return living.in_sessions(node.pid for node in cluster.nodes)


def test_nodes_with_cores_and_resources_of_their_own(cluster: Cluster, folder: Path) -> None:
    assert [node.name for node in cluster.nodes] == ["head", "worker-1", "worker-2"]
    cores = sorted(os.sched_getaffinity(0))
    for node in cluster.nodes[1:]:
        assert os.sched_getaffinity(node.pid) == set(node.cores or cores)
    if len(cores) >= 2:
        assert not set(cluster.nodes[1].cores) & set(cluster.nodes[2].cores)
    token = (folder / "token").read_text()
    nodes = json.loads(ask(f"{cluster.jobs}/nodes?view=summary", token))["data"]["summary"]
    totals = [node["raylet"]["resourcesTotal"] for node in nodes]
    assert sorted(total.get("CPU", 0) for total in totals) == sorted(node.cpus for node in cluster.nodes)
    assert sum("worker-1" in total for total in totals) == sum("worker-2" in total for total in totals) == 1


def test_only_those_with_the_token_get_in_and_only_from_here(cluster: Cluster, folder: Path) -> None:
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    for token in (None, "0" * 64):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{cluster.jobs}/api/jobs/", token)
        assert refused.value.code in (401, 403)
    port = int(cluster.jobs.rpartition(":")[2])
    addresses = [line.split()[1] for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
                 if line.split()[3] == "0A"]  # fmt: skip
    assert {address for address in addresses if int(address.rpartition(":")[2], 16) == port} == {f"0100007F:{port:04X}"}


def test_a_second_cluster_is_refused(cluster: Cluster, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster_command.main(["up", "--folder", str(folder)]) == InputError.exit_code
    said = (
        f"corpusmill: {folder}/cluster.json: a cluster is running already, jobs are taken at {cluster.jobs} (make cluster-down ends it).\n"
    )
    assert capsys.readouterr().err == said


@pytest.mark.long
def test_where_the_connection_breaks_the_log_goes_on(
    cluster: Cluster, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All connections are cut as soon as the log's first line has come through, and none is taken for some time."""
    with Breaking(int(cluster.jobs.rpartition(":")[2]), b"one\n") as breaking:
        address = f"http://127.0.0.1:{breaking.port}"
        client = ray_job.connect(address)
        client.submit_job(entrypoint=f"echo one; until [ -e {folder}/mended ]; do sleep 0.1; done; echo two", submission_id="breaks")
        broken = threading.Thread(target=lambda: (breaking.broken.wait(60), time.sleep(1), breaking.mend(), (folder / "mended").touch()))
        broken.start()
        assert asyncio.run(ray_job._follow(client, address, "breaks")) == 0
        broken.join()
        out = capsys.readouterr().out
        assert breaking.broken.is_set() and out.endswith("\ntwo\n") and out.count("\none\n") == 1, out
        breaking.cut()
        monkeypatch.setattr(ray_job, "AGAIN", 0.2)
        with pytest.raises(
            CorpusmillError, match=r"^http\S+: the cluster does not answer any more \(.*; the job may go on: ray job status"
        ):
            asyncio.run(ray_job._follow(client, address, "breaks"))


def test_a_job_brings_code_and_files_works_on_both_nodes_and_writes_the_same(
    cluster: Cluster, project: Path, expected: dict[str, str], tree: Callable[[Path], dict[str, str]]
) -> None:
    code, out = finish(start(cluster, project, "job"))
    assert code == 0, out
    assert written(project / "job", tree) == expected
    seen = {node.name: tasks_of(cluster, node.name, project / "job") for node in cluster.nodes}
    assert seen["head"] == set()
    assert seen["worker-1"] and seen["worker-2"]
    assert seen["worker-1"] | seen["worker-2"] == {(stage, f"part-{n:05}") for stage in ("ingest", "filter") for n in range(PIECES)}
    run = json.loads((project / "job" / "run.json").read_bytes())
    [step] = run["recipe"]["filter"]["steps"]
    assert step["python"]["function"].startswith(cluster.temp) and step["python"]["function"].endswith("/outside/1/steps.py:exclaims")


def tasks_of(cluster: Cluster, node: str, run: Path) -> set[tuple[str, str]]:
    """Stage and task of what a node's workers say in their logs to have done for a run."""
    found = set()
    for log in Path(cluster.temp, node).glob("session_*/logs/worker-*.out"):
        for line in log.read_text().splitlines():
            if line.startswith("{") and (said := json.loads(line))["event"] == "done" and said["run"] == str(run):
                assert said["rows_in"] == 20 and "phase" in said
                found.add((said["stage"], said["task"]))
    return found


def test_a_mistake_is_the_jobs_exit_code_and_one_sentence(cluster: Cluster, project: Path) -> None:
    code, out = finish(start(cluster, project, "wrong", "--set", "filter.stesp=1"))
    assert code == InputError.exit_code
    assert "\ncorpusmill: recipe.yaml: filter.stesp: unknown key" in out
    assert "Traceback" not in out


@pytest.mark.long
def test_a_job_is_counted_by_ray_stopped_in_order_and_goes_on_later(
    cluster: Cluster, project: Path, expected: dict[str, str], tree: Callable[[Path], dict[str, str]]
) -> None:
    (project / "slow").touch()
    job = start(cluster, project, "stopped", "--workers", "2")
    rows = project / "stopped" / "filter" / "manifest.jsonl"
    until(lambda: job.poll() is not None or (rows.exists() and rows.read_bytes().count(b"\n") >= 2), "no task was finished")
    assert job.poll() is None
    labels = 'phase="",run="stopped",stage="ingest"'
    found = until(lambda: metrics(cluster, f"ray_corpusmill_task_duration_seconds_count{{{labels}}}"), "no metric arrives", 60)
    assert found[f"ray_corpusmill_tasks_total{{{labels}}}"] == found[f"ray_corpusmill_tasks_planned{{{labels}}}"] == PIECES
    assert found[f'ray_corpusmill_rows_total{{fate="in",{labels}}}'] == 20 * PIECES
    assert job.poll() is None
    client = ray_job.connect(cluster.jobs)
    [name] = [info.submission_id for info in client.list_jobs() if info.status.value == "RUNNING"]
    client.stop_job(name)
    code, out = finish(job)
    assert client.get_job_status(name).value == "STOPPED" and code != 0
    # It has ended by itself: whoever is killed says nothing.
    assert "ed; run the same command again to go on where it stopped." in out and "Traceback" not in out, out  # Ray's wait says interrupted
    until(lambda: not workers(cluster), "workers are left", 20)
    assert rows.read_bytes().count(b"\n") == 2
    (project / "slow").unlink()
    code, out = finish(start(cluster, project, "stopped"))
    assert code == 0, out
    assert written(project / "stopped", tree) == expected
    assert not list((project / "stopped").rglob(".tmp-*"))  # what a killed worker was about to publish
    tasks = [json.loads(line).get("task") for line in rows.read_bytes().splitlines()]
    assert len([task for task in tasks if task]) == PIECES  # none was done twice


def workers(cluster: Cluster) -> list[int]:
    """The processes of the cluster in which pieces are performed."""
    return [pid for pid in cluster.processes() if victims.is_worker(victims.title(pid))]


def metrics(cluster: Cluster, awaited: str) -> dict[str, float] | None:
    """Our counts on the metrics ports of all nodes, with our labels alone; None while the awaited one is not there or 0."""
    from prometheus_client.parser import text_string_to_metric_families

    ours = ("fate", "phase", "run", "stage")
    found = {}
    for node in cluster.nodes:
        for family in text_string_to_metric_families(ask(node.metrics).decode()):
            for sample in family.samples:
                if sample.name.startswith("ray_corpusmill_"):
                    labels = ",".join(f'{name}="{sample.labels[name]}"' for name in ours if name in sample.labels)
                    found[f"{sample.name}{{{labels}}}"] = sample.value
    return found if found.get(awaited) else None


@pytest.mark.long
def test_other_code_on_a_node_is_refused_in_one_sentence(cluster: Cluster, project: Path, tmp_path: Path) -> None:
    """A run that is started beside the cluster, from a checkout whose filters are others than those that the nodes import."""
    newer = Path(shutil.copytree(Path(clusters.__file__).resolve().parents[2] / "src" / "corpusmill", tmp_path / "newer" / "corpusmill"))
    with open(newer / "filters" / "rules.py", "a") as source:
        source.write("ANOTHER_VERSION = True\n")
    command = [sys.executable, "-m", "corpusmill", "run", "recipes/mine.yaml", "in", "--output", str(tmp_path / "run"), "--to", "filter"]
    environment = os.environ | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": str(newer.parent)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == InputError.exit_code, done.stderr
    assert "with other code than this machine (filters/rules.py changed)" in done.stderr and "Traceback" not in done.stderr


def test_the_end_of_a_cluster_that_has_crashed(cluster: Cluster, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last test here. Who held the head is killed, and a raylet too: nobody is left who would end the others."""
    os.kill(cluster.nodes[0].pid, signal.SIGKILL)
    os.kill(cluster.nodes[1].pid, signal.SIGKILL)
    assert until(lambda: clusters.find(folder) is None, "the head is there")
    until(lambda: (seen := alive(cluster)) and cluster.processes() >= seen, "the cluster's processes are not all known", 20)
    assert cluster_command.main(["down", "--folder", str(folder)]) == 0
    assert cluster.processes() | alive(cluster) == set() and not Path(cluster.temp).exists() and not (folder / "cluster.json").exists()
    assert cluster_command.main(["down", "--folder", str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f"processes of the cluster; none is left, and {cluster.temp} is gone.")
    assert said[1:] == ["No cluster is running."]
