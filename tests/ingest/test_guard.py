"""Tests the reader process: equal to reading in this process, replaced when it dies, ended with its worker."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard

from corpusmill.ingest import guard as guard_module
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import SegmentReader
from corpusmill.ingest.guard import ReaderBug, ReaderGuard
from corpusmill.ingest.inputs import UNKNOWN, Segment, index_range, joined
from corpusmill.ingest.reader import EXTRACTING
from corpusmill.ingest.rows import RowTables
from corpusmill.pipeline import failures
from corpusmill.pipeline.errors import CorpusmillError, InputError

#: A page that keeps native code busy for a second: the names of a tag's attributes are compared pair by pair.
SLOW = b"<div" + b"".join(b" a%d=1" % number for number in range(15_000)) + b">slow</div>"
MARK = "CORPUSMILL_TEST_MARK"


def segment(path: Path, layout: str = "gzip-frames", kind: str = "warc") -> tuple[str, int, dict]:
    size = path.stat().st_size
    return str(path), size, asdict(Segment(kind, layout, 0, size, size))


def rows_of(guard: ReaderGuard, path: Path) -> list[dict]:
    """Reads the report of a file to its end."""
    return [row for batch in guard.read([segment(path)]) for row in batch.report.to_pylist()]


@pytest.fixture
def guard() -> Iterator[Callable[..., ReaderGuard]]:
    made: list[ReaderGuard] = []

    def make(**extraction: object) -> ReaderGuard:
        made.append(ReaderGuard(IngestConfig.model_validate({"extraction": extraction}), {}))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def shared_readers() -> None:
    """Starts readers for each run."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, warcs) -> Path:
    """Makes a slow page among others: record 3 of 7."""
    path = tmp_path_factory.mktemp("slow") / "slow.warc.gz"
    pages = [{"url": f"http://x.test/{number}", "body": SLOW if number == 3 else warcs.page(number)} for number in range(7)]
    path.write_bytes(warcs.write(pages))
    return path


@pytest.fixture(scope="module")
def undisturbed(slow: Path) -> list[dict]:
    with closing(ReaderGuard(IngestConfig.model_validate({"extraction": {"max_page_seconds": 100}}), {})) as guard:
        return rows_of(guard, slow)


class Assassin(threading.Thread):
    """Sends a signal to the reader process at each extraction of record `place`, `times` times."""

    def __init__(self, guard: ReaderGuard, place: int, number: int, times: int):
        super().__init__(daemon=True)
        self.guard, self.target, self.number, self.times = guard, place, number, times
        self.struck: set[int] = set()
        self.start()

    def run(self) -> None:
        while len(self.struck) < self.times:
            process = self.guard.process
            if process and process.popen.pid not in self.struck and list(process.place[:2]) == [self.target, EXTRACTING]:
                self.struck.add(process.popen.pid)
                os.kill(process.popen.pid, self.number)
            time.sleep(0.001)


def test_rows_are_what_reading_in_this_process_gives(tmp_path: Path, warcs, guard) -> None:
    path, lines = tmp_path / "a.warc.gz", tmp_path / "b.jsonl"
    path.write_bytes(warcs.write(warcs.mixed(700)) + b"\x1f\x8b rubbish")
    lines.write_bytes(b'{"text": "one"}\nno json\n{"text": "two"}\n')
    segments = [segment(path), segment(lines, "plain", "jsonl")]
    batches = list(guard().read(segments))
    report, documents = (pa.concat_tables([getattr(batch, name) for batch in batches]) for name in ("report", "documents"))
    counts = sum((Counter(batch.counts) for batch in batches), Counter())
    expected = RowTables()
    for name, size, fields in segments:
        for work in SegmentReader(IngestConfig(), {}).works(name, size, Segment(**fields), False, lambda: None):
            expected.add(work.row())
    assert report.equals(expected.report()) and documents.equals(expected.documents())
    assert report.num_rows == 1404 and counts["type:response"] == 700 and counts["failed:not_json"] == 1
    assert len(batches) > 1
    warnings = [warning for batch in batches for warning in batch.warnings]
    assert warnings == [f"{path}: damaged compressed record at {report['offset'][1400].as_py()}."]


