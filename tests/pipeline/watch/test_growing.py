"""Files that grow, on a store that can't append: an object for each time."""

from typing import Any

from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.growing import LARGEST, LOG, Growing, objects, read_grown


def test_files_that_grow_on_a_store(s3: Any) -> None:
    run = Storage(f"{s3.bucket('growing')}/run")
    first = Growing(run, LOG)
    first.append("one\n")
    assert objects(run, LOG) == []  # it waits for more
    first.append("x" * LARGEST + "\n")
    first.append("two\n")
    first.flush()
    second = Growing(run, LOG)
    with s3.faults(error_403=1.0, only="PUT .*/log/"):
        second.append("three\n")
        second.flush()  # the store says no, and nothing breaks
    second.append("four\n")
    second.flush()
    assert [path for _, _, path in objects(run, LOG)] == ["log/00001-00000.jsonl", "log/00001-00001.jsonl", "log/00002-00000.jsonl"]
    assert read_grown(run, LOG).splitlines() == [b"one", b"x" * LARGEST, b"two", b"three", b"four"]
    assert read_grown(run, LOG, 10).splitlines()[-1] == b"four" and len(read_grown(run, LOG, 10)) == 10


def test_two_processes_never_write_the_same_object_of_a_log(s3: Any) -> None:
    """Where both have looked before either wrote: one may have lost its lease meanwhile."""
    run = Storage(f"{s3.bucket('growing')}/run")
    one, other = Growing(run, LOG), Growing(run, LOG)
    one._attempt = other._attempt = 1
    for number in "123":
        for file, name in ((one, "one"), (other, "other")):
            file.append(f"{name} {number}\n")
            file.flush()
    assert [(attempt, number) for attempt, number, _ in objects(run, LOG)] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert read_grown(run, LOG).split() == b"one 1 one 2 one 3 other 1 other 2 other 3".split()
