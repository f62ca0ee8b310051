"""Lists living processes; zombies (ended, but not yet waited for by their parent) are not among them."""

import os
from collections.abc import Iterable

import psutil


def in_sessions(sessions: Iterable[int]) -> set[int]:
    """Returns the living processes in these sessions (setsid), whatever their environment and command."""
    wanted = set(sessions)
    return {process.pid for process in psutil.process_iter() if _lives(process) and _session(process.pid) in wanted}


def descendants(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if _lives(child)]


def still(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Returns those of `processes` that still live; a new process with the number of an old one does not count."""
    return [process for process in processes if process.is_running() and _lives(process)]


def command(process: psutil.Process) -> str:
    """Returns a process's command; empty where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Returns addresses and ports on which processes listen, as `ss -ltnp` does."""
    found = [each for process in processes for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return {(each.laddr.ip.removeprefix("::ffff:"), each.laddr.port) for each in found}
