"""The reader process (`reader.py`) as its worker sees it: started, spoken to, watched, and at its end asked of what it died."""

import contextlib
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from typing import Any

from corpusmill.ingest.reader import EXTRACTING, IDLE, OUT_OF_MEMORY, PHASE, PLACE, READING_FACTOR
from corpusmill.pipeline.engine import peak_memory_mb

#: A process that sleeps instead of working is killed after this many times its CPU seconds.
WALL_FACTOR = 10
#: What Rust, C++ and glibc say on standard error when an allocation fails, before they abort.
NO_MEMORY = re.compile(rb"memory allocation of \d+ bytes failed|std::bad_alloc|Cannot allocate memory|out of memory", re.IGNORECASE)
#: Arrow's own allocators never give memory back. Rust must not trace a panic for want of memory: the trace wants some too, and then
#: waits for itself forever. glibc gives the memory of each large page back and asks for it anew for the next one, which costs a
#: twentieth of the time: so it keeps up to 64 MB. A block of more than 32 MB still goes back at once.
SURROUNDINGS = {
    "ARROW_DEFAULT_MEMORY_POOL": "system", "RUST_BACKTRACE": "0", "RUST_LIB_BACKTRACE": "0",
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}  # fmt: skip


#: Signals that a process gets for what it does itself. All others come from outside, but for SIGPROF, which is our limit of CPU time.
OWN_SIGNALS = frozenset(
    [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS, signal.SIGPIPE]
)


class Died(Exception):
    """The reader process is no more; `rule` says of what (`timeout`, `out_of_memory`, `crashed`), `how` in a few words. `sure`: that the
    record did it, so no second process has to die of it. `outside`: whoever killed it (the system for want of memory, an administrator, the
    end of the machine), it was not the record."""

    def __init__(self, rule: str, how: str, sure: bool = False, outside: bool = False):
        self.rule, self.how, self.sure, self.outside = rule, how, sure, outside


class Process:
    """A running reader process."""

    def __init__(self, hello: dict[str, Any], page_seconds: float):
        self.page_seconds = page_seconds
        self.peak_mb = 0
        self.hung = False
        self.seen: tuple[int, int] = (0, 0)
        self.since = time.monotonic()
        shared = tempfile.TemporaryFile()
        shared.truncate(mmap.PAGESIZE)
        self.place = memoryview(mmap.mmap(shared.fileno(), mmap.PAGESIZE)).cast("Q")
        self.errors = tempfile.TemporaryFile()
        self.connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "corpusmill.ingest.reader"]
        with theirs, shared:
            self.popen = subprocess.Popen(
                [*command, str(theirs.fileno()), str(shared.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors, pass_fds=(theirs.fileno(), shared.fileno()),
                env={**os.environ, **SURROUNDINGS, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # to find the same modules
            )  # fmt: skip
        self.send(hello)

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: `receive` says of what
            self.connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> bytes:
        """The next message. Raises Died."""
        try:
            while not self.connection.poll(1.0):
                self._check_hang()
            return self.connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            raise self._death() from None

    def _check_hang(self) -> None:
        now = (self.place[PLACE], self.place[PHASE])
        if now != self.seen or now[1] == IDLE:
            self.seen, self.since = now, time.monotonic()
        limit = self.page_seconds * WALL_FACTOR * (1 if now[1] == EXTRACTING else READING_FACTOR)
        if time.monotonic() - self.since > limit:
            self.hung = True
            self.popen.kill()

    def _death(self) -> Died:
        code = self._reap()
        if -code == signal.SIGPROF:
            return Died("timeout", "it ran out of CPU time", sure=True)
        if self.hung:
            return Died("timeout", "it did not get on")
        if code == OUT_OF_MEMORY or NO_MEMORY.search(self.said()):
            return Died("out_of_memory", "it ran out of memory")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        with contextlib.suppress(ValueError):  # real-time signals have no name
            how = signal.Signals(-code).name
        return Died("crashed", how, outside=code < 0 and -code not in OWN_SIGNALS)

    def _reap(self) -> int:
        """Waits for the end of a process that is ending; returns its exit code, negative for a signal."""
        _, status, usage = os.wait4(self.popen.pid, 0)
        self.popen.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss // 1024
        if peak > peak_memory_mb():  # what it says is at least this process's own peak, from which it was started
            self.peak_mb = max(self.peak_mb, peak)
        return self.popen.returncode

    def said(self) -> bytes:
        """The end of what it wrote to standard error."""
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - (1 << 16)))
        return self.errors.read()

    def close(self) -> None:
        if self.popen.returncode is None:
            self.popen.kill()
            self._reap()
        self.connection.close()
        self.errors.close()
