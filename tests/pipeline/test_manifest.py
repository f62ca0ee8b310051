"""Tests the manifest: rows are read back as written, and a crash in the middle of a row costs that row alone."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline import manifest as manifests
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import MANIFEST, FileRef, Manifest, Quarantined, TaskRow, task_identity
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


CODE = {"kind": "code", "code": "c", "module": "corpusmill.filters.worker", "names": [], "files": {"a.py": "1"}, "libraries": {"b": None}}


@pytest.mark.parametrize(
    "damaged",
    [
        {"kind": "task"},
        {**CODE, "module": "corpusmill./etc/passwd"},
    ],
)
def test_a_damaged_row_is_named(tmp_path, damaged):
    (tmp_path / MANIFEST).write_text(json.dumps(CODE) + "\n")
    assert Manifest(Storage(str(tmp_path)), read_only=True).codes.keys() == {"c"}
    (tmp_path / MANIFEST).write_text(json.dumps(damaged) + "\n")
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


# ---- crashes -------------------------------------------------------------------------------------------------

#: Rows that a stage may write: a task's row under one of two identities, a task given up, the end, a new start.
TASKS = ("a", "b", "c")
STEPS = st.one_of(
    st.tuples(st.just("task"), st.sampled_from(TASKS), st.sampled_from("xy")),
    st.tuples(st.just("quarantined"), st.sampled_from(TASKS), st.just("x")),
    st.tuples(st.sampled_from(("complete", "reopened")), st.just(""), st.just("")),
)


def perform(manifest: Manifest, step: tuple[str, str, str]) -> None:
    kind, task, identity = step
    if kind == "task":
        manifest.append(row(task, identity))
    elif kind == "quarantined":
        manifest.quarantine(Quarantined(task, identity, [FileRef("in.warc", "1-2", 9)], "too large", 3))
    elif kind == "complete":
        manifest.finish(sorted(manifest.tasks), sorted(manifest.quarantined))
    else:
        manifest.reopen(TASKS[:2])


def state(manifest: Manifest) -> tuple[object, ...]:
    """Returns the whole content of a manifest."""
    return dict(manifest.tasks), dict(manifest.quarantined), set(manifest.doubtful), manifest.plan, manifest.complete


@given(steps=st.lists(STEPS, max_size=10), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_at_any_byte_says_what_its_whole_rows_say(steps, data, tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("cut")))
    manifest, states = Manifest(storage), {}
    states[0] = state(manifest)
    for step in steps:
        perform(manifest, step)
        states[manifest._lines.size] = state(Manifest(storage, read_only=True))
    assert states[manifest._lines.size] == state(manifest)
    content = storage.read_bytes(MANIFEST) if storage.exists(MANIFEST) else b""
    cut = data.draw(st.integers(0, len(content)))
    Path(storage.path(MANIFEST)).write_bytes(content[:cut])
    whole = max(place for place in states if place <= cut)
    assert state(Manifest(storage, read_only=True)) == states[whole] and storage.size(MANIFEST) == cut
    again = Manifest(storage)
    assert state(again) == states[whole] and storage.size(MANIFEST) == whole == again._lines.size
    again.append(row("d"))
    assert Manifest(storage).tasks["d"] == row("d")


@given(steps=st.lists(STEPS, max_size=8), groups=st.lists(st.booleans(), min_size=8, max_size=8), survivors=st.sets(st.integers(0, 30)))
@settings(max_examples=40, deadline=None)
def test_objects_that_a_kill_in_the_middle_of_joining_leaves_say_nothing_new(steps, groups, survivors, tmp_path_factory):
    storage = Storage(f"memory://{tmp_path_factory.mktemp('store')}")
    manifest = Manifest(storage)
    for step, alone in zip(steps, groups):
        perform(manifest, step)
        if alone:
            manifest.append(row("z"))
    before = {name: storage.read_bytes(name) for name in storage.list_files("manifest")}
    told = state(manifest)
    manifest._lines.join(lambda certain=False: None)
    assert len(storage.list_files("manifest")) == (1 if before else 0)
    for name, content in before.items():  # those that were not removed yet
        if not storage.exists(name) and int(name[-13:-5]) in survivors:
            storage.write_bytes(name, content)
    assert state(Manifest(storage, read_only=True)) == told
    again = Manifest(storage)
    again.append(row("d"))
    assert Manifest(storage).tasks["d"] == row("d") and again._lines.size == manifest._lines.size + 1
    again.finish(["d"], sorted(again.quarantined))
    assert len(storage.list_files("manifest")) == 1 and Manifest(storage).rows() == [row("d")]


# ---- many rows -----------------------------------------------------------------------------------------------


def test_rows_that_come_together_share_an_fsync_and_the_block_ends_durable(tmp_path, monkeypatch):
    synced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)

    manifest = Manifest(Storage(str(tmp_path)))
    manifest.append(row("first"))
    monkeypatch.setattr(manifests.os, "fsync", fsync)
    with manifest.grouped():
        for number in range(3000):
            manifest.append(row(f"part-{number}"))
            if number == 1500:  # an appended row survives this process at once
                assert len(Manifest(Storage(str(tmp_path)), read_only=True).tasks) == 1502
        manifest.reopen(["first"])
        assert synced[-1] == manifest._lines.size  # a row that takes something back is durable before anything is done
    assert synced[-1] == manifest._lines.size == (tmp_path / MANIFEST).stat().st_size and len(synced) < 300
    manifest.append(row("last"))
    assert synced[-1] == manifest._lines.size


def test_a_row_on_a_store_is_an_object_and_a_finished_stage_is_one():
    storage = Storage("memory://manifest-many")
    manifest = Manifest(storage)
    with manifest.grouped():
        for number in range(300):
            manifest.append(row(f"part-{number}"))
    assert len(storage.list_files("manifest")) == manifest._lines.size == 300
    assert len(Manifest(storage, read_only=True).tasks) == 300
    manifest.finish(list(manifest.tasks))
    assert storage.list_files("manifest") == ["manifest/00000000.json"]
    again = Manifest(storage)
    assert again.complete and again.rows()[299] == row("part-299") and again._lines.size == 301


def test_an_object_that_is_missing_is_named():
    storage = Storage("memory://manifest-gap")
    for number in range(3):
        Manifest(storage).append(row(f"part-{number}"))
    storage.remove("manifest/00000001.json")
    with pytest.raises(InputError, match=r"manifest/00000001\.json: this object is missing, and others come after it"):
        Manifest(storage)


def test_a_reader_finds_all_rows_while_the_objects_become_one(monkeypatch):
    storage = Storage("memory://manifest-raced")
    manifest = Manifest(storage)
    for number in range(5):
        manifest.append(row(f"part-{number}"))
    list_files, raced = Storage.list_files, []

    def listed(self: Storage, folder: str = "") -> list[str]:
        names = list_files(self, folder)
        if not raced:
            raced.append(True)
            manifest.finish([f"part-{number}" for number in range(5)])
        return names

    monkeypatch.setattr(Storage, "list_files", listed)
    found = Manifest(storage, read_only=True)
    assert found.complete and list(found.tasks) == [f"part-{number}" for number in range(5)] and raced == [True]


def test_half_a_row_on_a_full_disk_is_taken_back(tmp_path, monkeypatch):
    manifest = Manifest(Storage(str(tmp_path)))
    manifest.append(row("a"))
    whole, write = manifest._lines.size, os.write

    def full(descriptor: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(28, os.strerror(28))
        return write(descriptor, content[:-50])

    with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left on device"):
        patch.setattr(manifests.os, "write", full)
        manifest.append(row("b"))
    assert (tmp_path / MANIFEST).stat().st_size == whole
    manifest.append(row("c"))
    assert list(Manifest(Storage(str(tmp_path))).tasks) == ["a", "c"]
