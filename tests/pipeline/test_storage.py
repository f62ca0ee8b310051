"""Tests atomic publication by the files on disk."""

from pathlib import Path

import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage, is_remote


def test_write_is_published_whole(tmp_path):
    storage = Storage(str(tmp_path))
    storage.write_bytes("a/b.bin", b"content")
    assert storage.read_bytes("a/b.bin") == b"content"
    assert storage.list_files() == ["a/b.bin"]
    assert storage.size("a/b.bin") == 7 and storage.size("a/none") == -1


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


def test_remote_memory_store_has_the_same_interface():
    storage = Storage("memory://corpusmill-test")
    storage.write_bytes("a/one", b"1")
    assert storage.remote and storage.exists("a/one") and storage.size("a/one") == 1
    assert storage.read_bytes("a/one") == b"1"
    assert storage.list_files("a") == ["a/one"]
    storage.remove("a/one")
    assert not storage.exists("a/one")


def test_a_protocol_that_nothing_here_knows_is_one_sentence():
    with pytest.raises(InputError, match="gopher://host/run: this kind of URL can't be opened here"):
        Storage("gopher://host/run").exists("run.json")


@pytest.mark.parametrize(("path", "remote"), [("/data/x", False), ("x", False), ("file:///x", False), ("s3://bucket/x", True)])
def test_is_remote(path, remote):
    assert is_remote(path) is remote


def test_an_interrupt_as_soon_as_a_file_is_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is handled at the end of the call that makes the file, before the caller has its result."""

    def interrupted(path: Path, mode: str) -> None:
        with open(path, mode):
            raise KeyboardInterrupt

    monkeypatch.setattr("corpusmill.pipeline.storage.open", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt), Storage(str(tmp_path)).write_atomic("data/part.parquet"):
        pass
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
