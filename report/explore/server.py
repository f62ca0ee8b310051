"""Serving the explorer: on 127.0.0.1 alone, until Ctrl-C."""

import os
import socket
import sys
import threading
import webbrowser
from contextlib import suppress

import uvicorn

from corpusmill.pipeline.errors import InputError
from corpusmill.report.explore.app import make_app
from corpusmill.report.explore.explorer import Explorer
from corpusmill.report.explore.guard import Guard

HOST = "127.0.0.1"


def explore(folder: str, port: int = 0, stage: str | None = None, open_browser: bool = False) -> None:
    """Serves a run's explorer until it is interrupted. `port` 0 means any that is free.

    Raises InputError where the folder is no run, no stage has a report, or the port is taken.
    """
    explorer = Explorer(folder, stage)
    listening = listen(port)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        Guard(make_app(explorer), port), log_level="error", access_log=False, server_header=False, ws="none", lifespan="off",
        timeout_graceful_shutdown=1, timeout_keep_alive=30, limit_concurrency=64,
    )  # fmt: skip
    loader = threading.Thread(target=explorer.load, daemon=True)
    address = f"http://{HOST}:{port}/"
    with suppress(KeyboardInterrupt):  # how the explorer ends
        loader.start()
        print(address, flush=True)
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listening])
    explorer.stop()
    loader.join(timeout=1)
    _leave()


def _leave() -> None:
    """Ends the process at once where threads are still in native code: Python would unwind them there, which aborts it."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def listen(port: int) -> socket.socket:
    """A socket on the loopback address. Raises InputError where the port is taken."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise InputError(f"port {port} of {HOST} can't be used ({error.strerror}); --port 0 takes one that is free.") from error
    return listening
