"""Tests lines and ranges of lines, and lines that are no documents."""

import gzip
import io
import json
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import read_lines
from corpusmill.ingest.inputs import line_starts
from corpusmill.pipeline.formats.streams import Window, split_lines
from corpusmill.pipeline.schemas import document_id

CONFIG = IngestConfig()


def rows(content: bytes, layout: str = "plain", config: IngestConfig = CONFIG) -> list:
    return [work.row() for work in read_lines("file.jsonl", io.BytesIO(content), "jsonl", layout, 0, len(content), config)]


@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=12), st.booleans(), st.integers(1, 40))
def test_ranges_cut_at_line_ends_lose_and_double_nothing(lines: list[bytes], ended: bool, step: int) -> None:
    content = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    places = line_starts(io.BytesIO(content), len(content), step)
    assert places[0] == 0 and places[-1] == len(content) and places == sorted(set(places))
    assert all(content[place - 1 : place] == b"\n" for place in places[1:-1])
    cut = [line for a, b in pairwise(places) for line in split_lines(Window(io.BytesIO(content[a:b]), a), 100)]
    assert cut == list(split_lines(Window(io.BytesIO(content)), 100))
    assert b"".join(line.content for line in cut) == content
    assert [line.offset for line in cut] == [sum(x.length for x in cut[:n]) for n in range(len(cut))]


def test_a_good_line_becomes_a_document() -> None:
    line = json.dumps(
        {"text": "Some text\nof two lines", "url": "http://x.test/", "title": "T", "timestamp": "2024", "b": [1, 2.5], "a": {"z": None}}
    )
    (row,) = rows(line.encode() + b"\n")
    assert (row.text, row.url, row.title, row.timestamp, row.kept) == ("Some text\nof two lines", "http://x.test/", "T", "2024", True)
    assert row.metadata == '{"a":{"z":null},"b":[1,2.5]}'
    assert row.id == document_id("http://x.test/", b"Some text\nof two lines")
    assert (row.offset, row.length, row.chars_in, row.chars_out) == (0, len(line) + 1, 22, 22)


def test_where_datatrove_and_dolma_write_addresses() -> None:
    (row,) = rows(b'{"text": "x", "id": "doc/7", "metadata": {"url": "http://x.test/", "title": "T"}}')
    assert (row.url, row.title) == ("http://x.test/", "T")
    assert json.loads(row.metadata) == {"id": "doc/7", "metadata": {"url": "http://x.test/", "title": "T"}}
    (row,) = rows(b'{"text": "x", "id": 7}')
    assert (row.url, row.id) == (None, document_id("7", b"x"))


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"no json", "not_json"),
        (b"[1, 2]", "not_json"),
        (b'{"a": ' + b"[" * 100_000, "not_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not_json"),
        (b"{}", "no_text"),
        (b'{"text": 5}', "no_text"),
        (b'{"text": "caf\xe9"}', "invalid_utf8"),
        (b'{"text": " \\n"}', "empty_text"),
        (b'{"text": "\\u0000"}', "empty_text"),
    ],
)
def test_bad_lines_are_rows_and_their_neighbours_go_on(line: bytes, rule: str) -> None:
    content = b'{"text": "before"}\n' + line + b'\n\n{"text": "after"}'
    found = rows(content)
    assert [row.failed for row in found] == [[], [rule], []]
    assert (found[1].offset, found[1].length) == (19, len(line) + 1) and found[1].reason
    assert found[2].text == "after"


def test_odd_but_good_lines() -> None:
    (row,) = rows(b'\xef\xbb\xbf{"text": "a\\u0000b\\ud83dc\\ud83d\\ude00", "n": NaN, "big": 1e999, "s": "\\udc00"}\r\n')
    assert row.text == "abc\U0001f600"
    assert json.loads(row.metadata) == {"big": None, "s": ""}


def test_limits() -> None:
    config = IngestConfig.model_validate({"extraction": {"max_record_mb": 1, "minimum_chars": 5}})
    found = rows(b'{"text": "%s"}\n{"text": "four"}\n{"text": "fives"}' % (b"a" * (1 << 20)), config=config)
    assert [row.failed for row in found] == [["too_large"], ["too_short"], []]


@pytest.mark.parametrize("layout", ["gzip", "zstd"])
def test_a_cut_compressed_file_gives_its_whole_lines_and_one_row_for_the_rest(layout: str) -> None:
    plain = b"".join(b'{"text": "document number %d of many"}\n' % n for n in range(8_000))
    content = gzip.compress(plain) if layout == "gzip" else zstandard.ZstdCompressor().compress(plain)
    assert [row.text for row in rows(content, layout)] == [row.text for row in rows(plain)]
    found = rows(content[: len(content) * 2 // 3], layout)
    assert found[-1].failed == ["truncated"] and all(row.kept for row in found[:-1])
    assert len(found) > 2_000 and found[-1].offset == sum(row.length for row in found[:-1])
