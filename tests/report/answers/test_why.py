import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from built_run import documents, report
from hypothesis import example, given
from hypothesis import strategies as st
from printing import printed

from corpusmill.pipeline.errors import InputError
from corpusmill.report import machine
from corpusmill.report.answers import why
from corpusmill.report.answers.why_change import passing
from corpusmill.report.answers.why_find import holder_of, holding
from corpusmill.report.read import ReportRule


def explain(run: Path, document: str) -> str:
    return re.sub(r"\s+", " ", printed(why.explain(str(run), document).show))


def identifier(run: Path, url: str) -> str:
    return str(ds.dataset(run / "ingest" / "report").to_table(filter=ds.field("url") == url)["id"][0])


def test_a_dropped_document_shows_all_failed_rules(run_folder: Path) -> None:
    text = explain(run_folder, "http://host2.test/page-14.html")
    assert "ingest: kept" in text and "from crawl-0.warc.gz, offset 14000, length 900" in text
    assert "filter: dropped" in text
    assert "failed short: words is 3, and fails if < 20 (by 17)" in text
    assert "failed symbols: symbol_ratio is 0.2, and fails if > 0.1 (by 0.1)" in text
    assert "language_score 0.9 < 0.65 (language)" in text
    assert "dedup" not in text
    assert "word14x0 word14x1 word14x2" in text


def test_a_copy_names_the_one_that_was_kept(run_folder: Path) -> None:
    text = explain(run_folder, "http://host2.test/page-41.html")
    kept = identifier(run_folder, "http://host1.test/page-43.html")
    assert "in a cluster of 4 documents" in text
    assert f"a copy of {kept}, which was kept: http://host1.test/page-43.html similarity 0.82, verified: exact_jaccard" in text
    removed = identifier(run_folder, "http://host2.test/page-41.html")
    assert f"the two word by word: corpusmill clusters {run_folder} --id {removed}" in text
    assert f"its copies: corpusmill clusters {run_folder} --id {kept}" in explain(run_folder, kept)


def test_by_the_beginning_of_the_id(run_folder: Path) -> None:
    url = "http://host2.test/page-14.html"
    assert explain(run_folder, identifier(run_folder, url)[:12]) == explain(run_folder, url)


@pytest.mark.parametrize("passage", ["  word14x0\n\tword14x1 ", "ord14x0 word14x"])
def test_a_passage_of_one_document_is_explained(run_folder: Path, passage: str) -> None:
    text = explain(run_folder, passage)
    assert text.startswith("1 document holds this text as the stage ingest wrote it: 1. http://host2.test/page-14.html")
    assert "failed short: words is 3" in text and "⟦" in text


def test_a_passage_of_several_is_a_list(run_folder: Path) -> None:
    text = explain(run_folder, "word2")
    assert "10 documents hold this text" in text and " 10. http://" in text
    assert text.count("kept by tokens") == 10
    assert "ingest: kept" not in text and f"corpusmill why {run_folder} ID" in text
    assert "neither a URL nor a text holds it" in refused(run_folder, "word14x1 word14x0")


def test_a_piece_of_a_url_is_enough(run_folder: Path) -> None:
    assert "failed short: words is 3" in explain(run_folder, "PAGE-14.html")
    several = explain(run_folder, "host2.test")
    assert "documents with this in the URL: 1. http://host2.test/" in several and f"corpusmill why {run_folder} ID" in several


@pytest.mark.parametrize(
    "spelling",
    ["https://www.host2.test/page-14.html/", "HTTP://HOST2.test/page-14.html#part", "host2.test/page-14.html?"],
)
def test_near_spellings_are_offered(run_folder: Path, spelling: str) -> None:
    assert refused(run_folder, spelling).endswith("; there is http://host2.test/page-14.html.")


def refused(folder: Path, document: str) -> str:
    with pytest.raises(InputError) as caught:
        explain(folder, document)
    return str(caught.value)


def test_what_would_keep_it_does(run_folder: Path) -> None:
    """The settings, applied to the report's own values, keep this document and as many more as the answer says."""
    found = as_json(run_folder, "http://host2.test/page-14.html")
    (story,) = found["documents"]
    filtered = next(stage for stage in story["stages"] if stage["stage"] == "filter")
    change = filtered["change"]
    assert change["settings"] == {"filter.thresholds.short": 3, "filter.thresholds.symbols": 0.2}
    assert change["command"].startswith(f"corpusmill retune {run_folder} --set filter.thresholds.short=3 --set")
    rows = ds.dataset(run_folder / "filter" / "report").to_table().to_pylist()
    back = [row for row in rows if not row["kept"] and not (row["words"] < 3 or row["symbol_ratio"] > 0.2 or row["language_score"] < 0.65)]
    assert change["others"] == len(back) - 1 == 7
    checks = {check["rule"]: check for check in filtered["checks"]}
    assert checks["short"] == {
        "step": "gopher", "rule": "short", "column": "words", "comparison": "<", "threshold": 20, "value": 3, "failed": True,
        "distance": 17,
        "meaning": "fewer than 20 words", "kind": "",
    }  # fmt: skip
    assert not checks["language"]["failed"] and checks["language"]["distance"] == pytest.approx(0.25)
    assert "to keep it: corpusmill run" in explain(run_folder, "http://host2.test/page-41.html")


