"""Processes that are known by a mark, or by their session together with a file that they have open."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpusmill.pipeline.cluster import marked

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def sleeper(started: list[subprocess.Popen[bytes]], log: Path, own: bool, mark: str | None = None) -> int:
    """A process that does nothing, which writes to `log`, in a session of its `own` or this one's."""
    environment = os.environ | ({"TEST_MARK": mark} if mark else {})
    with open(log, "ab") as output:
        started.append(subprocess.Popen(["sleep", "60"], stdout=output, env=environment, start_new_session=own))
    return started[-1].pid


def test_only_session_and_file_together_are_proof(started: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster-2").mkdir()
    (tmp_path / "link").symlink_to("cluster")
    ours = sleeper(started, tmp_path / "cluster" / "log", own=True)
    elsewhere = sleeper(started, tmp_path / "cluster-2" / "log", own=True)
    sleeper(started, tmp_path / "cluster" / "log", own=False)
    sessions = {ours, elsewhere}
    assert marked.with_open(str(tmp_path / "cluster"), sessions) == {ours}
    assert marked.with_open(f"{tmp_path}/link/", sessions) == {ours}
    assert marked.with_open(str(tmp_path / "cluster"), {elsewhere}) == set()


def test_a_mark_is_known_by_name_and_value(started: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    one, other = (sleeper(started, tmp_path / "log", own=False, mark=mark) for mark in ("one", "one more"))
    assert marked.marked("TEST_MARK", "one") == {one}
    assert marked.has(other, "TEST_MARK") and not marked.has(other, "TEST_MAR")


def test_a_process_that_loads_its_program_is_known_by_its_mark(started: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Popen returns while the new program is being loaded: for a moment /proc shows no environment (of every third one, here)."""
    for _ in range(50):
        pid = sleeper(started, tmp_path / "log", own=False, mark="one")
        assert marked.has(pid, "TEST_MARK")


def test_a_process_without_an_environment_is_nobodys(started: list[subprocess.Popen[bytes]]) -> None:
    started.append(subprocess.Popen(["sleep", "60"], env={}))
    assert marked.environment(started[-1].pid) == [b""] and not marked.has(started[-1].pid, "TEST_MARK")
