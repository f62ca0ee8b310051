"""Tests a run's own Ray: access to it, and the processes that it leaves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import living
import psutil
import pytest

from corpusmill.pipeline.on_ray import engine as on_ray
from corpusmill.pipeline.on_ray.engine import RayEngine

#: Seconds in which processes started by a raylet notice its end. One second is usual; a worker that is just starting on a busy machine
#: takes more than ten.
NOTICE = 60.0

#: A run with its own Ray until its input ends; it prints Ray's address and token.
OWNER = """
import os, sys
from corpusmill.pipeline.on_ray.engine import RayEngine
engine = RayEngine(workers=1)
print(engine.connect().get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
sys.stdin.read()
engine.close()
"""
#: A client that knows the address.
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("in with", int(ray.cluster_resources()["CPU"]), "CPU", flush=True)
"""


@pytest.mark.long
def test_nobody_gets_in_without_its_token_or_from_another_machine(tmp_path: Path) -> None:
    """The run starts as a user starts it: with nothing of Ray's in its environment, whatever this process has set."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    hasty = {"RAY_gcs_rpc_server_reconnect_timeout_s": "1", "RAY_gcs_server_request_timeout_seconds": "2", "HOME": str(tmp_path)}
    hasty[on_ray.CLUSTERS] = "0"  # else a client looks for 127.0.0.1 under the machine's other address
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=plain, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdin and owner.stdout
        address, token = owner.stdout.readline().split()

        def stranger(**variables: str) -> "subprocess.Popen[str]":
            command, environment = [sys.executable, "-c", STRANGER, address], plain | hasty | variables
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

        theirs = stranger(), stranger(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64)
        friend = stranger(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
        said = [process.communicate(timeout=240)[0] for process in (friend, *theirs)]
        assert said == ["in with 1 CPU\n", "", ""] and all(process.returncode for process in theirs)
        mine = psutil.Process(owner.pid)
        found = living.listening([mine, *mine.children(recursive=True)])
        owner.stdin.close()
    assert owner.returncode == 0
    assert len(found) > 3 and {place for place, _ in found} <= {"127.0.0.1", "::1"}, found


@pytest.mark.long
def test_closing_leaves_no_process(engine: RayEngine) -> None:
    """Closing ends all of Ray's processes; a later use of the engine would start Ray again."""
    processes = of_ray(engine)
    assert len(processes) >= 4
    engine.close()
    until = time.monotonic() + NOTICE
    while (left := living.still(processes)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


def of_ray(engine: RayEngine) -> list[psutil.Process]:
    """Returns the processes that Ray has started here, with their children."""
    engine.connect()
    started = [process for process in living.descendants(psutil.Process()) if "/session_" in living.command(process)]
    return list({process.pid: process for one in started for process in [one, *living.descendants(one)]}.values())
