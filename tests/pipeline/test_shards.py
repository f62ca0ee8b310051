"""Tests shards: equal tables give equal bytes, and the recorded hash is the file's."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import (
    ROW_GROUP_ROWS,
    ParquetBuffer,
    content_bytes,
    in_parquet,
    iter_tables,
    publish,
    read_table,
)
from corpusmill.pipeline.storage import Storage


def documents(rows: int) -> pa.Table:
    return pa.table(
        {
            "id": [document_id(f"http://x.test/{i}", b"x") for i in range(rows)],
            "url": [f"http://x.test/{i}" for i in range(rows)],
            "timestamp": ["2026-01-01T00:00:00Z"] * rows,
            "source": ["x.warc.gz"] * rows,
            "offset": list(range(rows)),
            "length": [1] * rows,
            "text": [f"text {i}" for i in range(rows)],
            **{name: [None] * rows for name in ("title", "author", "date", "canonical_url", "metadata")},
        },
        schema=DOCUMENTS,
    )


def test_damage_behind_an_intact_footer_is_one_sentence(tmp_path):
    storage = Storage(str(tmp_path))
    publish(storage, "a", documents(ROW_GROUP_ROWS + 5))
    begin = pq.read_metadata(tmp_path / "a").row_group(1).column(0).data_page_offset
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[:begin] + bytes(60) + content[begin + 60 :])
    with pytest.raises(InputError, match="/a: not a readable Parquet file"):
        read_table(storage, "a")
    tables = iter_tables(storage, "a")
    assert next(tables).num_rows == ROW_GROUP_ROWS
    with pytest.raises(InputError, match="/a: not a readable Parquet file"):
        next(tables)


def test_rows_that_come_in_any_tables_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpusmill.pipeline.shards.ROW_GROUP_BYTES", 20_000)
    table, chance = documents(2 * ROW_GROUP_ROWS), random.Random(1)
    files = []
    for _ in range(3):
        file = ParquetBuffer(table.schema)
        begin = 0
        while begin < table.num_rows:
            end = begin + chance.randrange(1, 1000)
            file.add(table.slice(begin, end - begin))
            begin = end
        files.append(b"".join(file.close()))
    assert files[0] == files[1] == files[2] == in_parquet(table)
    read = pq.ParquetFile(pa.BufferReader(files[0]))
    sizes = [sum(content_bytes(read.read_row_group(group))) for group in range(read.num_row_groups)]
    assert read.read().equals(table) and len(sizes) == 4 and max(sizes) < 20_020 and min(sizes[:-1]) >= 20_000
