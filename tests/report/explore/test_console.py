"""Tests the list of runs and comparisons over HTTP, against the reports and against `corpusmill diff`."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from asking import client_for
from built_run import write_run
from many_runs import write_many_runs
from starlette.testclient import TestClient

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.report.answers.diff import DiffOptions, compare
from corpusmill.report.explore.console import Console
from corpusmill.report.explore.runs import find_runs

PAIR = {"a": "first", "b": "group/second"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def client(folder: Path) -> TestClient:
    return client_for(Console(str(folder)))


def ask(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(f"/api/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(client: TestClient) -> dict[str, Any]:
    """Returns the rows of the list by name, once all are read."""
    while (answer := ask(client, "runs"))["left"]:
        time.sleep(0.01)
    return {row["name"]: row for row in answer["rows"]}


def test_the_list_has_every_run_below_the_path(client: TestClient, folder: Path) -> None:
    assert ask(client, "console") == {"path": str(folder), "one": False, "write": False}
    rows = listed(client)
    assert list(rows) == ["damaged", "first", "group/second"]
    report = rows_of_filter(folder / "first")
    first = rows["first"]
    assert list(first["kept"]) == ["ingest", "filter"] and first["kept"]["filter"] == sum(row["kept"] for row in report)
    assert first["pages"] == 60 and first["inputs"] == json.loads((folder / "first/run.json").read_text())["inputs"]
    damaged = rows["damaged"]
    assert damaged["state"] == "damaged" and "run.json: not readable JSON" in damaged["sentence"] and damaged["kept"] == {}


def rows_of_filter(folder: Path) -> list[Any]:
    return [row for path in sorted((folder / "filter/report").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_the_list_follows_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new run, a run that went on, and a run that is gone."""
    monkeypatch.setattr("corpusmill.report.explore.runs.LOCAL", 0)
    write_run(tmp_path / "one", ("ingest",))
    client = client_for(Console(str(tmp_path)))
    assert {name: list(row["kept"]) for name, row in listed(client).items()} == {"one": ["ingest"]}
    write_run(tmp_path / "two", ("ingest",))
    write_run(tmp_path / "new", ("ingest", "filter"))
    (tmp_path / "one").rename(tmp_path / "gone")
    (tmp_path / "new").rename(tmp_path / "one")
    (tmp_path / "gone/run.json").unlink()
    assert {name: list(row["kept"]) for name, row in listed(client).items()} == {"one": ["ingest", "filter"], "two": ["ingest"]}


@pytest.mark.parametrize("name", ["link", "../first", "first/../first", "/etc", "", "first/", ".", "nowhere", "group", "first\0"])
def test_there_is_no_run_of_another_name(client: TestClient, name: str) -> None:
    for path in ("run", "status", "documents"):
        answer = client.get(f"/api/{path}", params={"run": name, **({"stage": "filter"} if path == "documents" else {})})
        assert answer.status_code == 404, answer.text
    assert client.get("/api/compare", params={"a": "first", "b": name}).status_code == 404


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run"):
        Console(str(tmp_path))
    with pytest.raises(InputError, match="no such run"):
        Console(str(tmp_path / "nowhere"))


def test_one_run_has_its_folders_name_and_no_other(run_folder: Path) -> None:
    client = client_for(Console(str(run_folder)))
    assert ask(client, "console")["one"] is True and ask(client, "run", run=run_folder.name)["own"] == run_folder.name
    for name in (".", "..", f"../{run_folder.name}", "filter"):
        assert client.get("/api/run", params={"run": name}).status_code == 404


def test_a_comparison_is_that_of_diff(client: TestClient, folder: Path) -> None:
    wanted = compare(str(folder / "first"), str(folder / "group/second"), DiffOptions(all_columns=True)).as_json()
    found = {**ask(client, "compare", **PAIR), **ask(client, "compare_columns", **PAIR)}
    assert found["documents"]["only_a"]["documents"] > 0
    for name in ("documents", "kept", "rules", "settings", "columns", "columns_of_one", "language", "host", "notes"):
        assert found[name] == json.loads(json.dumps(wanted[name])), name


def test_documents_that_one_run_keeps(client: TestClient, folder: Path) -> None:
    wanted = {row["id"]: row for row in rows_of_filter(folder / "first") if row["kept"] and row["words"] < 40}
    asked = {**PAIR, "kept_by": "a", "limit": 4}
    found = []
    for offset in range(0, len(wanted) + 4, 4):
        answer = ask(client, "compare_documents", **asked, offset=offset, stage="filter", dropped_by="short")
        assert answer["total"] == len(wanted)
        found += answer["rows"]
    assert sorted(row["id"] for row in found) == sorted(wanted)
    condition = {"comparison": "<"}
    assert found[0]["failed"] == [
        {"rule": "short", "column": "words", "value": wanted[found[0]["id"]]["words"], "a": {**condition, "threshold": 20},
         "b": {**condition, "threshold": 40}}
    ]  # fmt: skip
    assert [row["id"] for row in ask(client, "compare_documents", **asked)["rows"]] == [row["id"] for row in found[:4]]
    assert ask(client, "compare_documents", **{**asked, "kept_by": "b"}) == {"total": 0, "rows": []}
    text = ask(client, "compare_text", **PAIR, kept_by="a", stage="filter", id=found[0]["id"])["text"]
    loader = client.get("/api/run", params={"run": "first"})
    assert loader.status_code == 200
    key = place(client, "group/second", found[0]["id"])
    opened = ask(client, "document", run="group/second", key=key)
    assert (opened["id"], opened["text"]) == (found[0]["id"], text)


def place(client: TestClient, run: str, id_: str) -> str:
    while ask(client, "run", run=run)["loading"]:
        time.sleep(0.01)
    key: str = ask(client, "place", run=run, stage="filter", id=id_)["key"]
    assert client.get("/api/place", params={"run": run, "stage": "filter", "id": "nobody"}).status_code == 404
    return key


def test_histograms_of_both_runs(client: TestClient, folder: Path) -> None:
    found = ask(client, "compare_histogram", **PAIR, stage="filter", column="words")
    assert [found["thresholds"][side][0] for side in PAIR] == [20, 40]
    for side, name in PAIR.items():
        words = [row["words"] for row in rows_of_filter(folder / name) if row["kept"]]
        assert found[side] == np.histogram(words, found["edges"])[0].tolist() and sum(found[side]) + found["outside"][side] == len(words)
    answer = client.get("/api/compare_histogram", params={**PAIR, "stage": "filter", "column": "nothing"})
    assert answer.status_code == 422 and "no column 'nothing'" in answer.json()["detail"]


@pytest.mark.long
def test_runs_in_a_bucket(s3, tmp_path: Path) -> None:
    local = write_run(tmp_path / "run", ("ingest",)).folder
    s3.bucket("many")
    for name in ("a/one", "a/deep/two", "elsewhere/three"):
        for file in local.rglob("*"):
            if file.is_file():
                s3.put(f"s3://many/{name}/{file.relative_to(local).as_posix()}", file.read_bytes())
    assert find_runs(Storage("s3://many")) == ["a/deep/two", "a/one", "elsewhere/three"]
    client = client_for(Console("s3://many/a"))
    assert list(listed(client)) == ["deep/two", "one"]
    assert client.get("/api/run", params={"run": "../elsewhere/three"}).status_code == 404
