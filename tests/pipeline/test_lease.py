"""Tests the lease of a run between real processes: killed, stopped, on another machine, on a store, and all at the same moment."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpusmill.pipeline import lease as leases
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.events import Events
from corpusmill.pipeline.lease import LEASE, Lease, LeaseLost, SwapFile, holding, look, read_holder
from corpusmill.pipeline.run import attempt
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import RunLog

HELPERS = Path(__file__).resolve().parents[1] / "helpers"
#: Seconds of a lease that a test lets expire, and of one whose holder must renew it in time even on a busy machine.
TTL, LONG = 1.5, 4.0


@pytest.fixture
def holder() -> Iterator[Any]:
    """Starts processes that hold a lease (lease_holder.py) and ends them."""
    started: list[subprocess.Popen[str]] = []

    def start(run: object, ttl: float = TTL, host: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, str(HELPERS / "lease_holder.py"), str(run), str(ttl), *([host] if host else [])]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout and started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str], run: Path | None = None) -> None:
    """Makes it stop (SIGSTOP) between two rows, and not while its other thread, which renews the lease, has the lock of `run`."""
    assert process.stdin and process.stdout
    while True:
        assert process.stdout.readline().startswith("row ")
        process.stdin.write("stop\n")
        process.stdin.flush()
        while leases.process(process.pid)[1] != "T":
            time.sleep(0.01)
        if run is None:
            return
        with open(run / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                process.send_signal(signal.SIGCONT)


def rows(run: Path) -> list[str]:
    return (run / "ingest/manifest.jsonl").read_text().splitlines()


def test_a_second_process_is_refused_and_goes_on_as_soon_as_the_first_is_killed(tmp_path: Path, holder: Any) -> None:
    first = holder(tmp_path, 30.0)
    with pytest.raises(
        InputError, match=rf"another corpusmill is working in this run right now \(.+, process {first.pid}\); wait until it ends\."
    ):
        Lease(Storage(str(tmp_path))).acquire()
    assert look(Storage(str(tmp_path)))["state"] == "held" and look(Storage(str(tmp_path)))["process"] == first.pid
    assert first.stdout.readline().startswith("row ")
    first.kill()
    first.wait()
    assert look(Storage(str(tmp_path)))["state"] == "free"
    begun = time.monotonic()
    with holding(Storage(str(tmp_path))) as taken:
        assert time.monotonic() - begun < 5.0 and taken.before is not None and taken.before.pid == first.pid  # it did not wait for 30 s
        assert look(Storage(str(tmp_path)))["state"] == "held"
    assert look(Storage(str(tmp_path))) | {"seconds": None} == {
        "state": "free",
        "host": taken.mine.host,
        "process": os.getpid(),
        "seconds": None,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "ingest", "lease.json"]


def test_another_machine_that_works_is_noticed(tmp_path: Path, holder: Any) -> None:
    first, said = holder(tmp_path, LONG, "mill-2"), []
    assert look(Storage(str(tmp_path)))["state"] == "held"
    begun = time.monotonic()
    with pytest.raises(InputError, match=rf"right now \(mill-2, process {first.pid}\)"):
        Lease(Storage(str(tmp_path))).acquire(said.append)
    assert time.monotonic() - begun < LONG  # as soon as it renews
    assert said == [f"{tmp_path}: mill-2, process {first.pid} holds this folder; if it shows no activity for 4 s, this command goes on."]


def test_a_holder_that_slept_goes_on_unless_it_was_taken_over(tmp_path: Path, holder: Any) -> None:
    first = holder(tmp_path)
    stop(first, tmp_path)
    time.sleep(TTL * 1.1)
    assert look(Storage(str(tmp_path)))["state"] == "expired"
    before, until = rows(tmp_path), time.monotonic() + 20
    first.send_signal(signal.SIGCONT)
    while len(rows(tmp_path)) == len(before) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(rows(tmp_path)) > len(before) and look(Storage(str(tmp_path)))["state"] == "held"

    stop(first, tmp_path)
    with holding(Storage(str(tmp_path))) as taken:
        assert taken.before is not None and taken.before.pid == first.pid
        before = rows(tmp_path)
        first.send_signal(signal.SIGCONT)
        out, _ = first.communicate(timeout=20)
        assert out.splitlines()[-1].startswith(
            f"LeaseLost: {tmp_path}: another corpusmill has taken this run over ({taken.mine.host}, process {os.getpid()})"
        )
        assert first.returncode == 1 and rows(tmp_path) == before and len(before) > 0
        taken.check()
        assert read_holder((tmp_path / LEASE).read_bytes()) == taken.mine  # the other process has not released a lease that was not its own


def test_a_lease_that_can_not_be_renewed_ends_before_the_next_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Lease(Storage(str(tmp_path)), TTL)
    lease.acquire()
    lease._to_interrupt = False  # the signal would interrupt pytest
    (tmp_path / LEASE).unlink()
    (tmp_path / LEASE).mkdir()  # nothing can be read or written there
    begun = time.monotonic()
    lease.check()
    with pytest.raises(LeaseLost, match=r"its lease can't be renewed .*this process stops"):
        while time.monotonic() - begun < 3 * TTL:
            lease.check()
            time.sleep(0.05)
    assert time.monotonic() - begun > leases.FENCE * TTL * 0.9
    lease.release()


def test_a_lease_that_was_removed_interrupts_the_work(tmp_path: Path) -> None:
    def work() -> None:
        storage = Storage(str(tmp_path))
        with holding(storage, ttl=1.0) as lease, attempt(Events(RunLog(storage)), [], lease):
            (tmp_path / LEASE).unlink()
            time.sleep(20)

    begun = time.monotonic()
    with pytest.raises(LeaseLost, match="its lease was removed"):
        work()
    assert time.monotonic() - begun < 10
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["message"]) == ("lease_lost", "its lease was removed")


def test_a_folder_that_is_moved_is_noticed_and_leaves_no_stub(tmp_path: Path, holder: Any) -> None:
    first = holder(tmp_path / "run", 1.0)
    assert first.stdout.readline().startswith("row ")
    (tmp_path / "run").rename(tmp_path / "moved")
    said = first.stdout.read().splitlines()[-1]
    assert first.wait() == 1 and said.startswith(f"LeaseLost: {tmp_path / 'run'}: its folder was moved or removed")
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_temporary_files_of_killed_processes_are_swept(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f".tmp-{gone.pid}-run.json", f".tmp-{os.getpid()}-report.html", ".tmp-fork", "run.json"):
        (tmp_path / name).touch()
    with holding(Storage(str(tmp_path))):
        pass
    left = {path.name for path in tmp_path.iterdir()}
    assert left >= {f".tmp-{os.getpid()}-report.html", ".tmp-fork", "run.json"} and f".tmp-{gone.pid}-run.json" not in left


@pytest.mark.parametrize("content", [b"", b'{"holder": "x", "host": "\\u001b[2J", "pid": 1e400}'])
def test_a_damaged_lease_is_watched_like_one_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(leases, "TTL", 0.2)
    (tmp_path / LEASE).write_bytes(content)
    assert look(Storage(str(tmp_path)))["state"] == "unknown"
    begun = time.monotonic()
    with holding(Storage(str(tmp_path)), ttl=1.0) as taken:
        assert time.monotonic() - begun >= 0.2 and taken.before is None


def test_a_folder_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/run: the run's folder can't be written"):
        Lease(Storage(str(tmp_path / "file/run"))).acquire()


def test_on_a_store_writes_are_conditional(s3: Any) -> None:
    storage = Storage(f"{s3.bucket('leases')}/run")
    file = SwapFile(storage, LEASE)
    assert file.read() is None
    one = file.write(b"one", None)
    assert one is not None and file.write(b"other", None) is None and file.read() == (b"one", one)
    two = file.write(b"two", one)
    assert two is not None and file.write(b"other", one) is None and file.read() == (b"two", two)
    with s3.faults(lost=0.5, seed=3, only="PUT .*lease"):  # done, but the answer never comes: the request is repeated
        three = file.write(b"three", two)
    assert three is not None and file.read() == (b"three", three)
    storage.remove(LEASE)
    assert file.write(b"four", three) is None and file.read() is None


@pytest.mark.long
def test_a_run_on_a_store_is_taken_over_like_a_local_one(s3: Any, holder: Any) -> None:
    url = f"{s3.bucket('leases')}/run"
    storage, first = Storage(url), holder(url, LONG, "mill-2")
    with pytest.raises(InputError, match="mill-2"):
        Lease(storage).acquire()
    assert look(storage)["state"] == "held"
    stop(first)
    with holding(storage, ttl=TTL) as taken:
        assert taken.before is not None and taken.before.host == "mill-2"
        written = s3.keys(f"{url}/ingest")
        first.send_signal(signal.SIGCONT)
        assert "taken this run over" in first.communicate(timeout=20)[0].splitlines()[-1]
        assert s3.keys(f"{url}/ingest") == written != []
        time.sleep(TTL)
        taken.check()
    assert json.loads(s3.get(f"{url}/{LEASE}"))["holder"] == ""


def test_a_process_that_was_stopped_as_it_held_the_lock_makes_nobody_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.pipeline.lease.PATIENCE", 0.3)
    with open(tmp_path / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(
            InputError, match=rf"{tmp_path}: the run's folder can't be written \(for 0 s another process has held .+/\.lock\)"
        ):
            Lease(Storage(str(tmp_path))).acquire()
    with holding(Storage(str(tmp_path))) as lease:
        assert lease.before is None


@pytest.mark.parametrize(("store", "processes", "rounds"), [("local", 8, 2), ("s3", 4, 1)])
def test_of_many_that_begin_at_the_same_moment_one_wins(tmp_path: Path, s3: Any, store: str, processes: int, rounds: int) -> None:
    run = str(tmp_path) if store == "local" else f"{s3.bucket('races')}/run"
    command = [sys.executable, str(HELPERS / "lease_race.py"), run, str(processes), str(rounds)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert out.splitlines() == [f"1 {processes - 1}"] * rounds
