"""A task that needs more memory than there is: it is done in parts, with the same bytes, or given up and named."""

import os
import resource
from pathlib import Path

import pytest
from faulty_run import plant
from killing import in_child

#: Memory that a process may have beside what it has, bytes, and what the filter's function takes a text.
ROOM, A_TEXT = 1 << 30, 100 << 20


def limited(room: int) -> None:
    """From now on this process may have so much address space more."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room, resource.getrlimit(resource.RLIMIT_AS)[1]))


def run_limited(carry_out, run: Path, said: Path) -> None:
    limited(ROOM)
    said.write_text(carry_out(run, last="filter"))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the size of a process is told by Linux alone")
def test_a_task_without_enough_memory_is_done_in_parts(carry_out, fault: Path, tmp_path: Path, reference: Path, tree, faults_of) -> None:
    run, said = tmp_path / "run", tmp_path / "said"
    assert carry_out(run, last="ingest") == ""
    plant(fault, kind="memory", when="class ZipFile", bytes_a_text=A_TEXT)
    assert in_child(run_limited, carry_out, run, said) == 0
    assert said.read_text() == ""
    assert tree(run / "filter") == tree(reference / "filter") and faults_of(run) == []
