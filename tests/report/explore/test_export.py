"""Tests the files of a filter's documents against the rows of the report."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from asking import client_of, passes, rows_of
from built_run import RULES, RunBuilder
from starlette.testclient import TestClient

from corpusmill.report.explore import export

ASKED: list[dict[str, Any]] = [{}, {"decision": "dropped", "rule": ["short"]}, {"low.words": 30}, {"url": "nowhere"}]


@pytest.fixture
def client(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(export, "BATCH", 9)  # several batches, some of them without a row
    return client_of(run_folder, "filter")


def saved(client: TestClient, form: str, **asked: Any) -> bytes:
    answer = client.get("/api/export", params={"stage": "filter", "format": form, **asked})
    assert answer.status_code == 200 and answer.headers["content-disposition"] == f'attachment; filename="filter.{form}"'
    return answer.content


@pytest.mark.parametrize("asked", ASKED)
def test_every_form_has_the_rows_of_the_filter(client: TestClient, run_folder: Path, asked: dict[str, Any]) -> None:
    rows = [row for row in rows_of(run_folder, "filter") if passes(row, asked)]
    table = pq.read_table(io.BytesIO(saved(client, "parquet", **asked)))
    lines = [json.loads(line) for line in saved(client, "jsonl", **asked).splitlines()]
    cells = list(csv.DictReader(io.StringIO(saved(client, "csv", **asked).decode())))
    for found in (table.to_pylist(), lines):
        assert [[row[name] for name in ("id", "url", "kept", "failed", "words")] for row in found] == [
            [row[name] for name in ("id", "url", "kept", "failed", "words")] for row in rows
        ]
    assert [(row["id"], row["words"], json.loads(row["failed"])) for row in cells] == [
        (row["id"], str(row["words"]), row["failed"]) for row in rows
    ]
    texts = {row["id"]: row["text"] for path in (run_folder / "ingest/data").iterdir() for row in pq.read_table(path).to_pylist()}
    assert [line["text"] for line in lines] == [texts[row["id"]] for row in rows]


def test_a_search_in_texts_is_brought_to_its_end(client: TestClient, run_folder: Path) -> None:
    texts = {row["id"]: row["text"] for path in (run_folder / "ingest/data").iterdir() for row in pq.read_table(path).to_pylist()}
    wanted = [row["id"] for row in rows_of(run_folder, "filter") if "word1" in texts[row["id"]]]
    assert [json.loads(line)["id"] for line in saved(client, "jsonl", text="word1").splitlines()] == wanted
    assert wanted


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    urls = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "plain"]
    rows = [{"id": f"{n:032x}", "url": url, "source": "x", "text": ""} for n, url in enumerate(urls)]
    RunBuilder(tmp_path).decide("filter", [rows], rules=RULES)
    cells = list(csv.DictReader(io.StringIO(saved(client_of(tmp_path), "csv").decode())))
    assert [row["url"][0] for row in cells] == ["'"] * 5 + ["p"]
