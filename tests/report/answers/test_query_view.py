"""Tests `corpusmill query`: rows for a terminal and for programs."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from built_run import HOSTILE_URL

QUERY = "SELECT url, words, failed FROM filter_report ORDER BY words DESC, url"


def test_json_has_all_rows_exactly(corpusmill, run_folder: Path) -> None:
    code, out, _ = corpusmill("query", run_folder, QUERY, "--json")
    rows = [json.loads(line) for line in out.decode("ascii").splitlines()]
    table = pq.read_table(run_folder / "filter/report", columns=["url", "words", "failed"]).to_pylist()
    assert code == 0 and rows == sorted(table, key=lambda row: (-row["words"], row["url"])) and HOSTILE_URL in {row["url"] for row in rows}


def test_csv_is_what_a_spreadsheet_reads(corpusmill, run_folder: Path) -> None:
    _, out, _ = corpusmill("query", run_folder, f"{QUERY} LIMIT 60", "--csv", "--limit", 7)
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert len(rows) == 7 and rows[0]["words"] == "89" and b"\x1b" not in out


def test_a_table_fits_and_is_harmless(corpusmill, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for query in (QUERY, "SELECT * FROM filter_report", "SELECT text FROM ingest_documents WHERE url LIKE '%evil%'"):
        code, out, _ = corpusmill("query", run_folder, query)
        lines = out.decode().splitlines()
        assert code == 0 and all(len(line) <= 80 for line in lines)
        assert not set(out.decode()) & {"\x1b", "\x07", "\u202e", "\u202c"}
    assert "1 row" in lines[-1]
    _, out, _ = corpusmill("query", run_folder, QUERY)
    assert "The first 50 rows; --limit 0 shows all." in out.decode()
    _, out, _ = corpusmill("query", run_folder, QUERY, "--limit", 0)
    assert "56 rows" in out.decode()


def test_columns_of_one_name_are_told_apart(corpusmill, run_folder: Path) -> None:
    _, out, _ = corpusmill("query", run_folder, "SELECT 1 AS a, 2 AS a, 1.5::DECIMAL(4, 2) AS d, 'inf'::DOUBLE AS e", "--json")
    assert json.loads(out) == {"a": 1, "a_2": 2, "d": 1.5, "e": "inf"}


def test_the_tables_are_listed(corpusmill, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = corpusmill("query", run_folder, "--json")
    listed = {table["table"]: table for table in json.loads(out)}
    assert listed["filter_report"]["rows"] == 56 and listed["filter_report"]["columns"]["words"] == "BIGINT"
    assert listed["json_run"]["columns"] == {"content": "JSON"} and {"rules", "tasks", "dedup_clusters"} < set(listed)
    _, out, _ = corpusmill("query", run_folder)
    assert "filter_report  56 rows" in out.decode() and all(len(line) <= 80 for line in out.decode().splitlines())
    _, out, _ = corpusmill("query", run_folder, "--csv")
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert {"table": "filter_report", "rows": "56", "column": "words", "type": "BIGINT"} in rows


ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
DEAF = "SELECT max(repeat('a', 1000000000)) FROM range(1000)"  # a function that DuckDB does not interrupt


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        pytest.param(ENDLESS, True, id="endless, limit"),
        pytest.param(DEAF, False, id="deaf, SIGTERM"),
    ],
)
def test_a_query_without_an_end_is_ended(run_folder: Path, tmp_path: Path, query: str, limit: bool) -> None:
    command = [sys.executable, "-m", "corpusmill", "query", str(run_folder), query, "--time-limit", "1" if limit else "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    if not limit:
        while psutil.Process(process.pid).cpu_times().user < 4:  # then the query is at work
            time.sleep(0.05)
        process.terminate()
    _, said = process.communicate(timeout=60)
    wanted = (1, "corpusmill: query: it has not ended after 1 seconds (--time-limit).\n") if limit else (143, "corpusmill: interrupted.\n")
    assert (process.returncode, said) == wanted and not list(tmp_path.iterdir())
