"""Tests objects of a store: reads and writes, numbers of requests, and failures of the store."""

import pickle
import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from killing import in_child

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.failures import Cause, failure
from corpusmill.pipeline.lease import Lease
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.stores import StoreError, asked, opened

SMALL, LARGE = 200_000, 20_000_000
CONTENT = random.Random(0).randbytes(LARGE)


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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPUSMILL_STORE_SECONDS", "0.5")


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


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_any_part_of_an_object_is_read(storage: Storage, size: int) -> None:
    content = CONTENT[:size]
    storage.write_bytes("x", content)
    drawn = random.Random(1)
    with storage.open_read("x") as file:
        for _ in range(12):
            begin, step = drawn.randrange(size + 10), drawn.choice([1, 500, 5_000, 40_000, size])
            file.seek(begin)
            for _ in range(drawn.randrange(1, 4)):
                assert file.read(step) == content[begin : begin + step] and file.tell() == max(begin, min(begin + step, size))
                begin = file.tell()
        file.seek(0)
        assert file.read() == content and file.read() == b""
    begin, end = size // 3, size // 2
    assert storage.read_range("x", begin, end) == content[begin:end]


def test_a_reader_that_goes_on_takes_few_requests_and_one_that_jumps_few_bytes(s3, in_s3: Storage) -> None:
    in_s3.write_bytes("x", CONTENT)
    s3.forget()
    with in_s3.open_read("x") as file:
        assert sum(len(piece) for piece in iter(lambda: file.read(60_000), b"")) == LARGE
    assert s3.counts()["requests"] < 15
    s3.forget()
    with in_s3.open_read("x") as file:
        for place in range(0, LARGE, LARGE // 10):
            file.seek(place)
            assert file.read(100) == CONTENT[place : place + 100]
    assert s3.counts()["bytes_down"] < LARGE // 20


def test_how_many_requests_that_takes(s3, in_s3: Storage) -> None:
    """Reading a small object, writing one and listing a folder take one request each; opening one, or looking up a missing one,
    takes two.
    """
    in_s3.write_bytes("x", CONTENT[:SMALL])
    for action, requests in {
        lambda: in_s3.open_read("x").read(): 2, lambda: in_s3.read_bytes("x"): 1, lambda: in_s3.exists("x"): 1,
        lambda: in_s3.exists("none"): 1, lambda: in_s3.write_bytes("y", CONTENT[:SMALL]): 1, in_s3.list_files: 1,
        lambda: in_s3.listing(): 1, lambda: in_s3.child("none").list_files(): 1, lambda: in_s3.remove("y"): 1,
    }.items():  # fmt: skip
        s3.forget()
        action()
        assert s3.counts()["requests"] <= requests


def test_reads_go_on_where_they_were_cut(s3, in_s3: Storage) -> None:
    in_s3.write_bytes("x", CONTENT)
    rates = {"error_500": 0.1, "error_503": 0.1, "error_429": 0.05, "cut_response": 0.15, "truncate": 0.1, "reset": 0.05, "delay": 0.05}
    with s3.faults(only="GET", seconds=0.01, **rates):
        with in_s3.open_read("x") as file:
            assert b"".join(iter(lambda: file.read(500_000), b"")) == CONTENT
        assert in_s3.read_bytes("x") == CONTENT
        counts = s3.counts()
    assert counts["faults"] >= 3 and counts["cut_response"] and counts["bytes_down"] < 8 * LARGE


def test_what_a_library_does_not_repeat_is_repeated(s3, in_s3: Storage) -> None:
    """Deletions and conditional writes whose answers are lost or cut."""
    for number in range(4):
        in_s3.write_bytes(f"a/{number}", b"x")
    with s3.faults(lost=0.3, cut_response=0.1, seed=2, only="PUT|POST"):
        for number in range(4):
            assert in_s3.store.create(f"b/{number}", b"%d" % number) and not in_s3.store.create(f"a/{number}", b"other")
        assert len(in_s3.list_files()) == 8 and in_s3.child("a").folders() == [] and in_s3.folders() == ["a", "b"]
        in_s3.remove_folder("a")
        in_s3.remove("b/0")
        counts = s3.counts()
    assert counts["lost"] >= 2 and in_s3.list_files() == [f"b/{number}" for number in range(1, 4)]


def test_a_large_object_appears_when_it_is_whole(s3, in_s3: Storage) -> None:
    part = random.Random(2).randbytes(20 << 20)
    with (
        s3.faults(only="PUT|POST", error_500=0.2, cut_upload=0.2, lost=0.25, seed=4),
        in_s3.write_atomic("x") as file,
    ):
        for _ in range(4):
            file.write(part)
        assert file.tell() == 80 << 20 and s3.uploads("stores") and not s3.keys("s3://stores/run")
    assert s3.counts()["faults"] >= 2 and in_s3.open_read("x").read() == part * 4 and not s3.uploads("stores")


@pytest.mark.parametrize(("size", "uploads"), [(10, 0), (40 << 20, 1)])  # a large object goes to the store in parts
def test_what_fails_half_sent_leaves_the_old_object(s3, in_s3: Storage, size: int, uploads: int) -> None:
    in_s3.write_bytes("x", b"old")
    for name in ("x", "new"):
        with pytest.raises(RuntimeError, match="half"), in_s3.write_atomic(name) as file:
            file.write(b"1" * size)
            assert len(s3.uploads("stores")) == uploads
            raise RuntimeError("half of it")
    assert not s3.uploads("stores") and s3.keys("s3://stores/run") == ["x"] and in_s3.read_bytes("x") == b"old"


@pytest.mark.parametrize("fault", ["error_503", "cut_response"])
def test_a_store_that_stays_away_is_one_sentence(s3, in_s3: Storage, impatient: None, fault: str) -> None:
    in_s3.write_bytes("x", CONTENT[:SMALL])
    with s3.faults(**{fault: 1.0}), pytest.raises(StoreError) as caught:
        in_s3.read_bytes("x")
    sentence = str(caught.value)
    assert sentence.startswith("s3://stores/run/x: the store can't be reached or fails (") and "; tried for " in sentence
    assert "\n" not in sentence
    assert s3.counts()["requests"] >= 3
    assert isinstance(caught.value, CorpusmillError) and failure("filter", Task("p", ()), caught.value).cause is Cause.TRANSIENT_IO
    assert str(pickle.loads(pickle.dumps(caught.value))) == sentence  # noqa: S301 - our own; Ray sends it so


def test_an_address_at_which_no_server_is_ends_soon(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:  # it does not listen
        bound.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        with pytest.raises(StoreError, match=f"no server answers at {host} \\(Connection refused\\); is it right"):
            Storage("s3://never-opened/run").read_bytes("x.warc.gz")


def test_what_no_second_request_mends_is_asked_once(s3, in_s3: Storage) -> None:
    in_s3.write_bytes("x", b"")
    with s3.faults(error_403=1.0):
        for action in (lambda: in_s3.read_bytes("x"), lambda: in_s3.write_bytes("y", b""), in_s3.list_files):
            with pytest.raises(InputError, match=r"^s3://stores/run\S*: the store refuses this \(AccessDenied\): check the credentials"):
                action()
        assert s3.counts()["requests"] == 3
    with pytest.raises(InputError, match="s3://no-such-bucket/run/x: there is no such bucket"):
        Storage("s3://no-such-bucket/run").write_bytes("x", b"")


def test_no_credentials_is_one_sentence(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.bucket("closed")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(InputError, match="s3://closed\\S*: there are no credentials for it .*AWS_ACCESS_KEY_ID"):
        Storage("s3://closed/run").read_bytes("x")
    with pytest.raises(InputError, match="s3://closed\\S*: there are no credentials for it .*AWS_ACCESS_KEY_ID"):
        Lease(Storage("s3://closed/run")).acquire()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match="s3://closed\\S*: there are no credentials for it .*nobody"):
        Storage("s3://closed/run").read_bytes("x")


def test_threads_share_one_client_and_an_error_is_not_its_own_cause(s3) -> None:
    """A client of AWS takes 40 MB while it is made. A cause that is its own would make each walk through causes endless."""
    with ThreadPoolExecutor(16) as pool:
        assert len({id(store) for store, _ in pool.map(opened, ["s3://used-by-threads/x"] * 16)}) == 1
    with pytest.raises(InputError) as caught:
        asked("s3://used-by-threads/x", lambda: Storage("s3://no-such-bucket/run").write_bytes("x", b""))
    at: BaseException | None = caught.value
    seen = []
    while at is not None and at not in seen:
        seen.append(at)
        at = at.__cause__ or at.__context__
    assert at is None


def test_a_fork_of_a_process_that_has_used_a_store_is_one_sentence(s3, in_s3: Storage) -> None:
    in_s3.write_bytes("x", b"1")

    def read() -> None:
        with pytest.raises(InputError, match="s3://stores/run/x: this process was forked from one that has used a store"):
            in_s3.read_bytes("x")

    assert in_child(read) == 0


def test_folders_that_consoles_make_are_no_files(s3, in_s3: Storage) -> None:
    for name in ("a/", "a/b/", "a/b/x"):
        s3.put(f"s3://stores/run/{name}", b"")
    assert in_s3.list_files() == ["a/b/x"] and in_s3.listing("a") == {} and in_s3.folders("a") == ["a/b"]


def test_another_processs_changes_are_seen_at_once(s3, in_s3: Storage) -> None:
    assert in_s3.list_files() == []
    s3.put("s3://stores/run/a/x", b"12")
    assert in_s3.list_files() == ["a/x"] and in_s3.size("a/x") == 2
    s3.put("s3://stores/run/a/x", b"123")
    assert in_s3.listing("a") == {"x": 3} and in_s3.read_bytes("a/x") == b"123"
    s3.client.delete_object(Bucket="stores", Key="run/a/x")
    assert in_s3.list_files() == [] and not in_s3.exists("a/x")
