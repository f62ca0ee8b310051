"""Tests rows of CSV and TSV against Python's own reader of whole files, and rows that are damaged."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import read_lines
from corpusmill.pipeline.formats.delimited import split_rows
from corpusmill.pipeline.formats.streams import Window
from corpusmill.pipeline.schemas import document_id


def rows(content: bytes, name: str = "file.csv", layout: str = "plain", config: IngestConfig | None = None) -> list:
    size = len(content)
    return [work.row() for work in read_lines(name, io.BytesIO(content), "csv", layout, 0, size, config or IngestConfig())]


FIELDS = st.text(st.sampled_from('aé\n\r",;\t '), max_size=6)


@given(st.lists(st.lists(FIELDS, min_size=2, max_size=2), max_size=6), st.sampled_from(["\n", "\r\n"]), st.sampled_from(",\t"))
def test_fields_are_those_of_python_and_places_those_of_the_file(table: list[list[str]], end: str, delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *table])
    content = text.getvalue().encode()
    found = list(split_rows("file.tsv" if delimiter == "\t" else "file.csv", Window(io.BytesIO(content)), 1 << 20))
    theirs = list(csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter))
    assert [[field.encode("latin-1").decode() for field in row.fields] for row in found] == theirs == [["id", "text"], *table]
    assert b"".join(content[row.offset : row.offset + row.length] for row in found) == content


def test_columns_become_those_of_a_document() -> None:
    head = "\ufefftext;link;title;author;date;n;none\r\n"
    (row,) = rows(
        (head + '"two ""quoted""\nlines";http://x.test/;T;A;2024-05-01;7;\r\n').encode(),
        config=IngestConfig.model_validate({"url_key": "link"}),
    )
    assert row.text == 'two "quoted"\nlines' and json.loads(row.metadata) == {"n": "7"} and row.kept
    assert (row.url, row.title, row.author, row.date) == ("http://x.test/", "T", "A", "2024-05-01")
    assert (row.record_type, row.offset, row.id) == ("row", len(head.encode()), document_id("http://x.test/", row.text.encode()))
    (row,) = rows("id,text\n1,Größe und Maß für Öfen\n".encode("latin-1"))
    assert (row.text, row.encoding) == ("Größe und Maß für Öfen", "windows-1252")


def test_damaged_rows_are_report_rows_and_their_neighbours_go_on() -> None:
    lines = ["id,text", "1,one", "2,two,three", '3,"three', '4,"fo"ur', "5,five", "6", '7,"seven']
    found = rows("\n".join(lines).encode())
    assert [(row.text, row.failed) for row in found] == [
        ("one", []), ("", ["not_csv"]), ("", ["not_csv"]), ("", ["not_csv"]), ("five", []), ("", ["not_csv"]), ("", ["not_csv"]),
    ]  # fmt: skip
    assert [row.offset for row in found] == [sum(len(line) + 1 for line in lines[: number + 1]) for number in range(7)]
    assert "a quote is not closed" in found[-1].reason and "3 fields, and the first line has 2" in found[1].reason


@pytest.mark.parametrize("ending", [b"", b'"never closed\n'])
def test_a_long_row_and_a_cut_file_cost_themselves_alone(ending: bytes) -> None:
    config = IngestConfig.model_validate({"extraction": {"max_record_mb": 1}})
    plain = b"text\n" + b"a" * (1 << 21) + b"\n" + b"".join(b'"row %d,\nof two lines"\n' % n for n in range(3_000)) + ending
    found = rows(plain, config=config)
    assert [row.failed for row in found if not row.kept] == [["too_large"], *([["not_csv"]] if ending else [])]
    zipped = rows(gzip.compress(plain), "file.csv.gz", "gzip", config)
    assert len(found) == 3_001 + bool(ending) and [(r.text, r.offset) for r in zipped] == [(r.text, r.offset) for r in found]
    cut = rows(gzip.compress(plain)[:-2_000], "file.csv.gz", "gzip", config)
    assert cut[-1].failed == ["truncated"] and 1_000 < len(cut) < 3_001
