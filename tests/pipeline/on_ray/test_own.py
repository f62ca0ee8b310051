"""A Ray of the run's own: the processes that it has, and leaves."""

import re
import time

import living
import psutil

from corpusmill.pipeline.on_ray.engine import RayEngine

#: Seconds in which Ray's agents notice that their raylet has ended.
NOTICE = 20.0


def test_a_ray_of_our_own_has_no_autoscaler_no_log_monitor_and_no_dashboard(engine: RayEngine) -> None:
    """Where this fails, Ray's names have changed, and it takes twice as long to come up (`own.py`)."""
    lines = [" ".join(process.cmdline()) for process in of_ray(engine)]
    assert any("gcs_server" in line for line in lines) and any("raylet" in line for line in lines)
    assert not [line for line in lines if re.search(r"monitor\.py|dashboard\.py", line)]


def test_closing_leaves_no_process(engine: RayEngine) -> None:
    """The last test here: a later use of the engine would start Ray again."""
    processes = of_ray(engine)
    assert any(process.cmdline()[0].startswith("ray::RuntimeEnvAgent") for process in processes)  # shows nothing else of itself
    engine.close()
    until = time.monotonic() + NOTICE
    while (left := living.still(processes)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []


def of_ray(engine: RayEngine) -> list[psutil.Process]:
    """The processes that Ray has started here, and theirs."""
    session = engine.connect()._private.worker._global_node.get_session_dir_path()
    mine = living.descendants(psutil.Process())
    started = [process for process in mine if session in " ".join(process.cmdline())]
    return list({process.pid: process for one in started for process in [one, *living.descendants(one)]}.values())
