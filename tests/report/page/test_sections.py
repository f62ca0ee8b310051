"""Tests the sections about decisions, with unusual or broken runs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import browser, needs_chromium, opened
from random_run import write_random_run

from corpusmill.report.page.html import render, write_report
from corpusmill.report.queries.summary import Summary, read_summary


@pytest.fixture(scope="module")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "run"
    write_random_run(folder)
    return folder


@pytest.fixture(scope="module")
def summary(random_run: Path) -> Summary:
    return read_summary(str(random_run))


@pytest.fixture(scope="module")
def page(random_run: Path) -> str:
    return Path(write_report(str(random_run))).read_text()


def test_what_the_page_says_first(summary: Summary, page: str) -> None:
    d = summary.decisions["filter"]
    most = d.by_removal()[0]
    assert f"documents fail ({most.fired / d.rows:.1%}), {most.alone:,} of them no other rule." in page
    line = re.search(r"<code>(filter\.thresholds\.\S+)=(\S+)</code> would keep (\S+) documents more", page)
    assert line and int(line[3].replace(",", "")) > 0
    for target in re.findall(r'<a href="#([^"]+)"', page):  # each rule's card, the table of other thresholds, the near misses
        assert page.count(f'id="{target}"') == 1, target
    assert re.search(r'<a href="#card-filter-[^"]+">short</a>', page)
    assert re.search(r'<a href="#(card-filter-[^"]+)">Other thresholds</a>', page)


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
    assert without > 0 and f"{without:,} of the {len(rows):,} records" in render(read_summary(str(tmp_path / "run")))


def test_those_that_lose_most(summary: Summary) -> None:
    hosts = next(origin for origin in summary.page.origins if origin.title == "Host")
    assert "host7.test" in [name for name, _, _ in hosts.losers]
    assert all(left / before < hosts.kept_share / 2 for _, before, left in hosts.losers)


def rewrite(folder: Path, change: Any) -> None:
    """Changes every report shard of the filter stage."""
    for shard in sorted((folder / "filter" / "report").iterdir()):
        pq.write_table(change(pq.read_table(shard)), shard)


def test_zero_documents_kept(random_run: Path, tmp_path: Path) -> None:
    shutil.copytree(random_run, tmp_path / "run")

    def drop(table: pa.Table) -> pa.Table:
        """Leaves out documents without words, which all are short."""
        failed = [["short", *(name for name in names if name not in ("short", "long"))] for names in table["failed"].to_pylist()]
        none = {"kept": [False], "words": [0], "chars_out": [0]}
        for name, (value,) in none.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), pa.array([value] * table.num_rows))
        return table.set_column(3, table.schema.field(3), pa.array(failed, pa.list_(pa.string())))

    rewrite(tmp_path / "run", drop)
    for shard in (tmp_path / "run" / "filter" / "data").iterdir():
        pq.write_table(pq.read_table(shard).slice(0, 0), shard)
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert re.search(r"filter: none of 3,\d+ documents was kept\.", page)


def test_ten_thousand_hostile_rules(random_run: Path, tmp_path: Path) -> None:
    shutil.copytree(random_run, tmp_path / "run")
    name = "</script><b onmouseover=alert(1)>\x1b[2J‮rule'\"{}"

    def fire(table: pa.Table) -> pa.Table:
        failed = [[f"{name}{(7 * row + place) % 10_000}" for place in range(row % 90)] for row in range(table.num_rows)]
        kept = pa.array([not names for names in failed])
        return table.set_column(2, table.schema.field(2), kept).set_column(
            3, table.schema.field(3), pa.array(failed, pa.list_(pa.string()))
        )

    rewrite(tmp_path / "run", fire)
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert "more rules" in page and "other combinations" in page
    assert len(page.encode()) < 15e6 and "<b onmouseover" not in page and "\x1b" not in page and "‮" not in page


def test_half_a_stage(random_run: Path, tmp_path: Path) -> None:
    shutil.copytree(random_run, tmp_path / "run")
    manifest = tmp_path / "run" / "filter" / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:2]))
    (tmp_path / "run" / "filter" / "report" / "part-00000.parquet").write_bytes(b"PAR1")
    page = Path(write_report(str(tmp_path / "run"))).read_text()
    assert "filter: not finished (tasks done: 2)" in page and "filter/report/part-00000.parquet" in page
    assert '<h2 id="values">' in page and '<div class="slider"' in page


@needs_chromium
def test_the_slider_answers_the_keys(random_run: Path, page: str, summary: Summary) -> None:
    changes = summary.page.changes["ratio"]
    with browser() as chromium, opened(chromium, f"file://{random_run}/report.html") as seen:
        slider = seen.page.locator(".slider", has=seen.page.get_by_label("Threshold of ratio", exact=True))
        assert "now" in slider.locator("output").inner_text() and slider.locator("code").inner_text() == ""
        slider.locator("input").focus()
        seen.page.keyboard.press("Home")
        first = changes.every[0]
        said = slider.locator("output").inner_text()
        assert f"{first.documents:,} documents" in said and f"−{-first.more:,}" in said and f"{first.characters:,} characters" in said
        assert slider.locator("code").inner_text() == f"filter.thresholds.ratio={first.threshold}"
        assert slider.locator("input").get_attribute("aria-valuetext") == said
        figure = seen.page.locator("figure", has=slider)
        figure.locator(".main-svg").first.wait_for()
        seen.page.keyboard.press("End")
        last = changes.every[-1].threshold
        places = slider.evaluate("slider => slider.closest('figure').querySelector('.chart').layout.shapes.map(shape => shape.x0)")
        assert last in places and figure.locator(".annotation-text", has_text=f">= {last:g}").count() == 1
        assert not seen.console
        told = json.loads(slider.get_attribute("data-changes"))
        assert told["documents"] == [change.documents for change in changes.every]
