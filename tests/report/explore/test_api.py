"""Compares the explorer's answers with a filter in plain Python over the report's files; no request ends in an internal error."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asking import Row, client_of, passes, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

RULES = ("short", "symbols", "language", "never")
COLUMNS = ("words", "symbol_ratio", "language_score", "chars_in", "chars_out")


@pytest.fixture(scope="module")
def client(run_folder: Path) -> TestClient:
    return client_of(run_folder)


@pytest.fixture(scope="module")
def rows(run_folder: Path) -> list[Row]:
    return rows_of(run_folder, "filter")


def ask(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(f"/api/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    """Filters of the filter stage's report; some pass nothing."""
    asked: dict[str, Any] = {}
    options = {
        "decision": st.sampled_from(["kept", "dropped"]),
        "rule": st.lists(st.sampled_from(RULES), max_size=3),
        "alone": st.booleans(),
        "language": st.sampled_from(["de", "en", "", "xx"]),
        "source": st.sampled_from(["crawl-0.warc.gz", "crawl-1.warc.gz"]),
        "host": st.sampled_from(["host0.test", "host1.test", "evil.test", "nowhere.test"]),
        "url": st.sampled_from(["page-1", "/page-30.html", "<b", "\u202e", "%", "_", "'"]),
    }
    for name in draw(st.lists(st.sampled_from(list(options)), max_size=3, unique=True)):
        asked[name] = draw(options[name])
    for name in draw(st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True)):
        least, most = (0.0, 1.0) if "ratio" in name or "score" in name else (0.0, 900.0)
        for end in draw(st.lists(st.sampled_from(["low", "high"]), min_size=1, unique=True)):
            asked[f"{end}.{name}"] = draw(st.one_of(st.floats(least, most), st.sampled_from([0.9, 0.5, 0.2, 30.0, 3.0])))
    return asked


@settings(max_examples=30, deadline=None)
@given(asked=filters())
def test_counts_of_any_filter(client: TestClient, rows: list[Row], asked: dict[str, Any]) -> None:
    wanted = [row for row in rows if passes(row, asked)]
    answer = ask(client, "summary", stage="filter", **asked)
    assert (answer["total"], answer["kept"]) == (len(wanted), sum(row["kept"] for row in wanted))
    assert answer["characters"] == sum(row["chars_in"] for row in wanted)
    for rule in answer["rules"]:
        assert rule["fired"] == sum(rule["rule"] in row["failed"] for row in wanted)
        assert rule["alone"] == sum([rule["rule"]] == row["failed"] for row in wanted)
    for origin in ("language", "source", "host"):
        counted = Counter(row[origin] for row in wanted)
        assert [(one["value"], one["rows"]) for one in answer[f"{origin}s"]] == sorted(counted.items(), key=lambda one: (-one[1], one[0]))


@settings(max_examples=20, deadline=None)
@given(
    asked=filters(),
    order=st.sampled_from([*COLUMNS, "place", "url", "language"]),
    descending=st.booleans(),
    limit=st.integers(1, 20),
    offset=st.integers(0, 60),
)
def test_documents_of_any_filter_in_any_order(
    client: TestClient, rows: list[Row], asked: dict[str, Any], order: str, descending: bool, limit: int, offset: int
) -> None:
    wanted = [row for row in rows if passes(row, asked)]
    if order != "place":
        wanted.sort(key=lambda row: row[order])
    wanted = wanted[::-1] if descending else wanted
    page = {"order": order, "descending": descending, "limit": limit, "offset": offset}
    answer = ask(client, "documents", stage="filter", **asked, **page)
    assert answer["total"] == len(wanted) and answer["search"] is None
    assert [row["key"] for row in answer["rows"]] == [row["key"] for row in wanted[offset : offset + limit]]
    for told, row in zip(answer["rows"], wanted[offset:], strict=False):
        assert all(told[name] == row[name] for name in ("id", "url", "kept", "failed", "language", "source", "chars_in"))
        assert told["values"] == {name: row[name] for name in (*COLUMNS, "language")}


