"""Tests failed tasks on the inline engine: tried again, quarantined, or the end of the run."""

import errno
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from corpusmill.pipeline import failures, interrupts
from corpusmill.pipeline.config import Config
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.events import Event, Events
from corpusmill.pipeline.lease import LEASE, Lease, holding
from corpusmill.pipeline.manifest import FileRef, Manifest
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Output, Stage, Task, Worker
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.log import RunLog
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.pipeline.watch.progress_file import ProgressFile


class TroubleConfig(Config):
    tasks: int = 4
    allow_partial: bool = True


#: The fault of a task by number of earlier tries; "setup": in the worker's setup.
TROUBLE: dict[str, Callable[[int], None]] = {}
TRIED: Counter[str] = Counter()


def trouble(key: str) -> None:
    TRIED[key] += 1
    if key in TROUBLE:
        TROUBLE[key](TRIED[key] - 1)


class TroubleWorker(Worker):
    def setup(self) -> None:
        trouble("setup")

    def process(self, task: Task) -> Output:
        trouble(task.key)
        rows = pa.table({"key": [task.key]})
        return Output({f"data/{task.key}.parquet": rows, f"report/{task.key}.parquet": rows}, rows_in=1, kept=1)


class TroubleStage(Stage):
    name: ClassVar[str] = "ingest"
    Config: ClassVar[type[Config]] = TroubleConfig
    config: TroubleConfig

    def execute(self, run: StageRun) -> None:
        tasks = [Task(f"part-{i}", (FileRef(f"in-{i}", "same"),)) for i in range(self.config.tasks)]
        rows = run.map("", TroubleWorker, tasks, allow_partial=self.config.allow_partial)
        run.once(
            "names", [], lambda _: Output({"names.txt": " ".join(row.task for row in rows).encode()}), {"rows": [r.task for r in rows]}
        )


@pytest.fixture
def perform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[StageRun, list[Event]]]:
    monkeypatch.setattr(failures, "PAUSES", (0.0, 0.0, 0.0))

    def execute(
        folder: str = "run",
        strict: bool = False,
        deeds: dict[str, Callable[[int], None]] | None = None,
        lease: Lease | None = None,
        **config: Any,
    ) -> Any:
        TRIED.clear()
        TROUBLE.clear()
        TROUBLE.update(deeds or {})
        events: list[Event] = []
        stage = TroubleStage(TroubleConfig(**config))
        storage = Storage(str(tmp_path / folder))

        def hear(event: Event) -> None:
            if event.kind in ("retry", "death", "split", "alone", "quarantine"):
                events.append(event)

        run = StageRun(stage, storage, {}, [], InlineEngine(), Progress(False), Events(hear, RunLog(storage)), strict)
        if lease:
            run.hold(lease)
        run.execute()
        return run, events

    return execute


def failing(error: Exception, times: int = 99) -> Callable[[int], None]:
    """Raises a number of times, and then works."""

    def deed(before: int) -> None:
        if before < times:
            raise error

    return deed


def files(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in found.items() if name.startswith(("ingest/data", "ingest/report", "ingest/names"))}


@pytest.mark.parametrize(
    ("error", "times"),
    [(KeyError("odd"), 1), (OSError(errno.EIO, "a cut line"), 3), (ConnectionResetError("reset"), 3), (MemoryError(), 6)],
)
def test_what_may_go_away_is_tried_again_and_leaves_no_trace(perform: Any, tmp_path: Path, error: Exception, times: int) -> None:
    perform("calm")
    run, events = perform(deeds={"part-1": failing(error, times)})
    assert TRIED["part-1"] == times + 1 and TRIED["part-2"] == 1
    assert [event.task for event in events] == ["part-1"] * times and {event.kind for event in events} <= {"retry", "alone"}
    assert files(tmp_path / "run") == files(tmp_path / "calm")
    assert not run.manifest.quarantined and (tmp_path / "run/errors.log").read_text().count("ingest part-1\n") == times


def test_what_fails_for_good_is_quarantined_and_taken_up_again_by_the_next_run(perform: Any, tmp_path: Path) -> None:
    perform("calm")
    _, events = perform(deeds={"part-1": failing(KeyError("odd")), "part-2": failing(InputError("in-2: broken at byte 7."))})
    assert TRIED["part-1"] == 2 and TRIED["part-2"] == 1 and TRIED["part-3"] == 1
    given_up = [event.message for event in events if event.kind == "quarantine"]
    assert given_up == [
        "ingest, task part-1 (in-1): KeyError: 'odd'; it is given up for now.",
        "ingest, task part-2 (in-2): in-2: broken at byte 7; it is given up for now.",
    ]
    manifest = Manifest(Storage(str(tmp_path / "run/ingest")))
    assert manifest.complete and manifest.plan == ["part-0", "part-3", "names"]
    assert [(q.task, q.tries, q.inputs[0].path) for q in manifest.quarantined.values()] == [("part-1", 2, "in-1"), ("part-2", 1, "in-2")]
    assert manifest.quarantined["part-2"].message == "in-2: broken at byte 7."
    assert (tmp_path / "run/ingest/names.txt").read_text() == "part-0 part-3"
    perform(deeds={"part-2": failing(InputError("in-2: broken at byte 7."))})  # one cause is gone
    assert TRIED == {"setup": 1, "part-1": 1, "part-2": 1}
    assert list(Manifest(Storage(str(tmp_path / "run/ingest"))).quarantined) == ["part-2"]
    perform()
    assert files(tmp_path / "run") == files(tmp_path / "calm")
    last = Manifest(Storage(str(tmp_path / "run/ingest")))
    assert last.complete and not last.quarantined and last.plan == ["part-0", "part-1", "part-2", "part-3", "names"]
    rows = (tmp_path / "run/ingest/manifest.jsonl").read_bytes()
    perform()
    assert not TRIED and (tmp_path / "run/ingest/manifest.jsonl").read_bytes() == rows


