"""Tests the memory limit as read from Linux's files, and limits of a block."""

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpusmill.pipeline.memory import CGROUP_FILES, _cgroup, limited


@pytest.mark.parametrize("files", CGROUP_FILES)
def test_limits_of_a_container(tmp_path: Path, files: tuple[str, str, str, str]) -> None:
    limit, used, statistics, droppable = files
    assert _cgroup(tmp_path, files) == 1 << 62
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("max\n")
    (tmp_path / used).write_text("600\n")
    (tmp_path / statistics).write_text(f"anon 5\n{droppable} 100\nslab 7\n")
    assert _cgroup(tmp_path, files) == 1 << 62
    (tmp_path / limit).write_text("1000\n")
    assert _cgroup(tmp_path, files) == 500
    (tmp_path / limit).write_text("400\n")
    assert _cgroup(tmp_path, files) == 0


def test_limits_of_threads_that_overlap_are_all_lifted() -> None:
    """A limit is one of the whole process: the second to begin must not restore the first's."""
    before = resource.getrlimit(resource.RLIMIT_DATA)

    def work(turn: int) -> bool:
        with limited(500 + turn, 60):
            time.sleep(0.001 * (turn % 3))  # lets other threads begin, and end in another order
            return resource.getrlimit(resource.RLIMIT_DATA) != before

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(100)))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
