"""A Ray of the run's own: on this machine, until the run ends, and of Ray's processes only those that tasks need.

`ray.init` starts five more, with which it takes three times as long to come up: an autoscaler, which has no nodes to add here; a log
monitor, which carries what workers print to a driver that has asked not to hear it; the dashboard's server, even where no dashboard is
wanted; an agent that measures the node for the dashboard; and one that prepares environments, of which pieces have none of their own. What
leaves them out is not of Ray's public interface (two are of `ray start`'s, but what that starts outlives the run), so where a version of
Ray has other names for it, all are started.
"""

import contextlib
import logging
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

LOCAL = "local"
#: Object store of a Ray of our own, bytes: nearly unused, so the smallest that Ray takes.
OBJECT_STORE = 80 * 1024 * 1024
#: The raylet's options with its agents' commands, and the ports that it waits for each to name.
AGENTS = {
    "--dashboard_agent_command": ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"),
    "--runtime_env_agent_command": ("runtime_env_agent_port",),
}
#: The variable that names a function which gives actors an environment.
HOOK = "RAY_RUNTIME_ENV_HOOK"
STAND_IN = Path(__file__).with_name("stand_in.py")


def prepare() -> None:
    """What Ray reads as it is imported. From 2.59 on, a Ray that `ray.init` starts asks everybody for a token (unless the user has set
    `RAY_AUTH_MODE=disabled`). All Rays of this process get one of our own, which no other user can read, and Ray writes none into the home
    folder. Workers run with this Python also where `uv run` started it, of which Ray would make an environment for them."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def start(ray: Any, workers: int, agents: bool) -> None:
    """Starts Ray with so many CPUs, and connects this process to it. Without `agents` no actor can have an environment of its own; where a
    hook of the user's gives all actors one, they are there.

    It is tried twice, as Ray's 30 seconds may pass on a machine that has much to do.
    """
    agents = agents or HOOK in os.environ
    options = {
        "address": LOCAL, "num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE, "log_to_driver": False,
        "logging_level": logging.ERROR,
    }  # fmt: skip
    with contextlib.suppress(Exception), _few_processes(ray, agents):
        ray.init(**options)
        return
    ray.shutdown()
    ray.init(**options)


@contextlib.contextmanager
def _few_processes(ray: Any, agents: bool) -> Iterator[None]:
    """Ray's head node without autoscaler, log monitor and dashboard's server, and without `agents`, while this lasts."""
    private = ray._private
    begin = private.services.start_ray_process
    others: list[tuple[Any, str, Any]] = [
        (private.parameter, "RayParams", partial(private.parameter.RayParams, no_monitor=True, include_log_monitor=False)),
        (private.node.Node, "start_api_server", lambda self, **options: None),
    ]
    if not agents:
        others += [
            (private.services, "start_ray_process", lambda command, *more, **named: begin([*map(_with_stand_in, command)], *more, **named)),
            (private.utils, "get_dashboard_dependency_error", lambda: "left out"),  # it would load the dashboard to know
        ]
    before = [(place, name, getattr(place, name)) for place, name, _ in others]
    try:
        _set(others)
        yield
    finally:
        _set(before)


def _set(attributes: Sequence[tuple[Any, str, Any]]) -> None:
    for place, name, value in attributes:
        setattr(place, name, value)


def _with_stand_in(argument: str) -> str:
    """An argument of a process of Ray's; where it is the command of one of the raylet's agents, that of its stand-in."""
    option, _, command = argument.partition("=")
    if option not in AGENTS:
        return argument
    said = dict(part[2:].split("=", 1) for part in shlex.split(command) if part.startswith("--") and "=" in part)
    return f"{option}={subprocess.list2cmdline(_stand_in(said['session-dir'], said['node-id'], AGENTS[option]))}"


def _stand_in(session: str, node: str, ports: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(STAND_IN), session, node, *ports]
