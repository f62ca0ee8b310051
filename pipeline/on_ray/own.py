"""A Ray of the run's own: on this machine, until the run ends, and of Ray's processes only those that tasks need.

`ray.init` starts three more: an autoscaler, which has no nodes to add here; a log monitor, which carries what workers print to a driver
that has asked not to hear it; the dashboard's server, even where no dashboard is wanted. Without them Ray is up in half the time. What
leaves them out is not of Ray's public interface (two are of `ray start`'s, but what that starts outlives the run), so where a version of
Ray has other names for it, all are started.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

LOCAL = "local"
#: Object store of a Ray of our own, bytes: nearly unused, so the smallest that Ray takes.
OBJECT_STORE = 80 * 1024 * 1024


def only_this_user() -> None:
    """Gives all Rays of this process a token of our own: no other user gets in, and Ray writes none into the home folder. It is in time
    before `import ray`."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def start(ray: Any, workers: int) -> None:
    """Starts Ray with so many CPUs, and connects this process to it. It is tried twice, as Ray's 30 seconds may pass on a machine that has
    much to do."""
    options = {
        "address": LOCAL, "num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE, "log_to_driver": False,
        "logging_level": logging.ERROR,
    }  # fmt: skip
    with contextlib.suppress(Exception), _few_processes(ray):
        ray.init(**options)
        return
    ray.shutdown()
    ray.init(**options)


@contextlib.contextmanager
def _few_processes(ray: Any) -> Iterator[None]:
    """Ray's head node without autoscaler, log monitor and dashboard's server while this lasts."""
    parameter, node = ray._private.parameter, ray._private.node.Node
    parameters, server = parameter.RayParams, node.start_api_server
    parameter.RayParams = partial(parameters, no_monitor=True, include_log_monitor=False)
    node.start_api_server = lambda self, **options: None
    try:
        yield
    finally:
        parameter.RayParams, node.start_api_server = parameters, server
