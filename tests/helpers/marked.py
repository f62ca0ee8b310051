"""Processes known by a mark in their environment, which their children inherit: found and ended whoever their parent is. Linux only.

A process that gives itself a title (setproctitle) writes it over what /proc tells of its environment, its mark included.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds between two looks at whether processes have ended.
PAUSE = 0.05
#: How often a process that loads its program is looked at again, and the seconds between.
LOOKS, LOADING = 1000, 0.001
Choose = Callable[[], set[int]]


def marked(name: str, value: str) -> set[int]:
    """The processes (not this one) that were started with the environment variable `name` set to `value`."""
    wanted = f"{name}={value}".encode()
    return {pid for pid in _processes() if pid != os.getpid() and wanted in environment(pid)}


def environment(pid: int) -> list[bytes]:
    """The variables, NAME=VALUE, that a process was started with. While it loads its program it shows none, nor a command, for a moment;
    that is waited for."""
    for _ in range(LOOKS):
        if (found := _read(pid, "environ")) or not _loads(pid):
            break
        time.sleep(LOADING)
    return (found or _read(pid, "environ")).split(b"\0")  # again, for it may have come between the two questions


def end(choose: Choose, number: signal.Signals, patience: float) -> set[int]:
    """Sends a signal to each process that `choose` gives, also to those that come up meanwhile, until it gives none or `patience` seconds
    are over; returns those that it was sent to."""
    told: set[int] = set()
    deadline = time.monotonic() + patience
    while (there := choose()) and time.monotonic() < deadline:
        for pid in there - told:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            told.add(pid)
        time.sleep(PAUSE)
    return told


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _loads(pid: int) -> bool:
    """Whether it is between two programs: it has one (a zombie and a thread of the kernel have none), but no command yet."""
    try:
        Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return False
    return not _read(pid, "cmdline")


def _read(pid: int, what: str) -> bytes:
    """A file of /proc; nothing for a process that has ended (a zombie's are empty) or belongs to others."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
