"""Tests search in texts: over several answers it finds exactly the matching documents, in the order of the report."""

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from asking import client_of, passes, rows_of
from starlette.testclient import TestClient

from corpusmill.report.explore import selection as search


@pytest.fixture(scope="module")
def client(run_folder: Path) -> TestClient:
    return client_of(run_folder)


def texts(folder: Path, stage: str) -> dict[str, str]:
    """Returns by id the input texts of a stage; for `ingest`, its output texts."""
    before = {"ingest": "ingest", "filter": "ingest", "dedup": "filter"}[stage]
    table = ds.dataset(sorted((folder / before / "data").glob("*.parquet"))).to_table(["id", "text"])
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


def search_all(client: TestClient, **parameters: Any) -> tuple[list[str], list[Any]]:
    """Returns the keys of all answers until there is no cursor, and the answers."""
    keys, answers = [], []
    while True:
        answer = client.get("/api/documents", params=parameters)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
        keys += [row["key"] for row in answers[-1]["rows"]]
        if answers[-1]["search"]["cursor"] is None:
            return keys, answers
        parameters["cursor"] = answers[-1]["search"]["cursor"]
        assert len(answers) < 100


@pytest.mark.parametrize(
    ("stage", "asked", "needle"),
    [
        ("filter", {"decision": "dropped"}, "word1"),
        ("filter", {"low.words": 80}, "x79 "),
        ("ingest", {}, "word5"),
        ("dedup", {"decision": "dropped"}, "word41x0"),
        ("filter", {}, "nowhere to be found"),
    ],
)
def test_finds_what_is_there(client: TestClient, run_folder: Path, stage: str, asked: dict[str, Any], needle: str) -> None:
    known = texts(run_folder, stage)
    rows = [row for row in rows_of(run_folder, stage) if passes(row, asked) and row["id"] in known]
    wanted = [row for row in rows if needle in known[row["id"]]]
    keys, answers = search_all(client, **{"stage": stage, "text": needle, "limit": 3, **asked})
    assert keys == [row["key"] for row in wanted]
    assert all(len(answer["rows"]) <= 3 for answer in answers)
    last = answers[-1]
    assert (last["search"]["searched"], last["search"]["of"]) == (len(rows), len(rows))
    assert (last["total"], last["kept"]) == (len(wanted), sum(row["kept"] for row in wanted))


def test_a_search_whose_time_is_over_can_go_on(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BUDGET", 0.0)
    answer = client_of(run_folder, "filter").get("/api/documents", params={"stage": "filter", "text": "x7"}).json()
    assert (answer["total"], answer["search"]["searched"], answer["search"]["of"]) == (0, 0, 56) and answer["search"]["cursor"]
