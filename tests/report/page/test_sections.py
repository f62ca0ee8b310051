"""The sections about decisions: every number beside what DuckDB finds in the same tables, and runs that are unusual or broken."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import browser, needs_chromium, opened
from random_run import write_random_run

from corpusmill.report.facts import scan
from corpusmill.report.page.html import render, write_report
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.read import RunReader
from corpusmill.report.shown.check import check_report, sentences

OURS = re.compile(
    r"funnel|pages|examples|(ingest|filter|dedup)-(rules|combinations|pairs)|threshold|values|lengths|pii|near|origin|losers|encodings"
)


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


def checked(folder: Path) -> dict[str, list[str]]:
    """What the check says of each of our queries that is not equal, by name; and that there are some."""
    every = [each for each in check_report(str(folder)) if OURS.match(each.shown.name)]
    assert len(every) > 10
    return {each.shown.name: sentences(each) for each in every if not each.good}


def test_every_number_is_that_of_its_query(random_run: Path, run_folder: Path) -> None:
    assert checked(random_run) == {}
    assert checked(run_folder) == {}


def test_a_wrong_number_is_found(random_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corpusmill.report.facts.thresholds import Changes

    right = Changes.add
    monkeypatch.setattr(Changes, "add", lambda self, measured: right(self, measured + 1))
    assert any(name.startswith("threshold") for name in checked(random_run))


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


def test_the_pages_to_read_first_are_in_the_language_that_is_kept_most(summary: Summary) -> None:
    from corpusmill.report.facts.examples import examples

    d = summary.decisions["filter"]
    rows = pa.concat_tables(summary.reader.tables("filter", "report")).to_pylist()
    kept = Counter(row["language"] for row in rows if row["kept"])
    assert next(origin.kept_most() for origin in summary.origins if origin.column == "language") in kept
    for rule in d.by_removal():
        alone = [row for row in rows if row["failed"] == [rule.name]]
        for language in {row["language"] for row in alone}:
            found = examples(summary.reader, d, rule, language, 50)
            told = [each.sample.language for each in found.shown]
            many = sum(row["language"] == language for row in alone)
            assert told[:many] == [language] * min(many, 3) and len(told) == min(3, len(alone))
            assert all(each.text for each in found.shown)


def test_the_recipe_line_does_what_the_page_says(summary: Summary) -> None:
    from corpusmill.report.facts.headline import headline
    from corpusmill.report.facts.near_view import near_misses

    d = summary.decisions["filter"]
    found = headline(summary.decisions, near_misses(summary.reader, d, 100, 50))
    assert found is not None and found.line is not None
    name, _, value = found.line.removeprefix("filter.thresholds.").rpartition("=")
    rule = d.rule(name)
    assert rule is not None and found.deciding is not None and found.deciding.name == name
    table = pa.concat_tables(summary.reader.tables("filter", "report"))
    failed = [set(names) - {name} for names in table["failed"].to_pylist()]
    from corpusmill.filters.rules import Rule

    still = Rule(name, rule.column, rule.comparison, float(value)).failing(table[rule.column].combine_chunks())
    assert sum(not names and not fails for names, fails in zip(failed, still, strict=True)) == d.kept + found.more
    assert found.off is not None and sum(not names for names in failed) == d.kept + found.off


def test_near_misses_have_their_texts_and_no_document_twice(summary: Summary) -> None:
    from corpusmill.report.facts.near_view import near_misses

    texts = {row["id"]: row["text"] for table in summary.reader.tables("ingest", "data", ["id", "text"]) for row in table.to_pylist()}
    entries = near_misses(summary.reader, summary.decisions["filter"], 100, 10**6)
    assert {entry.rule.name for entry in entries} >= {"short", "language", "ratio"}
    for entry in entries:
        for side in ("dropped", "kept"):
            ids = [shown.sample.id for shown in entry.shown if shown.side == side]
            assert len(ids) == len(set(ids)) == 4, (entry.rule.name, side)
        assert all(shown.text == texts[shown.sample.id] for shown in entry.shown)


def test_texts_are_found_where_the_stage_before_is_gone(random_run: Path, tmp_path: Path) -> None:
    from corpusmill.report.facts.near_view import near_misses

    shutil.copytree(random_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "ingest")
    reader = RunReader(str(tmp_path / "run"))
    read = read_summary(str(tmp_path / "run"))
    for entry in near_misses(reader, read.decisions["filter"], 100, 50):
        assert all((shown.text is not None) == (shown.side == "kept") for shown in entry.shown)


def test_records_that_hold_no_page_are_told_apart(random_run: Path, tmp_path: Path) -> None:
    shutil.copytree(random_run, tmp_path / "run")
    rows = []
    for shard in sorted((tmp_path / "run" / "ingest" / "report").iterdir()):
        table = pq.read_table(shard)
        failed = [["record_type" if name == "status" else name for name in names] for names in table["failed"].to_pylist()]
        rows += failed
        place = table.schema.get_field_index("failed")
        pq.write_table(table.set_column(place, table.schema.field(place), pa.array(failed, table.schema.field(place).type)), shard)
    assert checked(tmp_path / "run") == {}
    without = sum("record_type" in names for names in rows)
    assert without > 0 and f"{without:,} of the {len(rows):,} records" in render(read_summary(str(tmp_path / "run")))


def test_those_that_lose_most(summary: Summary) -> None:
    hosts = next(origin for origin in summary.origins if origin.title == "Host")
    assert "host7.test" in [name for name, _, _ in hosts.losers()]
    assert all(left / before < hosts.kept_share / 2 for _, before, left in hosts.losers())


def test_personal_data(summary: Summary, page: str) -> None:
    assert summary.personal is not None
    emails, phones = summary.personal.kinds
    assert (emails.placeholder, emails.known, phones.placeholder, phones.known) == ("email@example.com", True, None, True)
    assert "nothing: it stays" in page
    table = pa.concat_tables(summary.reader.tables("filter", "report", ["pii_emails", "kept"]))
    counts = [(row["pii_emails"], row["kept"]) for row in table.to_pylist()]
    assert emails.finds == sum(count for count, _ in counts) and emails.kept_documents == sum(count > 0 and kept for count, kept in counts)


def test_the_page_of_an_equal_run_is_equal(random_run: Path, tmp_path: Path, page: str) -> None:
    shutil.copytree(random_run, tmp_path / "copy")
    assert render(read_summary(str(tmp_path / "copy"))) == page


def test_without_pii_the_page_says_so(run_folder: Path) -> None:
    assert "has not run, so nobody has looked for personal data" in Path(write_report(str(run_folder))).read_text()


def rewrite(folder: Path, change: Any) -> None:
    """Every report shard of the filter stage, changed."""
    for shard in sorted((folder / "filter" / "report").iterdir()):
        pq.write_table(change(pq.read_table(shard)), shard)


def test_zero_documents_kept(random_run: Path, tmp_path: Path) -> None:
    shutil.copytree(random_run, tmp_path / "run")

    def drop(table: pa.Table) -> pa.Table:
        """Documents without words, which all are short."""
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
    assert checked(tmp_path / "run") == {}


def test_ten_thousand_hostile_rules(random_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ROWS", 500)  # many batches, each with other rules
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
    assert "more rules" in page and "pairs are counted among the first of them" in page and "every count that is shown is exact" in page
    assert len(page.encode()) < 15e6 and "<b onmouseover" not in page and "\x1b" not in page and "‮" not in page
    assert checked(tmp_path / "run").keys() <= {"origin-source"}  # the stage's documents, left as they were, are not those of this report


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
    changes = summary.decisions["filter"].changes["ratio"]
    with browser() as chromium, opened(chromium, f"file://{random_run}/report.html") as seen:
        slider = seen.page.locator(".slider", has=seen.page.get_by_label("Threshold of ratio", exact=True))
        assert "now" in slider.locator("output").inner_text() and slider.locator("code").inner_text() == ""
        slider.locator("input").focus()
        seen.page.keyboard.press("Home")
        first = changes.change(0)
        said = slider.locator("output").inner_text()
        assert f"{first.documents:,} documents" in said and f"−{-first.more:,}" in said and f"{first.characters:,} characters" in said
        assert slider.locator("code").inner_text() == f"filter.thresholds.ratio={first.threshold}"
        assert slider.locator("input").get_attribute("aria-valuetext") == said
        figure = seen.page.locator("figure", has=slider)
        figure.locator(".main-svg").first.wait_for()
        seen.page.keyboard.press("End")
        last = changes.change(len(changes.thresholds) - 1).threshold
        places = slider.evaluate("slider => slider.closest('figure').querySelector('.chart').layout.shapes.map(shape => shape.x0)")
        assert last in places and figure.locator(".annotation-text", has_text=f">= {last:g}").count() == 1
        assert not seen.console
        told = json.loads(slider.get_attribute("data-changes"))
        assert told["documents"] == changes.documents.tolist()
