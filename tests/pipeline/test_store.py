"""Tests objects of a store: reads and writes, numbers of requests, and failures of the store."""

import pickle
import random
import socket
from collections.abc import Iterator

import pytest

from corpusmill.pipeline import store_requests as stores
from corpusmill.pipeline import store_streams
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.failures import Cause, failure
from corpusmill.pipeline.lease import Lease
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.store_requests import StoreError

SMALL = 200_000
CONTENT = random.Random(0).randbytes(SMALL)


@pytest.fixture(params=["s3", "memory"])
def storage(request: pytest.FixtureRequest) -> Storage:
    if request.param == "memory":
        folder = Storage("memory://stores-test/run")
        folder.remove_folder("")
        return folder
    return Storage(f"{request.getfixturevalue('s3').bucket('stores')}/run")


@pytest.fixture
def in_s3(s3) -> Storage:
    return Storage(f"{s3.bucket('stores')}/run")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets sizes at which a few hundred kilobytes are a large object."""
    monkeypatch.setattr(store_streams, "WHOLE", 10_000)
    monkeypatch.setattr(store_streams, "FIRST", 4_000)
    monkeypatch.setattr(store_streams, "RANGE", 16_000)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(stores.PATIENCE_VARIABLE, "0.5")
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.02)
    yield


def test_a_folder_of_a_store_is_a_folder(storage: Storage) -> None:
    assert storage.list_files() == [] and not storage.exists("a/x") and storage.size("a/x") == -1
    storage.write_bytes("a/x", b"one")
    storage.write_bytes("a/b/y", b"")
    storage.write_bytes("z", b"three")
    storage.write_bytes("a/x", b"other")
    assert storage.list_files() == ["a/b/y", "a/x", "z"] and storage.list_files("a") == ["a/b/y", "a/x"]
    assert storage.listing("a") == {"x": 5} and set(storage.times()) == {"z"}
    assert storage.read_bytes("a/x") == b"other" and storage.read_bytes("a/b/y") == b""
    with storage.open_read("a/b/y") as file:
        assert file.read() == b""
    for missing in (storage.read_bytes, storage.open_read):
        with pytest.raises(FileNotFoundError):
            missing("a/none")
    storage.remove("a/none")
    storage.remove_folder("a")
    assert storage.list_files() == ["z"]


def test_any_part_of_a_large_object_is_read(storage: Storage, small_parts: None) -> None:
    storage.write_bytes("x", CONTENT)
    drawn = random.Random(1)
    with storage.open_read("x") as file:
        for _ in range(12):
            begin, size = drawn.randrange(SMALL + 10), drawn.choice([1, 500, 5_000, 40_000, SMALL])
            file.seek(begin)
            for _ in range(drawn.randrange(1, 4)):
                assert file.read(size) == CONTENT[begin : begin + size] and file.tell() == max(begin, min(begin + size, SMALL), file.tell())
                begin = file.tell()
        file.seek(0)
        assert file.read() == CONTENT and file.read() == b""
        file.seek(0)
        assert b"".join(file) == CONTENT


def test_how_many_requests_that_takes(s3, in_s3: Storage) -> None:
    """Reading a small object, writing one and listing a folder take one request each; opening one, or looking up a missing one,
    takes two.
    """
    in_s3.write_bytes("x", CONTENT)
    for action, requests in {
        lambda: in_s3.open_read("x").read(): 2, lambda: in_s3.read_bytes("x"): 1, lambda: in_s3.exists("x"): 1,
        lambda: in_s3.exists("none"): 2, lambda: in_s3.write_bytes("y", CONTENT): 1, in_s3.list_files: 1,
        lambda: in_s3.listing(): 1, lambda: in_s3.child("none").list_files(): 3, lambda: in_s3.remove("y"): 1,
    }.items():  # fmt: skip
        s3.forget()
        action()
        assert s3.counts()["requests"] <= requests


def test_reads_go_on_where_they_were_cut(s3, in_s3: Storage, small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.01)
    in_s3.write_bytes("x", CONTENT)
    rates = {"error_500": 0.1, "error_503": 0.1, "error_429": 0.05, "cut_response": 0.15, "truncate": 0.1, "reset": 0.05, "delay": 0.05}
    with s3.faults(only="GET", seconds=0.01, **rates):
        with in_s3.open_read("x") as file:
            assert file.read(50_000) + file.read() == CONTENT
        counts = s3.counts()
    assert counts["faults"] >= 5 and counts["cut_response"] and counts["bytes_down"] < 2 * SMALL + 50_000  # only the cut part came again


def test_a_large_object_appears_when_it_is_whole(s3, in_s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_streams, "PART", 5 << 20)
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.01)
    task = random.Random(2).randbytes(3 << 20)
    with (
        s3.faults(only="PUT|POST", error_500=0.2, cut_upload=0.2, lost=0.25, seed=4),
        in_s3.write_atomic("x") as file,
    ):
        for _ in range(5):
            file.write(task)
        assert s3.uploads("stores") and not s3.keys("s3://stores/run")
        counts = s3.counts()
    assert counts["faults"] >= 2 and in_s3.open_read("x").read() == task * 5 and not s3.uploads("stores")


@pytest.mark.parametrize(("size", "uploads"), [(10, 0), (6 << 20, 1)])  # a large object goes to the store in parts
def test_what_fails_half_sent_leaves_the_old_object(s3, in_s3: Storage, monkeypatch: pytest.MonkeyPatch, size: int, uploads: int) -> None:
    monkeypatch.setattr(store_streams, "PART", 5 << 20)
    in_s3.write_bytes("x", b"old")
    for name in ("x", "new"):
        with pytest.raises(RuntimeError, match="half"), in_s3.write_atomic(name) as file:
            file.write(b"1" * size)
            assert len(s3.uploads("stores")) == uploads
            raise RuntimeError("half of it")
    assert not s3.uploads("stores") and s3.keys("s3://stores/run") == ["x"] and in_s3.read_bytes("x") == b"old"


@pytest.mark.parametrize("fault", ["error_503", "cut_response"])
def test_a_store_that_stays_away_is_one_sentence(s3, in_s3: Storage, impatient: None, fault: str) -> None:
    in_s3.write_bytes("x", CONTENT)
    with s3.faults(**{fault: 1.0}), pytest.raises(StoreError) as caught:
        in_s3.read_bytes("x")
    sentence = str(caught.value)
    assert sentence.startswith("s3://stores/run/x: the store can't be reached or fails (") and "\n" not in sentence and "tries" in sentence
    assert s3.counts()["requests"] >= stores.TRIES
    assert isinstance(caught.value, CorpusmillError) and failure("filter", Task("p", ()), caught.value).cause is Cause.TRANSIENT_IO
    assert str(pickle.loads(pickle.dumps(caught.value))) == sentence  # noqa: S301 - our own; Ray sends it so


def test_an_address_at_which_no_server_is_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.02)
    with socket.socket() as bound:  # it does not listen
        bound.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(StoreError, match=f"no server answers at {host}.*6 connections were refused"):
            Storage(f"http://{host}").read_bytes("x.warc.gz")


def test_what_no_second_request_mends_is_asked_once(s3, in_s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    in_s3.write_bytes("x", b"")
    with s3.faults(error_403=1.0):
        for action in (lambda: in_s3.read_bytes("x"), lambda: in_s3.write_bytes("y", b""), in_s3.list_files):
            with pytest.raises(InputError, match=r"^s3://stores/run\S*: the store refuses this \(AccessDenied\): check the credentials"):
                action()
        assert s3.counts()["requests"] == 3
    with pytest.raises(InputError, match="s3://no-such-bucket/run/x: there is no such bucket"):
        Storage("s3://no-such-bucket/run").write_bytes("x", b"")


def test_no_credentials_is_one_sentence(s3, in_s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match="s3://stores/run/x: there are no credentials for it .*AWS_ACCESS_KEY_ID"):
        Storage("s3://stores/run").read_bytes("x")
    with pytest.raises(InputError, match="s3://stores/run/lease.json: there are no credentials for it .*AWS_ACCESS_KEY_ID"):
        Lease(Storage("s3://stores/run")).acquire()
    S3FileSystem.clear_instance_cache()


def test_another_processs_changes_are_seen_at_once(s3, in_s3: Storage) -> None:
    assert in_s3.list_files() == []
    s3.put("s3://stores/run/a/x", b"12")
    assert in_s3.list_files() == ["a/x"] and in_s3.size("a/x") == 2
    s3.put("s3://stores/run/a/x", b"123")
    assert in_s3.listing("a") == {"x": 3} and in_s3.read_bytes("a/x") == b"123"
    s3.client.delete_object(Bucket="stores", Key="run/a/x")
    assert in_s3.list_files() == [] and not in_s3.exists("a/x")
