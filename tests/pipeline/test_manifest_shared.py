"""Tests manifests into which two processes write: one that has lost the run, and one that has it."""

from dataclasses import replace
from typing import Any

import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.lease import LEASE, Lease, LeaseLost, holding
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.storage import Storage

ROW = TaskRow("part-0", "", [], "", "", 1, 1, 0, 1, [])


def test_two_processes_never_write_the_same_object_of_a_manifest(s3: Any) -> None:
    storage = Storage(f"{s3.bucket('leases')}/run/ingest")
    one, other = Manifest(storage), Manifest(storage)
    with s3.faults(lost=0.5, seed=5, only="PUT .*manifest"):  # done, but the answer never comes
        one.append(ROW)
        one.append(replace(ROW, task="part-1"))
    with pytest.raises(InputError, match=r"manifest/00000000.json: another process has written this object"):
        other.append(replace(ROW, task="part-2"))
    assert list(Manifest(storage).tasks) == ["part-0", "part-1"]


def test_rows_that_were_on_their_way_when_the_run_was_taken_over_come_before_the_new_ones(s3: Any) -> None:
    run = Storage(f"{s3.bucket('leases')}/run")
    with holding(run) as lease:
        late, manifest = Manifest(run.child("ingest")), Manifest(run.child("ingest"))
        manifest.guard(lease.check)
        for number in (1, 2, 3):
            late.append(replace(ROW, task=f"part-{number}", kept=0))
        for number in (2, 3, 4):
            manifest.append(replace(ROW, task=f"part-{number}"))
        assert s3.keys(run.path("ingest/manifest")) == [f"{number:08d}.json" for number in range(6)]
        assert {task: done.kept for task, done in manifest.tasks.items()} == {"part-1": 0, "part-2": 1, "part-3": 1, "part-4": 1}
        manifest.finish(["part-2", "part-3", "part-4"])
        assert s3.keys(run.path("ingest/manifest")) == ["00000000.json"]
        found = Manifest(run.child("ingest"))
        assert dict(found.tasks) == dict(manifest.tasks) and found.complete and found._lines.size == manifest._lines.size == 7


def test_a_holder_whose_row_meets_the_row_of_who_took_over_stops(s3: Any) -> None:
    run = Storage(f"{s3.bucket('leases')}/run")
    lease = Lease(run)
    lease.acquire()
    lease._to_interrupt = False
    manifest = Manifest(run.child("ingest"))
    manifest.guard(lease.check)
    taken = replace(lease.mine, holder="another", host="mill-2")
    run.write_bytes(LEASE, taken.content())
    Manifest(run.child("ingest")).append(replace(ROW, task="part-1"))
    with pytest.raises(LeaseLost, match=r"another corpusmill has taken this run over \(mill-2"):  # although its lease looks fresh
        manifest.append(ROW)
    assert list(Manifest(run.child("ingest")).tasks) == ["part-1"]
    lease.release()


def test_objects_that_another_writes_while_they_are_joined_are_not_written_over(s3: Any) -> None:
    storage = Storage(f"{s3.bucket('leases')}/run")
    manifest = Manifest(storage)
    for number in range(3):
        manifest.append(replace(ROW, task=f"part-{number}"))

    def check(certain: bool = False) -> None:
        if len(manifest.tasks) == manifest._lines.size - 1:  # the stage is finished, and its rows are about to become one object
            storage.write_bytes("manifest/00000000.json", storage.read_bytes("manifest/00000000.json") + b"{}\n")

    manifest.guard(check)
    with pytest.raises(InputError, match=r"manifest/00000000.json: another process has written this object"):
        manifest.finish(["part-0", "part-1", "part-2"])
    assert storage.read_bytes("manifest/00000000.json").endswith(b"{}\n")
