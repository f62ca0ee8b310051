"""How much memory there is, so that what can't fit is refused in a sentence instead of the process being killed."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
#: Limit and use of a cgroup, and what of its use can be dropped (in `memory.stat`): of version 2, of version 1.
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def need_memory(size: int, what: str) -> None:
    """Raises ValueError where `size` bytes are more than can be had. `what` is the start of the sentence, with its verb."""
    available = available_memory()
    if size > available:
        raise ValueError(f"{what} {size / 1e6:,.0f} MB of memory, and {available / 1e6:,.0f} MB are available")


def release_memory() -> None:
    """Gives the system back what libraries keep for later, so that a second try begins with as much as the first."""
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """From now on the system's account of this process's largest resident set begins anew, where it can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_memory() -> int:
    """Bytes that this process can have without swapping: of the machine, and of the container that it runs in."""
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
    """What a container's limit leaves; more than any machine has where there is none."""
    limit, used, statistics, droppable = files
    try:
        left = int((root / limit).read_text()) - int((root / used).read_text())  # ValueError for "max"
        kept = dict(line.split() for line in (root / statistics).read_text().splitlines())
        return max(left + int(kept.get(droppable, 0)), 0)
    except (OSError, ValueError):
        return 1 << 62
