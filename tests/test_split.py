"""Tests that tasks done in parts, for lack of memory, give the bytes of whole tasks."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.engine import InlineEngine, Job, Performer, TaskDone
from corpusmill.pipeline.failures import Attempt, Cause, Failed, Report, Tries
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.recipe import stage_class
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

SECTIONS = {
    "ingest": {},
    "filter": {"steps": [{"gopher_repetition": {}}, {"gopher_quality": {}}, {"fineweb_quality": {}}]},
    "dedup": {"lines": {}, "substrings": {}},
}


class InParts(InlineEngine):
    """Does every task in a number of parts, as after repeated failures for lack of memory."""

    def __init__(self, parts: int):
        self.parts = parts

    def perform(self, job: Job, tasks: Sequence[Task], report: Report) -> None:
        performer = Performer(job)
        for task in tasks:
            done = performer.perform(Attempt(task, parts=self.parts))
            assert isinstance(done, TaskDone), done.trace
            report(done)
        performer.close()


def run_stage(run: Path, name: str, engine: InlineEngine, inputs: Sequence[Path] = (), section: Any = None) -> None:
    sections = {key: stage_class(key).Config.model_validate(given) for key, given in SECTIONS.items()}
    storage = Storage(str(run))
    stage = stage_class(name)(stage_class(name).Config.model_validate(section) if section else sections[name])
    StageRun(stage, storage, dict(sections), [str(path) for path in inputs], engine, Progress(False)).execute()


def written(run: Path, stage: str) -> dict[str, bytes]:
    folder = run / stage
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "manifest.jsonl"}
    assert files
    return files | {"rows": repr(list(Manifest(Storage(str(folder))).rows())).encode()}


@pytest.fixture(scope="module")
def inputs(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the crawl's WARC and JSON lines, and its texts in Parquet, in several row groups."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(crawl, folder, dirs_exist_ok=True)
    texts = [f"{number} is the number of this text. " * 20 for number in range(60)]
    pq.write_table(pa.table({"text": texts}), folder / "texts.parquet", row_group_size=10)
    return folder


@pytest.mark.long
def test_every_stage_that_can_be_done_in_parts_gives_the_same_bytes(inputs: Path, tmp_path: Path) -> None:
    for stage in SECTIONS:
        run_stage(tmp_path / "whole", stage, InlineEngine(), [inputs])
        run_stage(tmp_path / "cut", stage, InParts(4), [inputs])
        assert written(tmp_path / "whole", stage) == written(tmp_path / "cut", stage), stage


@pytest.mark.parametrize(
    ("worker", "kind"),
    [("filters.worker:FilterWorker", "split"), ("dedup.removal:RemovalWorker", "split"), ("ingest.stage:IngestWorker", "alone")],
)
def test_only_what_is_done_in_parts_is_said_to_be(worker: str, kind: str) -> None:
    job = Job("filter", f"corpusmill.{worker}", stage_class("filter").Config.model_validate({"steps": [{"gopher_quality": {}}]}), "run")
    said: list[Any] = []
    again = Tries(job, said.append).again(Attempt(Task("part-0", ())), Failed("part-0", "no room", 1, "", Cause.MEMORY))
    assert again is not None and (again.parts, again.alone) == ((2, False) if kind == "split" else (1, True))
    assert [event.kind for event in said] == [kind]
