"""Where and how torch computes: device, threads, determinism."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def deterministic(threads: int = 0) -> Iterator[None]:
    """Equal work gives equal bits inside the block: deterministic kernels and a fixed number of threads (0: as it is)."""
    switches: Any = torch.utils.deterministic
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
              switches.fill_uninitialized_memory, torch.get_num_threads())  # fmt: skip
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a workspace of its own
    torch.use_deterministic_algorithms(True, warn_only=True)
    switches.fill_uninitialized_memory = False  # costs time and changes no result that is read
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        switches.fill_uninitialized_memory = before[2]
        torch.set_num_threads(before[3])
