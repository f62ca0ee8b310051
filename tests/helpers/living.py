"""Processes that live: those that have ended and wait for their parent to ask do not."""

import os
from collections.abc import Iterable

import psutil


def in_sessions(sessions: Iterable[int]) -> set[int]:
    """Those in one of these sessions (setsid), whatever they show of their environment and their command."""
    wanted = set(sessions)
    return {process.pid for process in psutil.process_iter() if _lives(process) and _session(process.pid) in wanted}


def descendants(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if _lives(child)]


def still(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those of `processes` that live; another that has got the number of one is not it."""
    return [process for process in processes if process.is_running() and _lives(process)]


def command(process: psutil.Process) -> str:
    """What it shows as its command; nothing where it has ended meanwhile."""
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