@settings(max_examples=20, deadline=None)
@given(asked=filters(), column=st.sampled_from(COLUMNS))
def test_histogram_of_any_filter(client: TestClient, rows: list[Row], asked: dict[str, Any], column: str) -> None:
    wanted = [row for row in rows if passes(row, asked)]
    answer = ask(client, "histogram", stage="filter", column=column, **asked)
    edges = answer["edges"]
    assert edges == sorted(edges) and len(edges) == len(answer["kept"]) + 1
    for bar, (low, high) in enumerate(pairwise(edges)):
        last = bar == len(edges) - 2
        inside = [row for row in wanted if low <= row[column] < high or (last and row[column] == high)]
        assert answer["kept"][bar] == sum(row["kept"] for row in inside)
        assert answer["dropped"][bar] == sum(not row["kept"] for row in inside)
    assert answer["below"] == sum(row[column] < edges[0] for row in wanted)
    assert answer["above"] == sum(row[column] > edges[-1] for row in wanted)
    assert answer["missing"] == 0


def test_the_run(client: TestClient, rows: list[Row], run_folder: Path) -> None:
    answer = ask(client, "run")
    assert answer["loading"] is None and [stage["name"] for stage in answer["stages"]] == ["ingest", "filter", "dedup", "tokens"]
    stage = answer["stages"][1]
    assert (stage["rows"], stage["kept"], stage["status"]) == (56, sum(row["kept"] for row in rows), "complete")
    by_name = {column["name"]: column for column in stage["columns"]}
    assert by_name["words"] == {"name": "words", "kind": "number", "low": 3.0, "high": 89.0, "missing": 0, "whole": True}
    assert by_name["language"]["kind"] == "text" and not by_name["symbol_ratio"]["whole"]
    rules = {rule["rule"]: rule for rule in stage["rules"]}
    assert [rule["rule"] for rule in stage["rules"]] == ["short", "symbols", "language", "never"]
    assert [rule["meaning"] for rule in stage["rules"]] == ["fewer than 20 words", "more than 10% of <b>symbols</b>", "", ""]
    assert (
        rules["short"] | {"fired": 5, "alone": 4, "slider": True, "threshold": 20, "comparison": "<", "column": "words"} == rules["short"]
    )
    assert rules["short"]["low"] <= 3 and rules["never"]["high"] >= 100_000
    ingest = answer["stages"][0]
    assert [(rule["rule"], rule["fired"], rule["slider"]) for rule in ingest["rules"]] == [("http_status", 4, False)]
    assert any("cut short" in warning for warning in answer["warnings"]) is False  # only the report shows tasks' warnings on their inputs


def test_other_stages_know_the_language_and_the_crawl_file(client: TestClient, run_folder: Path) -> None:
    for stage in ("ingest", "dedup"):
        rows = rows_of(run_folder, stage)
        for asked in ({"language": "de"}, {"language": ""}, {"source": "crawl-1.warc.gz"}, {"decision": "dropped"}):
            answer = ask(client, "documents", stage=stage, limit=200, **asked)
            assert [row["key"] for row in answer["rows"]] == [row["key"] for row in rows if passes(row, asked)]


def test_a_document(client: TestClient, run_folder: Path) -> None:
    number, row = next((n, row) for n, row in enumerate(rows_of(run_folder, "filter")) if row["url"].endswith("page-14.html"))
    answer = ask(client, "document", key=f"filter/{number}")
    assert (answer["id"], answer["url"]) == (row["id"], row["url"])
    assert answer["text"] == "word14x0 word14x1 word14x2" and answer["text_of"] == "ingest" and not answer["cut"]
    assert [(stage["name"], stage["kept"], stage["failed"]) for stage in answer["stages"]] == [
        ("ingest", True, []),
        ("filter", False, ["short", "symbols"]),
    ]
    values = {value["name"]: value for value in answer["stages"][1]["values"]}
    short, never = values["words"]["rules"]
    assert values["words"]["value"] == 3
    assert short == {"rule": "short", "comparison": "<", "threshold": 20, "failed": True} and never["failed"] is False
    assert answer["cluster"] is None and answer["tokens"] is None
    assert answer["commands"] == [f"corpusmill {name} {run_folder} {row['id']}" for name in ("why", "raw")]


