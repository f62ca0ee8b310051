"""The manifest: what was written is read back, and a crash in the middle of a row costs that row alone."""

import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import MANIFEST, FileRef, Manifest, TaskRow, task_identity
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage


def row(task: str, identity: str = "i") -> TaskRow:
    return TaskRow(
        task, identity, [FileRef("in.warc", "1-2", 9)], "c", "v", 3, 2, 1, 100,
        [OutputFile(f"data/{task}.parquet", 5, "ab")], {"bad_lines": 1}, ["one line was skipped"],
    )  # fmt: skip


@pytest.fixture(params=["local", "remote"])
def storage(request, tmp_path):
    return Storage(str(tmp_path) if request.param == "local" else f"memory://manifest{tmp_path}")


def test_rows_are_read_back_in_the_order_of_the_plan(storage):
    manifest = Manifest(storage)
    for task in ("b", "a"):
        manifest.append(row(task))
    assert not manifest.complete
    manifest.finish(["a", "b"])
    again = Manifest(storage)
    assert again.complete and again.rows() == [row("a"), row("b")]
    assert again.rows()[0].ref("filter", "data/a.parquet") == FileRef("filter/data/a.parquet", "ab", 5)


def test_the_last_row_of_a_task_counts_and_reopening_makes_it_unfinished(storage):
    manifest = Manifest(storage)
    manifest.append(row("a", "old"))
    manifest.finish(["a"])
    manifest.reopen()
    manifest.append(row("a", "new"))
    again = Manifest(storage)
    assert not again.complete and again.tasks["a"].identity == "new"


def test_a_row_cut_by_a_crash_is_dropped_and_the_next_one_is_whole(tmp_path):
    storage = Storage(str(tmp_path))
    Manifest(storage).append(row("a"))
    whole = storage.read_bytes(MANIFEST)
    for cut in (1, 40, len(whole) - 1):
        (tmp_path / MANIFEST).write_bytes(whole + whole[:cut])
        manifest = Manifest(storage)
        assert list(manifest.tasks) == ["a"]
        manifest.append(row("b"))
        assert list(Manifest(storage).tasks) == ["a", "b"]


def test_a_damaged_row_is_named(tmp_path):
    (tmp_path / MANIFEST).write_bytes(b'{"kind": "task"}\n')
    with pytest.raises(InputError, match=r"manifest\.jsonl:1: not a manifest row"):
        Manifest(Storage(str(tmp_path)))


def test_identity_changes_with_everything_that_matters():
    base = ("t", [FileRef("a", "f")], {"start": 0}, "config", "code")
    changed = [
        ("u", *base[1:]),
        ("t", [FileRef("a", "g")], *base[2:]),
        ("t", [FileRef("b", "f")], *base[2:]),
        (*base[:2], {"start": 1}, *base[3:]),
        (*base[:3], "other", "code"),
        (*base[:4], "other"),
    ]
    assert len({task_identity(*base), *(task_identity(*c) for c in changed)}) == 7
    assert task_identity(*base) == task_identity("t", [FileRef("a", "f", bytes=7)], *base[2:])
