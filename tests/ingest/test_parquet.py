"""Tests rows of Parquet, by row groups."""

import datetime
import io
import json
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.formats import read_groups
from corpusmill.pipeline.formats.parquet import group_bytes, open_parquet
from corpusmill.pipeline.schemas import document_id

CONFIG = IngestConfig()


def written(table: pa.Table, group: int = 3) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=group)
    return out.getvalue()


def rows(content: bytes, start: int = 0, end: int | None = None) -> list:
    groups = open_parquet("f.parquet", io.BytesIO(content)).metadata.num_row_groups
    return [
        work.row() for work in read_groups("f.parquet", io.BytesIO(content), start, groups if end is None else end, CONFIG, lambda: None)
    ]


def test_rows_become_documents_with_their_number_as_offset() -> None:
    day = datetime.datetime(2024, 5, 1, 12)
    table = pa.table(
        {"text": [f"text {n}" for n in range(10)], "url": [f"u{n}" for n in range(10)], "day": [day] * 10, "raw": [b"\xff"] * 10}
    )
    content = written(table)
    found = rows(content)
    assert [row.text for row in found] == table["text"].to_pylist()
    assert [(row.offset, row.length) for row in found] == [(n, None) for n in range(10)]
    assert found[3].id == document_id("u3", b"text 3")
    assert json.loads(found[0].metadata) == {"day": "2024-05-01T12:00:00", "raw": "/w=="}
    assert rows(content, 0, 2) + rows(content, 2, 3) + rows(content, 3) == found
    assert len(group_bytes(open_parquet("f", io.BytesIO(content)))) == 4


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_nulls_empty_texts_and_text_types(kind: pa.DataType) -> None:
    found = rows(written(pa.table({"text": pa.array(["a", None, "", "b"], pa.string()).cast(kind)})))
    assert [row.failed for row in found] == [[], ["no_text"], ["empty_text"], []]


def test_text_that_is_not_utf8_is_a_row() -> None:
    buffers = pa.array([b"good", b"caf\xe9", b"also good"], pa.binary()).buffers()
    bad = pa.Array.from_buffers(pa.string(), 3, buffers)
    found = rows(written(pa.table({"text": bad})))
    assert [row.failed for row in found] == [[], ["invalid_utf8"], []]
    assert found[2].text == "also good"


def test_memory_does_not_grow_with_a_row_group() -> None:
    """Adds the peaks of Arrow's and of Python's own memory."""
    peaks, chance = [], random.Random(1)
    before = pa.default_memory_pool()
    for count in (2000, 10_000):
        content = written(pa.table({"text": [chance.randbytes(1000).hex() for _ in range(count)]}), count)
        pool = pa.proxy_memory_pool(before)
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_groups("f.parquet", io.BytesIO(content), 0, 1, CONFIG, lambda: None)) == count
            peaks.append(pool.max_memory() + tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)
    assert peaks[0] > 1 << 20 and peaks[1] < peaks[0] + (1 << 20)  # for 16 MB more text


def test_a_damaged_row_group_costs_only_itself() -> None:
    table = pa.table({"text": [f"{n} " + "text " * 50 for n in range(9)]})
    content = bytearray(written(table))
    column = pq.ParquetFile(io.BytesIO(bytes(content))).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    found = rows(bytes(content))
    assert [row.failed for row in found] == [[]] * 3 + [["corrupt"]] + [[]] * 3
    assert "row group 1" in found[3].reason and [row.offset for row in found] == [0, 1, 2, 3, 6, 7, 8]
