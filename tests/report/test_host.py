"""Tests that every place that counts hosts has the same definition of a host."""

from pathlib import Path

import duckdb
import pyarrow as pa
from built_run import RunBuilder, pages

from corpusmill.report import host
from corpusmill.report.answers.diff_documents import open_pair, read_properties
from corpusmill.report.card.contents import read_contents
from corpusmill.report.explore import parameters
from corpusmill.report.explore.answers import most
from corpusmill.report.explore.load import load_stage
from corpusmill.report.explore.selection import select
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.query.run import open_run


def test_capitals_are_the_same_host_everywhere(tmp_path: Path) -> None:
    urls = ["http://One.TEST/a", "http://one.test:80/b", "https://me@ONE.test/c", "http://two.test/", "no url", None, ""]
    rows = [{**row, "url": url, "language": s} for row, url, s in zip(pages(), urls, ["x", "", None, "x", "x", "", None], strict=False)]
    extra = [pa.field("language", pa.string())]
    builder = RunBuilder(tmp_path / "run")
    builder.json("run.json", {})
    builder.decide("filter", [rows], extra, extra)
    folder, expected = str(builder.folder), {"one.test": 3, "two.test": 1, None: 3}
    named = {name or host.NONE: count for name, count in expected.items()}

    run = open_run(folder)
    assert read_contents(run).hosts == named
    (origin,) = [origin for origin in read_summary(folder).page.origins if origin.column == "url"]
    assert {name: counts[0] for name, counts, _ in origin.shown} == named
    with open_pair(folder, folder, None) as pair:
        found = read_properties(pair)
    assert {name: a for name, a, _ in found["host"]} == named and found["language"] == [(host.NONE, 4, 4), ("x", 3, 3)]
    stage = load_stage(run, duckdb.connect(), "filter", lambda _: None)
    assert {one["value"]: one["rows"] for one in most(stage, "host")} == expected
    for wanted in ("one.test", "ONE.test"):
        assert select(stage, parameters.Filter(stage="filter", host=wanted)).sum() == 3
