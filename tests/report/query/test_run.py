"""Compares the tables of `open_run` with pyarrow and pandas over the same files."""

import json
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from built_run import RULES, write_run

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.storage import Storage
from corpusmill.report.query.run import Run, open_run


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return open_run(str(run_folder))


def arrow(folder: Path, *path: str) -> pa.Table:
    return ds.dataset(folder.joinpath(*path)).to_table()


@pytest.mark.parametrize(("table", "path"), [("ingest_report", "ingest/report"), ("filter_documents", "filter/data")])
def test_a_table_is_its_shards_in_their_order(run: Run, run_folder: Path, table: str, path: str) -> None:
    assert run.table(table).to_arrow_table().to_pylist() == arrow(run_folder, path).to_pylist()


def test_the_run_describes_itself(run: Run, run_folder: Path) -> None:
    manifest = Manifest(Storage(str(run_folder / "filter")), read_only=True)
    tasks = run.sql("SELECT task, rows_in, kept, dropped FROM tasks WHERE stage = 'filter'").fetchall()
    assert tasks == [(row.task, row.rows_in, row.kept, row.dropped) for row in manifest.rows()]
    outputs = run.sql("SELECT path, bytes, sha256 FROM outputs WHERE stage = 'filter'").fetchall()
    assert outputs == [(o.path, o.bytes, o.sha256) for row in manifest.rows() for o in row.outputs]
    assert [json.loads(t) for (t,) in run.sql("SELECT threshold FROM rules").fetchall()] == [rule["threshold"] for rule in RULES]
    stages = run.sql("SELECT stage, status, tasks FROM stages").fetchall()
    assert ("filter", "complete", 2) in stages and not [row for row in stages if row[0] == "pretrain"]  # it has no manifest
    (warnings,) = run.sql("SELECT warnings FROM tasks WHERE len(warnings) > 0").fetchall()[0]
    assert warnings == ["crawl-0.warc.gz: cut short at byte 60000, so its last record is left out."]
    assert run.sql("SELECT stage, seconds, peak_mb FROM metrics").fetchall() == [("filter", 2.0, 321)]
    assert run.sql("SELECT * FROM versions").fetchall() == [("corpusmill", "0")]


def test_settings_are_the_recipe_leaf_by_leaf(tmp_path: Path) -> None:
    write_run(tmp_path / "run", ("ingest",))
    recipe = {"filter": {"steps": [{"gopher": {"short": 50}}, {"pii": {}}], "name": "x"}, "dedup": {}}
    (tmp_path / "run" / "run.json").write_text(json.dumps({"recipe": recipe}))
    found = open_run(str(tmp_path / "run")).sql("SELECT stage, option, value FROM settings").fetchall()
    assert found == [("filter", "steps.0.gopher.short", "50"), ("filter", "steps.1.pii", "{}"), ("filter", "name", '"x"')]


def test_every_name_can_be_read(run: Run) -> None:
    for name in run.names:
        assert len(run.table(name)) >= 0 and run.table(name).columns
    assert set(run.tables) < set(run.names)


def test_a_half_done_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ("ingest",))
    parts = [
        {"report/part-00001.parquet": pa.table({"id": ["b"], "kept": [True]})},
        {"report/part-00000.parquet": pa.table({"id": ["a"], "kept": [False]})},
    ]
    run.stage("filter", parts, finish=False)
    opened = open_run(str(tmp_path / "run"))
    assert opened.table("filter_report").fetchall() == [("b", True), ("a", False)]
    with pytest.raises(InputError, match="there is no table 'dedup_report' .*expected one of"):
        opened.table("dedup_report")
    with pytest.raises(InputError, match="there is no table 'dedup_documents'"):
        opened.sql("SELECT * FROM dedup_documents")


