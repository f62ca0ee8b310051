"""Tests words of SQL: the printed query is the one that runs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.report.query.sql import column, literal


@given(st.text(max_size=40))
def test_a_text_in_sql_is_that_text_and_prints_as_it_is(text: str) -> None:
    import duckdb

    if "\0" in text:
        return  # no text of DuckDB holds it
    made = literal(text)
    assert duckdb.sql(f"SELECT {made}").fetchall() == [(text,)]
    assert not re.search("[^\x20-\x7e\xa0-\u05ff]", made)


@pytest.mark.parametrize("name", ["quality", "select", 'a "quoted" name', "Ünïcode"])
def test_a_column_of_any_name_can_be_asked_for(name: str) -> None:
    import duckdb

    quoted = '"' + name.replace('"', '""') + '"'
    assert duckdb.sql(f"SELECT {column(name)} FROM (SELECT 1 AS {quoted})").fetchall() == [(1,)]