def as_json(folder: Path, document: str) -> Any:
    return json.loads(machine.as_json(why.explain(str(folder), document).as_json()))


def test_one_id_twice_and_no_url(tmp_path: Path, builder: Any) -> None:
    run = builder(tmp_path / "run", ())
    rows = [
        {"id": "ab" * 16, "url": None, "text": "the same text", "source": f"crawl-{n}", "kept": n == 0, "failed": ["double"] * n,
         "chars_in": 13, "chars_out": 13} for n in range(2)
    ]  # fmt: skip
    fields = [pa.field("source", pa.string())]
    run.stage("ingest", [{"data/part-00000.parquet": documents(rows[:1], []), "report/part-00000.parquet": report(rows, fields)}])
    text = explain(tmp_path / "run", "ab" * 16)
    assert "(no URL)" in text and "ingest, record 1 of 2: kept" in text and "ingest, record 2 of 2: dropped" in text
    assert "the crawl holds this page 2 times" in text
    assert explain(tmp_path / "run", "abab") == text
    assert len(as_json(tmp_path / "run", "same text")["documents"][0]["stages"]) == 2


def test_many_records_of_one_url_are_a_list(tmp_path: Path, builder: Any) -> None:
    run = builder(tmp_path / "run", ())
    rows = [
        {"id": f"{n:032x}", "url": "http://a.test/", "text": "x", "source": "s", "kept": n % 2 == 0, "chars_in": 1, "chars_out": 1,
         "failed": [["record_type"], ["status"]][n < 24] if n % 2 else []} for n in range(30)
    ]  # fmt: skip
    run.stage("ingest", [{"report/part-00000.parquet": report(rows, [])}])
    text = explain(tmp_path / "run", "http://a.test/")
    assert text.startswith("27 documents with this in the URL: 1. http://a.test/ id 00000000000000000000000000000000, kept by ingest 2.")
    assert "id 00000000000000000000000000000001, dropped by ingest: status" in text and "and 17 more." in text


THRESHOLDS = st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e12, 1e12), st.floats(0, 1))


@example(5e-324, 0.5, "<=")
@example(5e-324, 0.0, ">=")
@given(THRESHOLDS, THRESHOLDS, st.sampled_from(["<", "<=", ">", ">="]))
def test_a_proposed_threshold_lets_the_value_pass_and_is_close(value: float, threshold: float, comparison: str) -> None:
    rule = ReportRule("step", "rule", "column", comparison, threshold)
    found = passing(rule, value)
    assert not {"<": value < found, "<=": value <= found, ">": value > found, ">=": value >= found}[comparison]
    assert abs(found - value) <= max(2e-3 * abs(value), 2e-4)


def test_what_has_no_other_threshold_is_switched_off() -> None:
    assert passing(ReportRule("s", "r", "language", "not in", ["en"]), "de") == "off"
    assert passing(ReportRule("s", "r", "n", "==", 0), 0) == "off"


SPACES = st.text(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000", min_size=1, max_size=3)
WORDS = st.lists(st.text("ab.*\\[é日_-", min_size=1, max_size=2), min_size=1, max_size=6)


@given(st.lists(st.tuples(SPACES, WORDS), min_size=1, max_size=6), WORDS)
def test_passages_are_found_as_in_folded_text(texts: list[tuple[str, list[str]]], words: list[str]) -> None:
    raw = [space.join(parts) for space, parts in texts]
    table = pa.table(
        {"id": [str(n) for n in range(len(raw))], "url": pa.nulls(len(raw), pa.string()), "text": pa.array(raw, pa.large_string())}
    )
    condition, values = holding(words)
    with duckdb.connect() as connection:
        connection.register("texts", table)
        rows = connection.execute(f"SELECT id, url, text FROM texts WHERE {condition}", values).fetchall()
    expected = [str(n) for n, text in enumerate(raw) if " ".join(words) in " ".join(text.split())]
    assert [row[0] for row in rows] == expected
    for holder in (holder_of(*row, words) for row in rows):
        assert holder.passage.split() == words