def test_shards_of_different_versions(tmp_path: Path) -> None:
    """A column that only later shards have is null in the others, in any order of shards, and even where the manifest does not say so."""
    run = write_run(tmp_path / "run", ())
    old, new = pa.table({"id": ["a"], "kept": [True]}), pa.table({"id": ["b"], "kept": [False], "words": [7]})
    run.stage("ingest", [{"report/part-00000.parquet": old}, {"report/part-00001.parquet": new}])
    run.stage("filter", [{"report/part-00000.parquet": new}, {"report/part-00001.parquet": old}])
    manifest = tmp_path / "run" / "ingest" / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text(lines[0].replace('"code":"v"', '"code":"before"') + "".join(lines[1:]))
    opened = open_run(str(tmp_path / "run"))
    assert opened.table("ingest_report").order("id").fetchall() == [("a", True, None), ("b", False, 7)]
    assert opened.rows("FROM filter_report ORDER BY id") == [("a", True, None), ("b", False, 7)]
    assert not opened.warnings


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT wordz FROM filter_report", "there is no column 'wordz' \\(near it: words"),
        ("SELECT * FROM filter_reports", "there is no table 'filter_reports' \\(did you mean filter_report"),
        ("SELECT offset FROM filter_report", 'write "offset" for the column\\.$'),
        ("SELEC 1", 'not valid SQL: syntax error at or near "SELEC"\\.$'),
        ("SELECT 1; DROP VIEW filter_report", "a query is one SELECT, and nothing else"),
        ("COPY (SELECT 1) TO 'x.csv'", "a query is one SELECT"),
        ("SELECT $missing", "Values were not provided for the following parameters: missing"),
        ("SELECT url::INT FROM filter_report", "Could not convert string"),
        ("SELECT * FROM run_folder", "there is no table 'run_folder'"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, run_folder: Path, query: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        run.rows(query)
    said = str(caught.value)
    assert (
        said.startswith(f"{run_folder}: ")
        and "\n" not in said
        and "LINE 1" not in said
        and "Exception" not in said
        and "Error:" not in said
    )


def test_a_query_that_is_shut_in(run_folder: Path, tmp_path: Path) -> None:
    """The query reaches nothing outside of the run, in any way; the run itself is opened through a link."""
    (tmp_path / "outside.txt").write_text("secret")
    copy = tmp_path / "it's a run"
    write_run(copy, ("ingest",))
    (copy / "link.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "linked").symlink_to(copy)
    run = Run(str(tmp_path / "linked"), only_run=True)
    assert run.sql("SELECT count(*) FROM ingest_report, json_run").fetchall() == [(60,)]
    assert "tasks" in run.names and len(run.table("tasks")) == 2  # made after external access was disabled
    for path in (tmp_path / "outside.txt", copy / "link.txt", copy / ".." / "outside.txt", Path("/etc/hostname")):
        for reader in ("read_text", "read_csv", "read_blob", "glob"):
            with pytest.raises(InputError, match="a query may read the files of its run alone"):
                run.sql(f"SELECT * FROM {reader}($path)", path=str(path)).fetchall()
    for setting in ("SET enable_external_access = true", "SET allowed_directories = ['/']"):
        with pytest.raises(duckdb.Error, match="locked"):
            run.connection.execute(setting)


def test_memory_has_a_limit_and_nothing_is_spilled_beside_the_run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    limit, folder = run.sql("SELECT current_setting('memory_limit'), current_setting('temp_directory')").fetchall()[0]
    assert limit.endswith("iB") and Path(folder).is_absolute()
    run.connection.execute("SET memory_limit = '60MB'")
    assert run.sql("SELECT count(*) FROM (SELECT DISTINCT md5(i::VARCHAR) FROM range(700000) t(i))").fetchall() == [(700_000,)]
    assert not list(tmp_path.iterdir())
    run.connection.execute(f"SET memory_limit = '{limit}'")


def test_frames_of_a_program_are_no_tables(run: Run) -> None:
    frame = pd.DataFrame({"a": [1]})
    assert len(frame) == 1
    with pytest.raises(InputError, match="there is no table 'frame'"):
        run.sql("SELECT * FROM frame")
    run.connection.register("mine", frame)
    assert run.sql("SELECT a FROM mine").fetchall() == [(1,)]
    run.connection.unregister("mine")


def test_a_run_is_found_from_another_folder(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_folder.parent)
    run = open_run(run_folder.name)
    monkeypatch.chdir(tmp_path)
    assert len(run.table("filter_report")) == pq.read_table(run_folder / "filter" / "report").num_rows


def test_a_run_that_is_left_is_closed(run_folder: Path) -> None:
    with open_run(str(run_folder)) as run:
        assert run.sql("SELECT 1").fetchall() == [(1,)]
    with pytest.raises(duckdb.ConnectionException):
        run.connection.execute("SELECT 1")
