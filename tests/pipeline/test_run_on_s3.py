"""Tests a run with inputs and folder in a bucket: the bytes of a local run, on any engine and on a failing store."""

import json
from collections.abc import Callable
from pathlib import Path

import faulty_run
import pytest

from corpusmill.pipeline.engine import Engine, InlineEngine
from corpusmill.pipeline.events import Event
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.run import execute, new_plan
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.query.run import open_run
from corpusmill.report.whole.verify import verify

STAGES = ("ingest", "filter", "dedup", "tokenizer", "tokens")
RUN = "s3://run-store/a/run"


@pytest.fixture(scope="module")
def carry_out(s3, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, int]]:
    """Returns `carry_out(run, engine)`: the tasks that each stage performed."""
    folder = tmp_path_factory.mktemp("stored")
    recipe, crawl = faulty_run.write_inputs(folder)
    s3.bucket("run-store")
    s3.upload(crawl, "s3://run-store/crawl")

    def call(run: Path | str, engine: Engine | None = None) -> dict[str, int]:
        performed: dict[str, int] = {}
        plan = new_plan(str(run), str(recipe), ["s3://run-store/crawl"], ["ingest.task_mb=2"])

        def count(event: Event) -> None:
            if event.kind == "stage_end":
                performed[event.stage] = event.fields["performed"]

        execute(plan, engine or InlineEngine(), Progress(False), count)
        return performed

    return call


def faults(run: str) -> list[str]:
    return [fault for check in verify(run) for fault in check.faults]


@pytest.fixture(scope="module")
def local(carry_out, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("local") / "run"
    carry_out(run)
    return run


@pytest.fixture(scope="module")
def undisturbed(local: Path, tree: Callable[[Path], dict[str, str]]) -> dict[str, str]:
    found = tree(local)
    assert all(any(name.startswith(f"{stage}/") for name in found) for stage in STAGES)
    return found


@pytest.fixture(scope="module")
def stored(s3, carry_out) -> str:
    """Makes the run in the bucket, on a store of which every fifth request fails."""
    busy = {"error_500": 0.05, "error_503": 0.05}
    cut = {"cut_response": 0.04, "cut_upload": 0.05, "reset": 0.01, "truncate": 0.01, "lost": 0.01}
    with s3.faults(**busy, **cut, seed=1):
        carry_out(RUN)
        counts = s3.counts()
    assert counts["faults"] >= 15 and all(counts[fault] for fault in ("500", "503", "cut_response", "cut_upload"))
    return RUN


@pytest.mark.long
def test_a_store_that_is_not_well_changes_no_byte(s3, stored: str, undisturbed: dict[str, str]) -> None:
    found = s3.tree(stored)
    assert found.keys() == undisturbed.keys()
    assert {name for name in found if found[name] != undisturbed[name]} == set()
    assert s3.uploads("run-store") == []


@pytest.mark.long
def test_workers_on_ray_change_no_byte(s3, carry_out, ray_engine: RayEngine, undisturbed: dict[str, str]) -> None:
    ray_engine.connect()  # otherwise so little work would be done without Ray
    carry_out("s3://run-store/ray", ray_engine)
    assert s3.tree("s3://run-store/ray") == undisturbed


@pytest.mark.long
def test_what_is_finished_is_taken_over(s3, stored: str, carry_out) -> None:
    """Missing files are made again, and files that no manifest names are removed."""
    before = s3.tree(stored)
    s3.client.delete_object(Bucket="run-store", Key="a/run/dedup/report/part-00000.parquet")
    s3.put(f"{stored}/filter/data/part-99999.parquet", b"of an earlier try")
    performed = carry_out(stored)
    assert performed["ingest"] == performed["filter"] == performed["tokens"] == 0 < performed["dedup"]
    assert s3.tree(stored) == before


@pytest.mark.long
def test_it_is_looked_at_as_a_local_one(s3, stored: str, local: Path, corpusmill) -> None:
    """The commands print the same words as for a local run, except for its place and for times."""
    assert faults(stored) == [fault.replace(str(local), stored) for fault in faults(str(local))]
    with open_run(stored) as there, open_run(str(local)) as here:
        query = "SELECT * FROM filter_report ORDER BY id"
        assert there.sql(query).fetchall() == here.sql(query).fetchall() != []
        id_ = here.sql("SELECT id FROM dedup_report WHERE kept ORDER BY id").fetchall()[0][0]
    asked: tuple[tuple[str, ...], ...] = (("why", "RUN", id_), ("raw", "RUN", id_, "--fetch"), ("clusters", "RUN"),
                         ("inspect", "RUN", "--json"))  # fmt: skip
    for command in asked:
        answers = []
        for run in (stored, str(local)):
            code, out, err = corpusmill(*(run if part == "RUN" else part for part in command))
            assert code == 0, (command, err)
            answers.append(out.replace(run.encode(), b"RUN"))
        assert answers[0] == answers[1] != b"", command
    assert corpusmill("report", stored)[0] == 0 and s3.get(f"{stored}/report.html").startswith(b"<!doctype html>")
    assert json.loads(corpusmill("status", stored, "--json")[1])
    assert b"part-00000" in corpusmill("inspect", f"{stored}/dedup/data/part-00000.parquet")[1]


@pytest.mark.long
def test_a_flipped_bit_is_found(s3, stored: str) -> None:
    url = f"{stored}/tokens/train/tokens-00000.bin"
    content = s3.get(url)
    s3.put(url, content[:100] + bytes([content[100] ^ 1]) + content[101:])
    found = faults(stored)
    assert found and all(url in fault for fault in found)
    s3.put(url, content)


@pytest.mark.long
def test_no_key_is_shown_anywhere(s3, stored: str, local: Path) -> None:
    """Neither the bucket nor the local run contains a key."""
    from s3 import KEY, SECRET

    content = [s3.get(f"{stored}/{key}") for key in s3.keys(stored)]
    content += [path.read_bytes() for path in local.rglob("*") if path.is_file()]
    assert len(content) > 40
    assert not [True for each in content if KEY.encode() in each or SECRET.encode() in each]
