"""Manifests into which two processes write: the one that has lost the run, and the one that has it."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpusmill.pipeline.cell import overwrite
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.lease import LEASE, Lease, LeaseLost, holding
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.storage import Storage

ROW = TaskRow("part-0", "", [], "", "", 1, 1, 0, 1, [])


def test_two_processes_never_write_the_same_object_of_a_manifest(s3: Any) -> None:
    storage = Storage(f"{s3.bucket('leases')}/run/ingest")
    one, other = Manifest(storage), Manifest(storage)
    with s3.faults(lost=0.5, seed=5, only="PUT .*manifest"):  # carried out, and the answer never comes
        one.append(ROW)
        one.append(replace(ROW, task="part-1"))
    with pytest.raises(InputError, match=r"manifest/00000000.json: another process has written this object"):
        other.append(replace(ROW, task="part-2"))
    assert list(Manifest(storage).tasks) == ["part-0", "part-1"]


def test_rows_that_were_on_their_way_when_the_run_was_taken_over_come_before_the_new_ones(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.pipeline.journal.GROUP_SECONDS", 60.0)  # however busy the machine is, a group is an object
    run = Storage(f"{s3.bucket('leases')}/run")
    with holding(run) as lease:
        late, manifest = Manifest(run.child("ingest")), Manifest(run.child("ingest"))
        threads: list[threading.Thread] = []

        def check(certain: bool = False) -> None:
            lease.check(certain)
            if certain and not threads:  # a task is finished while the thread that writes finds out whose the run is
                place = manifest.place
                threads.append(threading.Thread(target=manifest.append, args=[replace(ROW, task="part-4")]))
                threads[0].start()
                while manifest.place == place:
                    time.sleep(0.001)

        manifest.guard(check)
        with late.grouped():  # an object of two rows, and one of one
            for number in (1, 2):
                late.append(replace(ROW, task=f"part-{number}", kept=0))
        late.append(replace(ROW, task="part-3", kept=0))
        with manifest.grouped():
            for number in (2, 3):
                manifest.append(replace(ROW, task=f"part-{number}"))
        threads[0].join()
        manifest.append(replace(ROW, task="part-5"))
        names = [f"{number:08d}.json" for number in (0, 2, 3, 5, 6)]
        assert s3.keys(run.path("ingest/manifest")) == names
        assert [done.kept for done in manifest.tasks.values()] == [1, 1, 1, 1]
        manifest.finish(["part-2", "part-3", "part-4", "part-5"])
        assert s3.keys(run.path("ingest/manifest")) == names[:3]  # its own are one now
        found = Manifest(run.child("ingest"))
        assert {task: done.kept for task, done in found.tasks.items()} == {"part-1": 0, **{f"part-{number}": 1 for number in (2, 3, 4, 5)}}
        assert found.complete and found.place == manifest.place == 8


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
    with pytest.raises(LeaseLost, match=r"another corpusmill has taken this run over \(mill-2"):  # though its lease looks fresh
        manifest.append(ROW)
    assert list(Manifest(run.child("ingest")).tasks) == ["part-1"]
    lease.release()


def test_an_empty_object_ends_the_run(s3: Any) -> None:
    run = Storage(f"{s3.bucket('leases')}/run")
    with holding(run) as lease:
        manifest = Manifest(run.child("ingest"))
        manifest.guard(lease.check)
        run.write_bytes("ingest/manifest/00000000.json", b"")
        with pytest.raises(InputError, match=r"manifest/00000000.json: this object is empty\.$"):
            manifest.append(ROW)


def test_a_line_of_another_in_a_local_manifest_moves_no_address(tmp_path: Path) -> None:
    late, manifest = Manifest(Storage(str(tmp_path))), Manifest(Storage(str(tmp_path)))
    for number in range(3):
        manifest.append(replace(ROW, task=f"part-{number}", kept=number))
        late.append(replace(ROW, task=f"late-{number}", kept=number))
    assert [(done.task, done.kept) for done in manifest.tasks.values()] == [(f"part-{number}", number) for number in range(3)]
    assert [(done.task, done.kept) for done in late.tasks.values()] == [(f"late-{number}", number) for number in range(3)]
    assert manifest.place < late.place == (tmp_path / "manifest.jsonl").stat().st_size


def test_an_object_that_another_writes_meanwhile_is_not_written_over(s3: Any) -> None:
    storage = Storage(f"{s3.bucket('leases')}/run")
    storage.write_bytes("lines", b"one")
    assert overwrite(storage, "lines", b"two", lambda: None) and storage.read_bytes("lines") == b"two"
    assert not overwrite(storage, "lines", b"late", lambda: storage.write_bytes("lines", b"three"))
    assert storage.read_bytes("lines") == b"three"
    assert not overwrite(storage, "gone", b"late", lambda: None) and s3.keys(storage.root) == ["lines"]
