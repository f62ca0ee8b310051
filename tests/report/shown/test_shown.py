"""Every number of the page has a query that gives it again: as the page was made, and as it was written."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from printed_queries import Printed, is_shown, not_given

from corpusmill.report.page.html import render, render_body
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.query.sql import aliases, column, field, literal
from corpusmill.report.shown.check import check, check_report, same, sentences, verdict
from corpusmill.report.shown.shown import Shown, shown

Command = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="module")
def html(run_folder: Path) -> str:
    return render(read_summary(str(run_folder)))


@pytest.fixture(scope="module")
def every(run_folder: Path) -> list[Shown]:
    return list(render_body(read_summary(str(run_folder)))[1].queries.values())


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return open_run(str(run_folder))


def test_the_queries_give_what_the_page_was_made_of(run: Run, every: list[Shown]) -> None:
    all_checked = list(check(run, every))
    assert [sentences(checked) for checked in all_checked if not checked.good] == []
    numbers = sum(each.numbers for each in every)
    assert numbers > 500 and verdict(all_checked) == f"{numbers:,} numbers in {len(every)} tables and charts are what their queries give."
    assert "nothing to check" in verdict([])


def test_what_is_printed_is_what_was_checked(html: str, every: list[Shown]) -> None:
    assert Printed(html).sql == {each.id: each.sql for each in every}


def test_all_that_the_written_page_shows_is_in_its_queries(run_folder: Path, html: str) -> None:
    assert not_given(str(run_folder), html) == []


def test_a_wrong_number_is_found_wherever_it_stands(run: Run, every: list[Shown]) -> None:
    """One number of each query is made wrong by its last digit."""
    for each in every:
        places = [(r, c) for r, row in enumerate(each.rows) for c, value in enumerate(row) if type(value) in (int, float)]
        if not places:
            continue
        r, c = places[len(places) // 2]
        rows = [list(row) for row in each.rows]
        value: Any = rows[r][c]
        rows[r][c] = value + 1 if isinstance(value, int) else value * (1 + 1e-6) + 1e-6
        (checked,) = check(run, [replace(each, rows=tuple(map(tuple, rows)))])
        assert len(checked.differences) == 1 and f"row {r + 1:,} " in checked.differences[0] and each.columns[c] in checked.differences[0]


def test_rows_too_many_and_columns_of_another_name_are_found(run: Run) -> None:
    counted = shown("x", "Stages", "SELECT stage, count(*) AS rules FROM rules GROUP BY stage", ("stage", "rules"), [("filter", 4)])
    assert [c.differences for c in check(run, [counted])] == [()]
    more, named = replace(counted, rows=(*counted.rows, ("ingest", 1))), replace(counted, columns=("stage", "count"))
    assert [c.differences[0] for c in check(run, [more, named])] == [
        "the page has 2 rows, the query gives 1",
        "the page has the columns stage, count, the query gives stage, rules",
    ]
    (broken,) = check(run, [replace(counted, sql="SELECT nothing FROM nowhere")])
    assert not broken.good and "nowhere" in broken.failed


def test_the_command_says_what_differs(run_folder: Path, tmp_path: Path, corpusmill: Command) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    path = tmp_path / "run" / "tokens" / "train" / "shards.json"
    text = path.read_text()
    path.write_text(re.sub(r'("documents": )\d+', r"\g<1>1000", text))
    code, out, _ = corpusmill("report", tmp_path / "run", "--check")
    lines = out.decode().splitlines()
    assert code == 1 and re.fullmatch(r"\d of the page's tables and charts (is|are) not what .* quer(y|ies) gives?\.", lines[-1])
    assert (
        "  row 1 (train), documents: the page has 1000, the query gives 38" in lines and "clusters: Clusters and copies: 5 numbers" in lines
    )


@given(st.text(max_size=40))
def test_a_text_in_sql_is_that_text_and_prints_as_it_is(text: str) -> None:
    import duckdb

    if "\0" in text:
        return  # no text of DuckDB holds it
    made = literal(text)
    assert duckdb.sql(f"SELECT {made}").fetchall() == [(text,)]
    assert not re.search("[^\x20-\x7e\xa0-\u05ff]", made)


@pytest.mark.parametrize("name", ["quality", "end", "with space", 'a "quoted" name', "Ünïcode", "select"])
def test_a_column_of_any_name_can_be_asked_for(name: str) -> None:
    import duckdb

    quoted = '"' + name.replace('"', '""') + '"'
    assert duckdb.sql(f"SELECT {column(name)} FROM (SELECT 1 AS {quoted})").fetchall() == [(1,)]
    assert duckdb.sql(f"SELECT 1 AS {aliases([name])[0]}").fetchall() == [(1,)]


@pytest.mark.parametrize("name", ["loss", "$.a", "/a/b~c", "a.b", ""])
def test_a_field_of_any_name_can_be_asked_for(name: str) -> None:
    import json

    import duckdb

    content = literal(json.dumps({"x": 1, name: 2.5}))
    assert duckdb.sql(f"SELECT ({content}::JSON->>{field(name)})::DOUBLE").fetchall() == [(2.5,)]


def test_numbers_are_equal_to_their_last_digits_and_true_is_no_number() -> None:
    assert same(0.1 + 0.2, 0.3) and same(3, 3.0) and same(float("nan"), float("nan")) and same(None, None) and same("a", "a")
    assert not same(1.0, 1.0 + 1e-8) and not same(10**17, 10**17 + 1) and not same(True, 1) and not same(0, None) and not same("1", 1)


def test_printed_numbers_are_those_of_a_query() -> None:
    assert (
        is_shown("1,235", [1234.6]) and is_shown("12.3", [0.1234]) and is_shown("5.12e+07", [51_234_567.0]) and is_shown("49", ["0 to 49"])
    )
    assert not is_shown("1,236", [1234.6]) and not is_shown("12.4", [0.1234]) and not is_shown("1", [True])


def test_damage_is_named_in_place_of_differences(tmp_path: Path, builder: Any) -> None:
    """A file that can't be opened is left out by page and queries alike; of one with a damaged row group the page counts the others."""
    builder(tmp_path / "run")
    shard = tmp_path / "run" / "filter" / "report" / "part-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    every = {checked.shown.name: checked for checked in check_report(str(tmp_path / "run"))}
    assert every["filter-rules"].good and every["funnel"].good and not any(each.differences or each.failed for each in every.values())
    shard.write_bytes(whole)
    pq.write_table(pq.read_table(shard), shard, row_group_size=10, compression="zstd", use_dictionary=False)
    group = pq.ParquetFile(shard).metadata.row_group(1)
    spoiled = bytearray(shard.read_bytes())
    for number in range(group.num_columns):
        begin, size = group.column(number).data_page_offset, group.column(number).total_compressed_size
        spoiled[begin : begin + size] = bytes(size)
    shard.write_bytes(spoiled)
    bad = [checked for checked in check_report(str(tmp_path / "run")) if not checked.good]
    assert "filter-rules" in {checked.shown.name for checked in bad}
    assert {checked.damaged for checked in bad} == {f"{shard}: row group 1 can't be read"}
    assert all(f"not compared, as the stage is damaged: {shard}" in sentences(checked)[0] for checked in bad)