@pytest.mark.parametrize(
    ("holder", "said"),
    [("another's", r"another corpusmill has taken this run over \(.+\)"), ("", "the process that worked on it has ended")],
)
def test_a_worker_that_outlives_its_lease_publishes_nothing(perform: Any, tmp_path: Path, holder: str, said: str) -> None:
    """The worker does not ask its driver, which may be gone."""
    run = tmp_path / "run"
    with holding(Storage(str(run))) as lease:
        other = replace(lease.mine, holder=holder).content()
        with pytest.raises(CorpusmillError, match=said):
            perform(lease=lease, deeds={"part-2": lambda _: (run / LEASE).write_bytes(other)})
    assert sorted(path.name for path in (run / "ingest/data").iterdir()) == ["part-0.parquet", "part-1.parquet"] and TRIED["part-3"] == 0


def test_no_secret_of_a_url_in_an_error_is_written_down(perform: Any, tmp_path: Path) -> None:
    """The error is aiohttp's message about a redirected address."""
    signed = "https://me:hunter2@store.test/x?X-Amz-Signature=hunter2"
    said = OSError(errno.EIO, f"400, message='Bad Request', url='{signed}'")
    run, events = perform(deeds={"part-1": failing(said)})
    assert len(events) == 4 and run.manifest.quarantined["part-1"].message.endswith("url='https://***@store.test/x?X-Amz-Signature=***")
    with pytest.raises(CorpusmillError) as ended:
        perform("strict", strict=True, deeds={"part-1": failing(InputError(f"{signed}: 403"))})
    assert str(ended.value).startswith("https://***@store.test/x?X-Amz-Signature=***") and "part-2" not in TRIED
    ProgressFile(Storage(str(tmp_path)))(Event("run_failed", message=f"KeyError: {signed}"))
    told = "".join(path.read_text() for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl", ".log"))
    assert "hunter2" not in told and told.count("X-Amz-Signature=***") > 10


def test_a_phase_that_needs_all_of_its_pieces_ends_the_run_when_the_others_are_done(perform: Any, tmp_path: Path) -> None:
    with pytest.raises(CorpusmillError, match=r"^ingest, task part-1 \(in-1\): KeyError: 'odd'$") as ended:
        perform(deeds={"part-1": failing(KeyError("odd"))}, allow_partial=False)
    assert ended.value.exit_code == 1 and TRIED["part-3"] == 1
    both = r"ingest, task part-1 \(in-1\): KeyError: 'odd'; ingest, task part-2 \(in-2\): in-2: no\.$"
    said = "^ingest: 2 tasks failed, all others are done, and the stage needs them: " + both
    with pytest.raises(CorpusmillError, match=said) as ended:
        perform(deeds={"part-1": failing(KeyError("odd")), "part-2": failing(InputError("in-2: no."))}, allow_partial=False, tasks=5)
    assert ended.value.exit_code == 1 and not Manifest(Storage(str(tmp_path / "run/ingest"))).complete
    perform(allow_partial=False, tasks=5)
    assert sorted(key for key in TRIED if key != "setup") == ["part-1", "part-2"]


def test_what_fails_from_the_start_ends_the_run_with_its_first_sentence(perform: Any) -> None:
    all_fail = {f"part-{i}": failing(InputError(f"in-{i}: broken.")) for i in range(40)}
    with pytest.raises(InputError, match=r"^in-0: broken\.$"):
        perform(deeds=all_fail, tasks=40)
    assert len(TRIED) == 1 + 10
    with pytest.raises(InputError, match=r"^in-0: broken\.$"):
        perform(deeds=all_fail, tasks=3)
    late = {key: deed for key, deed in all_fail.items() if key != "part-9"}
    run, _ = perform(deeds=late, tasks=40)
    assert len(TRIED) == 1 + 40 and len(run.manifest.quarantined) == 39


@pytest.mark.parametrize(
    ("key", "error", "said", "tries"),
    [
        ("setup", InputError("model.bin: no such file."), r"^model\.bin: no such file\.$", 1),  # no fault of a task
        ("part-1", OSError(errno.ENOSPC, "No space left on device"), r"part-1 \(in-1\): OSError: .*No space left on device$", 2),
    ],
)
def test_what_hits_all_pieces_ends_the_run_at_once(perform: Any, key: str, error: Exception, said: str, tries: int) -> None:
    with pytest.raises(CorpusmillError, match=said):
        perform(deeds={key: failing(error)})
    assert TRIED[key] == tries and "part-2" not in TRIED


class SignalsAtItsEnd:
    def __init__(self, number: int):
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)  # the exception of this handler is lost


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_whose_exception_is_lost_ends_a_task_soon(perform: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(interrupts, "_came", [])
    monkeypatch.setattr(interrupts, "AGAIN", 0.5)
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)

    def work(tried: int) -> None:
        SignalsAtItsEnd(number)
        time.sleep(60)

    before = signal.signal(signal.SIGTERM, interrupts.raise_terminated)
    try:
        with pytest.raises(KeyboardInterrupt) as end:
            perform(deeds={"part-1": work})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert interrupts.exit_code_of(end.value) == 128 + number
    assert TRIED["part-1"] == 1 and not TRIED["part-2"]
