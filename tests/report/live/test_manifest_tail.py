"""Tests that a manifest read while it is written gives the same rows as when it is complete."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline import storage as storage_module
from corpusmill.pipeline.manifest import MANIFEST, FileRef, Manifest, TaskRow
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage
from corpusmill.report.live.status import ManifestTail


def row(number: int, identity: str = "a") -> TaskRow:
    inputs = [FileRef("in", "x", 10 * number), FileRef("more", "x", 1)]
    outputs = [OutputFile(f"data/part-{number}.parquet", 1, "x"), OutputFile(f"report/part-{number}.parquet", 1, "x")]
    return TaskRow(
        f"part-{number}", identity, inputs, "c", "v", 100 + number, 40, 60 + number, 7 * number, outputs, warnings=["w"] * number
    )


def write(manifest: Manifest) -> None:
    """Writes four tasks, a finished plan that is opened again, and one task done again."""
    for number in range(4):
        manifest.append(row(number))
    manifest.finish([f"part-{number}" for number in range(3)])
    manifest.reopen()
    manifest.append(replace(row(2, "b"), rows_in=999))


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    storage = Storage(str(tmp_path_factory.mktemp("whole")))
    write(Manifest(storage))
    return storage.read_bytes(MANIFEST)


@given(cuts=st.lists(st.integers(0, 5000), max_size=6))
def test_read_in_pieces_it_is_the_whole(content, tmp_path_factory, cuts) -> None:
    storage = Storage(str(tmp_path_factory.getbasetemp()))
    tail = ManifestTail(storage)
    for end in sorted({min(cut, len(content)) for cut in cuts} | {len(content)}):
        (tmp_path_factory.getbasetemp() / MANIFEST).write_bytes(content[:end])
        tail.update()
        assert len(tail.rows) == sum(b'"kind":"task"' in line for line in content[:end].split(b"\n")[:-1])
    assert [(done.task, done.rows_in) for done in tail.rows] == [(f"part-{n}", 100 + n) for n in range(4)] + [("part-2", 999)]
    assert tail.tasks["part-2"].rows_in == 999 and not tail.complete and tail.bad == 0
    assert [done.input_bytes for done in tail.rows] == [1, 11, 21, 31, 21] and [done.bytes_in for done in tail.rows[:2]] == [0, 7]
    assert [done.warnings for done in tail.rows[:3]] == [0, 1, 2] and all(done.documents for done in tail.rows)


def test_objects_that_become_one_while_they_are_read() -> None:
    """Each row is taken once, whether read from small objects that are gone or only from the large one."""
    storage = Storage("memory://tail-tidy/filter")
    manifest, tail, late = Manifest(storage), ManifestTail(storage), ManifestTail(storage)
    for number in range(3):
        manifest.append(row(number))
    tail.update()
    manifest.append(row(3))
    manifest.finish(["part-0", "part-3"])
    for reader in (tail, late, tail):
        reader.update()
    manifest.reopen()
    manifest.append(row(4))
    for reader in (tail, late):
        reader.update()
        assert [(done.place, done.task) for done in reader.rows] == [(place, f"part-{n}") for n, place in enumerate((0, 1, 2, 3, 6))]
        assert not reader.bad and not reader.complete


def test_an_object_that_is_written_again_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores give times in whole seconds, so an object with more rows may have its old time."""
    monkeypatch.setattr(storage_module, "last_written", lambda info: 1_700_000_000.0)
    storage = Storage("memory://tail-second/filter")
    manifest, tail = Manifest(storage), ManifestTail(storage)
    manifest.append(row(0))
    tail.update()
    manifest.append(row(1))
    manifest.finish(["part-0", "part-1"])
    assert len(storage.list_files("manifest")) == 1
    tail.update()
    assert tail.complete and [done.task for done in tail.finished()] == ["part-0", "part-1"]
