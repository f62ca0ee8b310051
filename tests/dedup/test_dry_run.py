"""Tests `corpusmill dedup RUN --dry-run`: it shows the removals, writes no documents, and a real run reuses its work."""

import json
import shutil
from pathlib import Path

import pytest
from dedup_runs import words

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a run with only `ingest` finished: 60 rows, half of them copies."""
    folder = tmp_path_factory.mktemp("ingested")
    rows = [
        {"text": " ".join(words(200, i % 30)) + (" and more" if i >= 30 and i % 2 else ""), "url": f"http://a.test/{i}"} for i in range(60)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "r.yaml").write_text("ingest: {}\ndedup: {}\n")
    plan = new_plan(str(folder / "run"), str(folder / "r.yaml"), [str(folder / "rows.jsonl")], last="ingest")
    execute(plan, InlineEngine(), Progress(False), on_message=lambda _: None, on_stage=lambda _: None)
    return folder / "run"


@pytest.fixture
def ingested(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def tasks(run: Path) -> list[str]:
    rows = map(json.loads, (run / "dedup/manifest.jsonl").read_text().splitlines())
    return [row.get("task", "-") for row in rows if row["kind"] != "code"]


def test_a_dry_run_writes_no_documents_and_its_work_is_taken_over(corpusmill, ingested: Path) -> None:  # type: ignore[no-untyped-def]
    description = (ingested / "run.json").read_bytes()
    code, out, err = corpusmill("dedup", ingested, "--dry-run", "--engine", "inline", "--set", "dedup.keep=first")
    assert code == 0, err
    assert b"30" in out
    assert (ingested / "run.json").read_bytes() == description
    assert not (ingested / "dedup/data").exists() and not (ingested / "dedup/report").exists()
    assert (ingested / "dedup/clusters/sources.parquet").exists()
    assert not Manifest(Storage(str(ingested / "dedup"))).complete
    before = tasks(ingested)
    code, _, err = corpusmill("dedup", ingested, "--engine", "inline", "--set", "dedup.keep=first")
    assert code == 0, err
    assert tasks(ingested) == [*before, "lists/cluster-tables", "part-00000", "-"]
    manifest = Manifest(Storage(str(ingested / "dedup")))
    assert manifest.complete and sum(row.dropped for row in manifest.rows() if row.task.startswith("part-")) == 30


def test_an_alarm_stops_no_dry_run_and_an_index_stays_as_it_is(corpusmill, ingested: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ("--engine", "inline", "--set", "dedup.alarm_share=0.4", "--set", f"dedup.index={{path: {tmp_path / 'index'}}}")
    code, _, err = corpusmill("dedup", ingested, "--dry-run", *options)
    assert code == 0 and not (tmp_path / "index").exists(), err
    code, _, err = corpusmill("dedup", ingested, *options)
    assert code == 1 and "loses 50.0% of its 60 documents" in err and "Traceback" not in err
    assert not (ingested / "dedup/data").exists()


def test_stages_that_have_none_refuse_it(corpusmill, finished: Path) -> None:  # type: ignore[no-untyped-def]
    for stage in ("filter", "tokens"):
        code, _, err = corpusmill(stage, finished, "--dry-run", "--engine", "inline")
        assert code == 2 and f"{stage}: this stage has no dry run." in err
