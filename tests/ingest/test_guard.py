"""Tests the reader process: equal to reading in this process, replaced when it dies, ended with its worker."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpusmill.ingest import guard as guard_module
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import SegmentReader
from corpusmill.ingest.guard import ReaderBug, ReaderGuard
from corpusmill.ingest.inputs import UNKNOWN, Segment, joined
from corpusmill.ingest.reader import EXTRACTING
from corpusmill.ingest.rows import RowTables
from corpusmill.pipeline import failures
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.files import file_ref
from corpusmill.pipeline.formats.detect import InputFile, Refused

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


#: What kills the extraction of a slow page, by its number in the file: each signal a process of its own.
KILLS = {1: [signal.SIGSEGV], 3: [signal.SIGSEGV, signal.SIGSEGV], 5: [signal.SIGKILL, signal.SIGTERM]}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, warcs) -> Path:
    """Makes three slow pages among others: records 1, 3 and 5 of 7."""
    path = tmp_path_factory.mktemp("slow") / "slow.warc.gz"
    pages = [{"url": f"http://x.test/{number}", "body": SLOW if number in KILLS else warcs.page(number)} for number in range(7)]
    path.write_bytes(warcs.write(pages))
    return path


class Assassin(threading.Thread):
    """Sends one signal of a list to each reader process that extracts record `place`."""

    def __init__(self, guard: ReaderGuard, place: int, signals: list[int]):
        super().__init__(daemon=True)
        self.guard, self.target, self.signals = guard, place, signals
        self.struck: set[int] = set()
        self.start()

    def run(self) -> None:
        while len(self.struck) < len(self.signals):
            process = self.guard.process
            if process and process.popen.pid not in self.struck and list(process.place[:2]) == [self.target, EXTRACTING]:
                os.kill(process.popen.pid, self.signals[len(self.struck)])
                self.struck.add(process.popen.pid)
            time.sleep(0.001)


def read_here(segments: list[tuple[str, int, dict]]) -> RowTables:
    """Reads segments in this process."""
    tables = RowTables(IngestConfig().documents)
    for name, size, fields in segments:
        for work in SegmentReader(IngestConfig(), {}).pending_rows(name, size, Segment(**fields), False, lambda: None):
            tables.add(work.row())
    return tables


def test_rows_are_what_reading_in_this_process_gives(tmp_path: Path, warcs, guard) -> None:
    path, lines = tmp_path / "a.warc.gz", tmp_path / "b.jsonl"
    path.write_bytes(warcs.write(warcs.mixed(700)) + b"\x1f\x8b rubbish")
    lines.write_bytes(b'{"text": "one"}\nno json\n{"text": "two"}\n')
    segments = [segment(path), segment(lines, "plain", "jsonl")]
    reader = guard()
    batches = list(reader.read(segments))
    report, documents = (pa.concat_tables([getattr(batch, name) for batch in batches]) for name in ("report", "documents"))
    counts = sum((Counter(batch.counts) for batch in batches), Counter())
    expected = read_here(segments)
    assert report.equals(expected.report()) and documents.equals(expected.documents())
    assert report.num_rows == 1404 and counts["type:response"] == 700
    assert len(batches) > 1
    warnings = [warning for batch in batches for warning in batch.warnings]
    assert warnings == [f"{path}: damaged compressed record at {report['offset'][1400].as_py()}."]
    # a worker that fails to publish its output takes another task, whose output must not contain the first one's
    next(reader.read(segments[:1]))
    (batch,) = reader.read(segments[1:])
    assert batch.report["source"].to_pylist() == [str(lines)] * 3


@pytest.mark.long
def test_a_file_that_kills_the_process_is_refused_and_its_neighbours_are_not(tmp_path: Path, guard) -> None:
    """60,000 columns need more memory than a page may take; all files are looked at in one request."""
    wide = pa.table({"text": ["a"], **{f"column{number}": ["x"] for number in range(60_000)}})
    pq.write_table(wide, tmp_path / "b.parquet")
    for name in ("a.jsonl", "c.jsonl"):
        (tmp_path / name).write_text('{"text": "kept"}\n')
    refs = [file_ref(str(path)) for path in sorted(tmp_path.iterdir())]
    first, refused, last = guard(max_memory_mb=130).examine(refs)
    assert isinstance(refused, Refused) and refused.rule == "out_of_memory"
    assert [first, last] == [InputFile(ref, "jsonl", "plain") for ref in (refs[0], refs[2])]


def test_a_record_is_given_up_only_where_it_ends_its_process_twice(slow: Path, guard) -> None:
    """A process that is killed from outside, by an administrator or a system out of memory, is not the record's fault."""
    disturbed = guard(max_page_seconds=100)
    assassins = [Assassin(disturbed, place, signals) for place, signals in KILLS.items()]
    rows = rows_of(disturbed, slow)
    assert [len(assassin.struck) for assassin in assassins] == [1, 2, 2]
    expected = read_here([segment(slow)]).report().to_pylist()
    lost, undisturbed = rows.pop(3), expected.pop(3)
    assert rows == expected and not any("its process" in (row["reason"] or "") for row in rows)
    assert [lost[name] for name in ("url", "offset", "length")] == [undisturbed[name] for name in ("url", "offset", "length")]
    assert lost["failed"] == ["crashed"] and lost["reason"] == "its extraction ended its process twice (SIGSEGV)"


@pytest.mark.long
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
def test_a_file_whose_places_for_cuts_take_too_long_is_not_cut(tmp_path: Path, guard) -> None:
    killed = guard(max_page_seconds=0.05)  # half a second for one record; this one has the time of twenty
    endless = tmp_path / "endless.warc.zst"
    endless.write_bytes(zstandard.compress(bytes(1 << 24)) * 1200)
    size = endless.stat().st_size
    unknown = killed.index(str(endless), {"format": "warc", "layout": "zstd", "start": 0, "end": size, "step": 1000})
    assert unknown == UNKNOWN and joined([unknown], size) == [0, size]


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


@pytest.mark.long
def test_a_process_that_sleeps_is_killed_and_its_record_tried_again(tmp_path: Path, warcs, guard) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(
        warcs.write([{"url": f"http://x.test/{number}", "body": SLOW if number == 1 else warcs.page(0)} for number in range(3)])
    )
    stopped = guard(max_page_seconds=0.3)  # ten times this for a process that does nothing
    assassin = Assassin(stopped, 1, [signal.SIGSTOP])
    rows = rows_of(stopped, path)
    assert len(assassin.struck) == 1
    assert [row["failed"] for row in rows] == [[], ["timeout"], []]


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


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
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