def test_what_is_left_of_a_piece_does_not_come_into_the_next(tmp_path: Path, warcs, guard) -> None:
    """A worker fails to publish its output and then takes another task, whose output must not contain the first one's."""
    path, other = tmp_path / "a.warc.gz", tmp_path / "b.warc.gz"
    path.write_bytes(warcs.write(warcs.mixed(700)))
    other.write_bytes(warcs.write(warcs.mixed(1)))
    reader = guard()
    next(reader.read([segment(path)]))
    assert [row["source"] for row in rows_of(reader, other)] == [str(other)] * 2


def test_a_record_that_ends_its_process_once_is_kept_and_twice_is_given_up(slow: Path, undisturbed: list[dict], guard) -> None:
    for times in (1, 2):
        disturbed = guard(max_page_seconds=100)
        assassin = Assassin(disturbed, 3, signal.SIGSEGV, times)
        rows = rows_of(disturbed, slow)
        assert len(assassin.struck) == times
        if times == 1:
            assert rows == undisturbed
    lost = rows.pop(3)
    assert rows == undisturbed[:3] + undisturbed[4:]
    assert [lost[name] for name in ("url", "offset", "length")] == [undisturbed[3][name] for name in ("url", "offset", "length")]
    assert lost["failed"] == ["crashed"] and lost["reason"] == "its extraction ended its process twice (SIGSEGV)"


def test_a_record_whose_process_is_killed_from_outside_twice_is_kept(slow: Path, undisturbed: list[dict], guard) -> None:
    """An administrator, or the system when out of memory, kills the process: this is not the record's fault."""
    disturbed = guard(max_page_seconds=100)
    killers = [Assassin(disturbed, 3, number, 1) for number in (signal.SIGKILL, signal.SIGTERM)]
    rows = rows_of(disturbed, slow)
    assert sum(len(killer.struck) for killer in killers) >= 1
    assert rows == undisturbed and not any("its process" in (row["reason"] or "") for row in rows)


