"""Finds and ends processes by a mark in their environment, which children inherit, whoever their parent is. Linux only.

A process that sets its title (setproctitle) overwrites its environment in /proc, with the mark.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds between two checks whether processes have ended.
PAUSE = 0.05
#: How often a process that loads its program is read again, and the seconds between.
LOOKS, LOADING = 1000, 0.001
Choose = Callable[[], set[int]]


def marked(name: str, value: str) -> set[int]:
    """Returns the processes (not this one) that were started with the environment variable `name` set to `value`."""
    wanted = f"{name}={value}".encode()
    return {pid for pid in _processes() if pid != os.getpid() and wanted in environment(pid)}


def environment(pid: int) -> list[bytes]:
    """Returns the variables, NAME=VALUE, with which a process was started. While it loads its program it has no variables and no
    command; the function waits until it has.
    """
    for _ in range(LOOKS):
        if (found := _read(pid, "environ")) or not _loads(pid):
            break
        time.sleep(LOADING)
    return (found or _read(pid, "environ")).split(b"\0")  # again, for they may have appeared between the two reads


def end(choose: Choose, number: signal.Signals, patience: float) -> set[int]:
    """Sends a signal to the processes that `choose` returns, and again to new ones, until it returns none or `patience` seconds
    are over; returns the processes that got the signal.
    """
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
    """Whether the process is between two programs: it has one (unlike a zombie or a kernel thread), but no command yet."""
    try:
        Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return False
    return not _read(pid, "cmdline")


def _read(pid: int, what: str) -> bytes:
    """Reads a file of /proc; empty for a process that has ended (also for a zombie) or belongs to another user."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
