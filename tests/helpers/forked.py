"""`corpusmill` in a process that is forked from this one, whose libraries are loaded: it begins to work at once, and can be killed."""

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from corpusmill import cli

LOOK = 0.02


class Driver:
    """The command in a process group of its own; what it says goes to the file `output`."""

    def __init__(self, arguments: Sequence[str], output: Path, environment: Mapping[str, str]):
        self.output, self.code = output, None
        self.pid = os.fork()
        if not self.pid:
            gc.freeze()  # what is inherited stays: the end of a DuckDB connection would wait for threads that only the parent has
            _work(arguments, output, environment)

    def poll(self) -> int | None:
        """Its exit code (less than 0: the signal that ended it), None while it works."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float) -> int | None:
        """As `poll`, but waits so long for the end."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(LOOK)
        return self.code

    def kill(self) -> None:
        """SIGKILL to it and to all processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(60)

    def signal(self, number: int) -> None:
        """To it and to all processes that it has started."""
        os.killpg(self.pid, number)

    def said(self) -> str:
        return self.output.read_text(errors="replace").strip()


def _work(arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> None:
    """The child's life, from which there is no return."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open(output, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)  # pytest has put its own there
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
