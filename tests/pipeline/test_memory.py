"""Tests the memory limit as read from Linux's files."""

from pathlib import Path

import pytest

from corpusmill.pipeline.memory import CGROUP_FILES, _cgroup, need_memory


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


def test_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.pipeline.memory.available_memory", lambda: 3_000_000_000)
    need_memory(3_000_000_000, "all rows take")
    with pytest.raises(ValueError, match=r"^all rows take 8,000 MB of memory, and 3,000 MB are available$"):
        need_memory(8_000_000_000, "all rows take")
