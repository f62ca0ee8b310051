"""Measures the available memory, so that work that can't fit is refused with a message before the process is killed."""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

CGROUP = Path("/sys/fs/cgroup")
#: The files of a cgroup, in version 2 and in version 1: limit, use, statistics, and the entry of these with the droppable part of the use.
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def need_memory(size: int, what: str) -> None:
    """Raises ValueError if `size` bytes are more than the available memory. `what` is the beginning of the message, with its verb."""
    available = available_memory()
    if size > available:
        raise ValueError(f"{what} {size / 1e6:,.0f} MB of memory, and {available / 1e6:,.0f} MB are available")


def limit_memory(megabytes: int) -> None:
    """Limits the memory that this process may allocate in addition to what it holds now. Mapped files don't count."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = data_bytes() + (megabytes << 20)
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def data_bytes() -> int:
    """Returns the bytes of data of this process, as RLIMIT_DATA counts them; a guess where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        return 256 << 20


_ONE_LIMIT = threading.RLock()  # a limit is one of the whole process: two that overlap would leave the first for ever


@contextmanager
def limited(megabytes: int, seconds: float) -> Iterator[None]:
    """Raises ValueError in the block after `seconds` of this process's time (in the main thread), or where it takes more memory."""

    def end(number: int, frame: FrameType | None) -> None:
        raise ValueError(f"it takes more than {seconds:g} seconds")

    timed = threading.current_thread() is threading.main_thread()
    with _ONE_LIMIT:
        before = resource.getrlimit(resource.RLIMIT_DATA), signal.signal(signal.SIGVTALRM, end) if timed else None
        try:
            limit_memory(megabytes)
            if timed:
                signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            yield
        except MemoryError as error:
            raise ValueError(f"it takes more than {megabytes:,} MB of memory") from error
        finally:
            if timed:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                signal.signal(signal.SIGVTALRM, before[1])
            resource.setrlimit(resource.RLIMIT_DATA, before[0])


def release_memory() -> None:
    """Frees the memory that libraries keep for later, so that a second try has as much as the first."""
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """Resets the peak resident set size of this process, where the system supports that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_memory() -> int:
    """Returns the bytes that this process can allocate without swapping, limited by the machine and by its container."""
    return min(_machine(), *(_cgroup(CGROUP, files) for files in CGROUP_FILES))


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass  # no Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup(root: Path, files: tuple[str, str, str, str]) -> int:
    """Returns the bytes left below a container's limit; 2^62 where there is no limit."""
    limit, used, statistics, droppable = files
    try:
        left = int((root / limit).read_text()) - int((root / used).read_text())  # ValueError for "max"
        kept = dict(line.split() for line in (root / statistics).read_text().splitlines())
        return max(left + int(kept.get(droppable, 0)), 0)
    except (OSError, ValueError):
        return 1 << 62
