"""Tests that the query next to each number of the page gives that number."""

from pathlib import Path

import pytest
from printed_queries import Printed, not_given

from corpusmill.report.page.html import render, render_body
from corpusmill.report.queries.ask import Query
from corpusmill.report.queries.summary import read_summary
from corpusmill.report.query.run import open_run


@pytest.fixture(scope="module")
def html(run_folder: Path) -> str:
    return render(read_summary(str(run_folder)))


@pytest.fixture(scope="module")
def every(run_folder: Path) -> list[Query]:
    return list(render_body(read_summary(str(run_folder)))[1].queries.values())


def test_the_queries_run_again_and_give_the_same(run_folder: Path, every: list[Query]) -> None:
    assert len(every) > 40
    with open_run(str(run_folder)) as run:
        for query in every:
            found = run.sql(query.sql)
            rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
            assert not query.rows or rows == query.rows, query.name


def test_what_is_printed_is_what_computed(html: str, every: list[Query]) -> None:
    assert Printed(html).sql == {each.id: each.sql for each in every}


def test_all_that_the_written_page_shows_is_in_its_queries(run_folder: Path, html: str) -> None:
    assert not_given(str(run_folder), html) == []
