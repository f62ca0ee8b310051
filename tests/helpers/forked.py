"""Runs `corpusmill` in a process forked from this one: its libraries are already loaded, so it starts at once, and it can be killed."""

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from corpusmill import cli
from corpusmill.report.page import html  # noqa: F401 - a run writes its report at the end

LOOK = 0.02


class Driver:
    """The command in a process group of its own; its output goes to the file `output`."""

    def __init__(self, arguments: Sequence[str], output: Path, environment: Mapping[str, str]):
        self.output, self.code = output, None
        self.pid = os.fork()
        if not self.pid:
            gc.freeze()  # keeps inherited objects alive: the end of a DuckDB connection would wait for threads that only the parent has
            _work(arguments, output, environment)

    def poll(self) -> int | None:
        """Returns its exit code (less than 0: the signal that ended it), None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float) -> int | None:
        """Returns the same as `poll`, but waits up to `seconds` for the end."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(LOOK)
        return self.code

    def kill(self) -> None:
        """Sends SIGKILL to it and to all processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(60)

    def signal(self, number: int) -> None:
        """Sends a signal to it and to all processes that it has started."""
        os.killpg(self.pid, number)

    def said(self) -> str:
        return self.output.read_text(errors="replace").strip()


def _work(arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
    """Runs the child to its end and never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)  # pytest has replaced them
        os.environ.update(environment)
        sys.argv = ["corpusmill", *arguments]
        cli.main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