def test_a_record_whose_process_is_always_killed_from_outside_is_a_failure_of_the_task(
    tmp_path: Path, warcs, ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row calls the page bad; and the same command does all of it once nobody kills."""
    path = tmp_path / "a.warc.gz"
    path.write_bytes(warcs.write(warcs.mixed(7)))
    monkeypatch.setattr(guard_module, "KILLED", 1)
    monkeypatch.setitem(failures.AGAIN, failures.Cause.DEATH, 1)
    over = threading.Event()

    spared: list[int] = []  # the first one, which inspects the inputs

    def strike() -> None:
        while not over.wait(0.005):
            for pid in readers(str(os.getpid())):
                spared[:] = spared or [pid]
                if pid not in spared:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    with pytest.raises(CorpusmillError) as caught:
        ingest(path, name="run")
    over.set()
    thread.join()
    assert str(caught.value) == (
        f"ingest, task part-00000 ({path}): the process that reads was killed from outside (SIGKILL), "
        "perhaps because the machine has no memory left 2 times."
    )
    again = ingest(path, name="run")
    assert len(again.data) == 7 and [row["failed"] for row in again.report] == [["record_type"], []] * 7


@pytest.mark.long
def test_killed_at_any_moment_the_outputs_are_the_same_bytes(tmp_path: Path, warcs, ingest) -> None:
    path = tmp_path / "pages.warc.gz"
    path.write_bytes(warcs.write([{"url": f"http://x.test/{n}", "body": warcs.page(n, 3000)} for n in range(2000)]))
    undisturbed = ingest(path, name="undisturbed")
    chance = random.Random(7)
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        done = threading.Event()
        struck: set[int] = set()

        def strike(number: int = number, done: threading.Event = done, struck: set[int] = struck) -> None:
            while len(struck) < 2 and not done.wait(chance.uniform(0.3, 0.7)):
                for pid in readers(str(os.getpid())):
                    struck.add(pid)
                    os.kill(pid, number)

        thread = threading.Thread(target=strike, daemon=True)
        thread.start()
        found = ingest(path, name=f"struck-{number}")
        done.set()
        thread.join()
        assert struck
        assert [row.outputs for row in found.rows] == [row.outputs for row in undisturbed.rows]


def test_the_places_for_cuts_are_found_by_the_process_too(tmp_path: Path, warcs, guard) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(warcs.write(warcs.mixed(300)))
    where = {"format": "warc", "layout": "gzip-frames", "start": 0, "end": path.stat().st_size, "step": 20_000}
    found = index_range(str(path), **where)
    assert len(found.places) > 5 and found.landed == path.stat().st_size
    assert guard().index(str(path), where) == found == index_range(str(path), **where, without_fastwarc=True)
    killed = guard(max_page_seconds=0.05)  # half a second for one record; this one has the time of twenty
    endless = tmp_path / "endless.warc.zst"
    endless.write_bytes(zstandard.compress(bytes(1 << 24)) * 1200)
    size = endless.stat().st_size
    unknown = killed.index(str(endless), {"format": "warc", "layout": "zstd", "start": 0, "end": size, "step": 1000})
    assert unknown == UNKNOWN and joined([unknown], size) == [0, size] and joined([found, unknown], size) is None


def test_errors_arrive_as_what_they_are(tmp_path: Path, warcs, guard) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(warcs.write(warcs.mixed(2)))
    reader = guard()
    gone = segment(path)
    path.rename(tmp_path / "b.warc.gz")
    with pytest.raises(InputError, match="a.warc.gz: no such file"):
        list(reader.read([gone]))
    with pytest.raises(ReaderBug, match="TypeError: .*'colour'") as caught:
        list(reader.read([(gone[0], 0, {"colour": "red"})]))
    assert "Traceback" in caught.value.__notes__[0] and "reader.py" in caught.value.__notes__[0]
    pid = reader.process and reader.process.popen.pid
    assert len(rows_of(reader, tmp_path / "b.warc.gz")) == 4  # by the same process, which is unharmed
    assert reader.process and reader.process.popen.pid == pid


def test_a_process_that_can_not_start_is_one_sentence(tmp_path: Path, warcs, guard, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(warcs.write(warcs.mixed(1)))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CorpusmillError, match=r"^ingest: the process that reads can't be started \(exit code 1\)\.$"):
        rows_of(guard(), path)


def test_a_process_that_sleeps_is_killed_and_its_record_tried_again(slow: Path, guard) -> None:
    stopped = guard(max_page_seconds=0.3)  # ten times this for a process that does nothing
    assassin = Assassin(stopped, 3, signal.SIGSTOP, 1)
    rows = rows_of(stopped, slow)
    assert len(assassin.struck) == 1
    assert [row["failed"] for row in rows] == [[], [], [], ["timeout"], [], [], []]


def readers(parent: str = "", mark: str = "") -> list[int]:
    """Returns the reader processes of one worker, or those with a mark in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and b"corpusmill.ingest.reader" in (process / "cmdline").read_bytes():
                status = (process / "stat").read_text().rsplit(")", 1)[1].split()
                marked = not mark or f"{MARK}={mark}\0".encode() in (process / "environ").read_bytes()
                if status[0] != "Z" and marked and parent in ("", status[1]):
                    found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_run_that_is_ended(slow: Path, tmp_path: Path, end: int) -> None:
    mark = f"{end}-{os.getpid()}"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("ingest: {extraction: {max_page_seconds: 1000}}\n")
    command = [sys.executable, "-m", "corpusmill", "run", str(recipe), str(slow), "--output", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*command, "--engine", "inline"], env={**os.environ, MARK: mark}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not readers(mark=mark) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert readers(mark=mark), process.communicate()[0]
    if end == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, end)
    said = process.communicate(timeout=60)[0]
    while readers(mark=mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not readers(mark=mark)
    assert "Traceback" not in said
