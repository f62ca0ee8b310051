"""Tests a run in a bucket."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from built_run import write_run

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage
from corpusmill.report.query.run import Run, open_run

RUN = "s3://runs/a/run"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("local") / "run", ("ingest", "filter")).folder


@pytest.fixture(scope="module")
def stored(s3, local: Path) -> str:
    """Makes the run in the bucket, with manifests as on stores that can't append, and another object next to it."""
    s3.bucket("runs")
    s3.put("s3://runs/a/run2/secret.txt", b"of another")
    for file in local.rglob("*"):
        if file.is_file() and file.name != "manifest.jsonl":
            s3.put(f"{RUN}/{file.relative_to(local).as_posix()}", file.read_bytes())
    for stage in ("ingest", "filter"):
        here, there = Manifest(Storage(f"{local}/{stage}"), read_only=True), Manifest(Storage(f"{RUN}/{stage}"))
        for row in here.rows():
            there.append(row)
        there.finish(here.plan or [])
    return RUN


def test_a_stored_run_is_as_a_local_one(stored: str, local: Path) -> None:
    here, there = open_run(str(local)), open_run(stored)
    assert there.names == here.names and not there.warnings
    query = "SELECT id, words, source FROM filter_report LEFT JOIN ingest_report USING (id) WHERE words > 40 ORDER BY id"
    assert there.sql(query).fetchall() == here.sql(query).fetchall() != []
    for name in ("rules", "outputs", "json_run"):
        assert there.table(name).fetchall() == here.table(name).fetchall()


def test_a_stored_run_is_shut_in(stored: str) -> None:
    run = Run(stored, only_run=True)
    assert len(run.table("ingest_report")) == 60
    for path in ("s3://runs/a/run2/secret.txt", "s3://runs/a/run/../run2/secret.txt", "/etc/hostname"):
        with pytest.raises(InputError, match="a query may read the files of its run alone"):
            run.sql("SELECT * FROM read_text($path)", path=path).fetchall()


def test_what_is_damaged_in_a_bucket(s3, stored: str, local: Path) -> None:
    key, shard = "a/run/filter/report/part-00000.parquet", local / "filter/report/part-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[4:2000] = b"\xff" * 1996
    s3.put(f"s3://runs/{key}", bytes(content))
    run = open_run(stored)
    rest = pq.read_table(local / "filter/report/part-00001.parquet")["id"].to_pylist()
    assert [id_ for (id_,) in run.rows("SELECT id FROM filter_report")] == rest and key in run.warnings[0]
    s3.put(f"s3://runs/{key}", shard.read_bytes())
