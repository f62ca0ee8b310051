"""Tests the sections about decisions, with unusual or broken runs."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from built_run import RunBuilder, pages

from corpusmill.report.page.html import render
from corpusmill.report.queries.summary import read_summary


def test_records_that_hold_no_page_are_told_apart(random_run: Path, tmp_path: Path) -> None:
    shutil.copytree(random_run, tmp_path / "run")
    rows = []
    for shard in sorted((tmp_path / "run" / "ingest" / "report").iterdir()):
        table = pq.read_table(shard)
        failed = [["record_type" if name == "status" else name for name in names] for names in table["failed"].to_pylist()]
        rows += failed
        place = table.schema.get_field_index("failed")
        pq.write_table(table.set_column(place, table.schema.field(place), pa.array(failed, table.schema.field(place).type)), shard)
    without = sum("record_type" in names for names in rows)
    summary = read_summary(str(tmp_path / "run"))
    assert summary.funnel is not None and without > 0
    assert (summary.rows[0].documents_in, summary.funnel.pages) == (len(rows), len(rows) - without)
    head = render(summary).partition("</header>")[0]
    kept = summary.rows[-1].documents_out
    assert f"<dd>{len(rows) - without:,}</dd>" in head and f"and {without:,} records without a page" in head
    assert f"{kept / (len(rows) - without):.1%} of the" in head


def test_a_rule_that_drops_ten_times_as_much_of_a_language_is_named(tmp_path: Path) -> None:
    builder = RunBuilder(tmp_path / "run")
    builder.json("run.json", {"recipe": {"filter": {}}})
    languages = ["en"] * 100 + ["ja"] * 60 + ["und"] * 5
    rows = [
        {**pages()[0], "id": f"{number:032x}", "language": language, "failed": failed}
        for number, language in enumerate(languages)
        for failed in [["short"] * (number < 2 or 100 <= number < 150) + ["loud"] * (number % 2)]
    ]
    builder.decide("filter", [rows], [pa.field("language", pa.string())])
    summary = read_summary(str(tmp_path / "run"))
    assert summary.page.by_language is not None
    found = {(row["language"], row["rule"]): row for row in summary.page.by_language.rows}
    assert found.keys() == {("ja", "short")} and found["ja", "short"]["unlike"]
    assert (found["ja", "short"]["share"], found["ja", "short"]["share_of_others"]) == (50 / 60, 2 / 105)
    assert "short drops 83.3% of <bdi>Japanese (ja)</bdi>, and 1.9% of all others." in render(summary)
