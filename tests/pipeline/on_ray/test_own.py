"""A Ray of the run's own: the processes that it has, and leaves."""

import os
import re
import sys
from pathlib import Path

import pytest

from corpusmill.pipeline.on_ray.engine import RayEngine


def test_a_ray_of_our_own_has_no_autoscaler_no_log_monitor_and_no_dashboard(engine: RayEngine) -> None:
    """Where this fails, Ray's names have changed, and it takes twice as long to come up (`own.py`)."""
    session = engine.connect()._private.worker._global_node.get_session_dir_path()
    lines = [line for pid in os.listdir("/proc") if pid.isdigit() and session in (line := command_line(pid))]
    assert any("gcs_server" in line for line in lines) and any("raylet" in line for line in lines)
    assert not [line for line in lines if re.search(r"monitor\.py|dashboard\.py", line)]


def test_closing_leaves_no_process(engine: RayEngine) -> None:
    """The last test here: a later use of the engine would start Ray again."""
    if not sys.platform.startswith("linux"):
        pytest.skip("looks into /proc")
    import ray

    session = ray._private.worker._global_node.get_session_dir_path()
    engine.close()
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and session in command_line(pid)] == []


def command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