def test_a_copy_and_the_one_that_was_kept(client: TestClient, run_folder: Path) -> None:
    rows = rows_of(run_folder, "dedup")
    cluster = [row for row in rows if row["cluster_size"] == 4]
    kept = next(row for row in cluster if row["kept"])
    for row in cluster:
        answer = ask(client, "document", key=row["key"])
        told = answer["cluster"]
        assert (told["size"], told["kept_id"]) == (4, kept["id"])
        assert told["rows"][0]["key"] == kept["key"]
        assert {(one["key"], one["similarity"]) for one in told["rows"]} == {(one["key"], one["similarity"]) for one in cluster}
        assert (answer["tokens"] is not None) == row["kept"]
    answer = ask(client, "document", key=kept["key"])
    pieces = "".join(piece["text"] for piece in answer["tokens"]["pieces"])
    assert answer["text"].startswith(pieces.removesuffix("<|endoftext|>")) and answer["tokens"]["split"] == "train"
    assert any(line.startswith("corpusmill trace ") for line in answer["commands"])


def test_what_later_stages_made_of_the_kept(client: TestClient, run_folder: Path) -> None:
    later = {row["id"]: (stage, row) for stage in ("filter", "dedup") for row in rows_of(run_folder, stage) if not row["kept"]}
    kept = {row["id"]: row for row in rows_of(run_folder, "dedup") if row["kept"]}
    for stage in ("ingest", "filter"):
        found = ask(client, "documents", stage=stage, limit=200)["rows"]
        assert sum(row["later"] is not None for row in found) == (14 if stage == "ingest" else 3)
        for row in found:
            dropped_by, copy = later.get(row["id"], ("", {}))
            if not row["kept"] or not copy:
                assert row["later"] is None
                continue
            original = kept.get(copy.get("kept_id", ""))
            stays = original and {name: original[name] for name in ("key", "id", "url")} | {"similarity": copy["similarity"]}
            assert row["later"] == {"stage": dropped_by, "failed": copy["failed"], "copy_of": stays}


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("documents", 422, "'stage' is missing"),
        ("documents?stage=filter&rule=nothing", 422, "no rule 'nothing'"),
        ("documents?stage=filter&low.language=1", 422, "no column of numbers 'language'"),
        ("documents?stage=filter&low.words=1e999", 422, "finite"),
        ("documents?stage=filter&limit=201", 422, "'limit'"),
        ("documents?stage=filter&stage=ingest", 422, "given twice"),
        ("documents?stage=filter&sql=DROP", 422, "no parameter 'sql'"),
        ("documents?stage=filter&text=x&cursor=one", 422, "'cursor'"),
        ("thresholds?stage=ingest&set.http_status=1", 422, "can't be changed"),
        ("thresholds?stage=filter&set.nothing=1", 422, "no rule 'nothing'"),
        ("changed?stage=filter&which=all", 422, "'which'"),
        ("document?key=filter/56", 404, "no document 'filter/56'"),
        ("document?key=filter/%D9%A3", 404, "no document"),
        ("document?key=../../etc/passwd", 422, "no stage '..'"),
    ],
)
def test_unfit_requests_are_one_sentence(client: TestClient, path: str, status: int, said: str) -> None:
    answer = client.get(f"/api/{path}")
    assert answer.status_code == status and said in answer.json()["detail"]


NAMES = st.sampled_from(
    ["part", "stage", "decision", "rule", "alone", "language", "host", "url", "text", "low.words", "high.x", "order", "descending", "limit",
     "offset", "cursor", "column", "set.short", "set.", "which", "key", "low.", "", "'; DROP TABLE report_filter; --", "set_", "low"]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["marks", "page"]), st.text(max_size=30), st.integers().map(str), st.floats().map(str),
    st.sampled_from(["filter", "dedup", "words", "kept", "short", "true", "gained", "filter/3", "' OR 1=1 --", "\0", "٣", "1e400", "off"]),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    path=st.sampled_from(["documents", "summary", "histogram", "thresholds", "changed", "document", "run"]),
    parameters=st.lists(st.tuples(NAMES, VALUES), max_size=5),
    fit=st.booleans(),
)
def test_no_request_ends_in_an_error_of_ours(client: TestClient, path: str, parameters: list[tuple[str, str]], fit: bool) -> None:
    if fit and path != "run":
        parameters = [*parameters, ("stage", "filter")]
    answer = client.get(f"/api/{path}", params=[(name, value.encode("utf-8", "replace").decode()) for name, value in parameters])
    assert answer.status_code in (200, 404, 422)
    assert answer.status_code == 200 or set(answer.json()) == {"detail"}
