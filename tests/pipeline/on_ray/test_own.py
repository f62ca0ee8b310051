"""A Ray of the run's own: the processes that it has, and leaves."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import living
import psutil
import pytest

from corpusmill.pipeline.on_ray.engine import RayEngine

#: Seconds in which what a raylet started notices that it has ended.
NOTICE = 10.0
#: What a Ray of our own has, by what its processes show of themselves; `ray::` are the actors.
WHO = re.compile(r"gcs_server|raylet/raylet|stand_in\.py|ray::\w+")


def test_a_ray_of_our_own_has_few_processes(engine: RayEngine) -> None:
    """Where this fails, Ray's names have changed, and it takes three times as long to come up (`own.py`)."""
    lines = [living.command(process) for process in of_ray(engine)]
    names = [found[0] if (found := WHO.search(line)) else line for line in lines]
    assert sorted(name for name in names if not name.startswith("ray::")) == ["gcs_server", "raylet/raylet", "stand_in.py", "stand_in.py"]
    assert {name for name in names if name.startswith("ray::")} <= {"ray::IDLE", "ray::PieceActor"}


def test_nobody_listens_for_what_ray_would_print(engine: RayEngine) -> None:
    """A thread of Ray's prints to standard output that a worker has died, sooner or later (`messages.py`). Where this fails, Ray's names
    have changed."""
    assert callable(engine.connect()._private.worker.listen_error_messages)
    assert not [thread.name for thread in threading.enumerate() if "listen_error" in thread.name]


#: A run that has a Ray of its own until its input ends; it says where that is, and its token.
OWNER = """
import os, sys
from corpusmill.pipeline.on_ray.engine import RayEngine
engine = RayEngine(workers=1)
print(engine.connect().get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
sys.stdin.read()
engine.close()
"""
#: Somebody who knows where it is.
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("in with", int(ray.cluster_resources()["CPU"]), "CPU", flush=True)
"""


def test_nobody_gets_in_without_its_token(tmp_path: Path) -> None:
    """Whatever else this process has set: the run is started as a user starts it, with nothing of Ray's in its environment."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    hasty = {"RAY_gcs_rpc_server_reconnect_timeout_s": "1", "RAY_gcs_server_request_timeout_seconds": "2", "HOME": str(tmp_path)}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], env=plain, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdin and owner.stdout
        address, token = owner.stdout.readline().split()

        def said(**variables: str) -> str:
            command = [sys.executable, "-c", STRANGER, address]
            return subprocess.run(command, env=plain | hasty | variables, capture_output=True, text=True, timeout=240).stdout

        assert said(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) == "in with 1 CPU\n"
        assert said() == said(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64) == ""
        owner.stdin.close()
    assert owner.returncode == 0


def test_closing_leaves_no_process(engine: RayEngine) -> None:
    """A later use of the engine would start Ray again."""
    processes = of_ray(engine)
    assert len(processes) >= 4
    engine.close()
    until = time.monotonic() + NOTICE
    while (left := living.still(processes)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


@pytest.mark.long
def test_where_a_hook_gives_workers_an_environment_they_have_it(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "for_ray.hook.environment")
    engine = RayEngine(workers=1)
    ray = engine.connect()
    try:
        assert ray.get(ray.remote(os.getenv).remote("GIVEN_BY_HOOK"), timeout=60) == "yes"
    finally:
        engine.close()


def of_ray(engine: RayEngine) -> list[psutil.Process]:
    """The processes that Ray has started here, and theirs."""
    session = engine.connect()._private.worker._global_node.get_session_dir_path()
    mine = living.descendants(psutil.Process())
    started = [process for process in mine if session in living.command(process)]
    return list({process.pid: process for one in started for process in [one, *living.descendants(one)]}.values())
