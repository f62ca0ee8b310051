"""Tests atomic publication by the files on disk."""

from pathlib import Path

import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    storage = Storage(str(tmp_path))
    storage.write_bytes("x", b"old")
    with pytest.raises(RuntimeError), storage.write_atomic("x") as file:
        file.write(b"half of the n")
        raise RuntimeError("killed")
    assert storage.read_bytes("x") == b"old"
    assert storage.list_files() == ["x"]


def test_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="file/sub/x.*can't be written"):
        Storage(str(tmp_path / "file" / "sub")).write_bytes("x", b"")


def test_an_interrupt_as_soon_as_a_file_is_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is handled at the end of the call that makes the file, before the caller has its result."""

    def interrupted(path: Path, mode: str) -> None:
        with open(path, mode):
            raise KeyboardInterrupt

    monkeypatch.setattr("corpusmill.pipeline.storage.open", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt), Storage(str(tmp_path)).write_atomic("data/part.parquet"):
        pass
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
