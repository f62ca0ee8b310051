"""Parquet: pieces by row groups, and a row for every row."""

from collections.abc import Iterator
from functools import partial
from typing import IO, Any

import pyarrow as pa

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.fields import fill_row
from corpusmill.ingest.pages import gap_row
from corpusmill.ingest.rows import GivenUp, Row, Work
from corpusmill.ingest.walk import Gap
from corpusmill.pipeline.formats.parquet import is_text, open_parquet
from corpusmill.pipeline.schemas import document_id

#: Rows turned into Python values at a time.
BATCH_ROWS = 256


def read_groups(source: str, file: IO[bytes], start: int, end: int, config: IngestConfig, given_up: GivenUp) -> Iterator[Work]:
    """A row for every row of the row groups `[start, end)`; `offset` is the row's number in the file.

    What is left of a row group that can't be read is one row.
    """
    parquet = open_parquet(source, file)
    number = sum(parquet.metadata.row_group(group).num_rows for group in range(start))
    for group in range(start, end):
        after = number + parquet.metadata.row_group(group).num_rows
        reason: list[str] | None = None
        try:
            batches = parquet.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
            while number < after and not (reason := given_up()):
                if (batch := next(batches, None)) is None:
                    break
                for fields in _rows(batch):
                    yield Work(partial(_row, source, number, fields, config), partial(_unread_row, source, number))
                    number += 1
            if reason:
                yield Work.of(
                    gap_row(source, Gap(number, after - number, reason[0], f"row group {group} from row {number} on: {reason[1]}"))
                )
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            damage = f"row group {group} is damaged from row {number} on: {after - number} rows ({str(error).splitlines()[0][:200]})"
            yield Work.of(gap_row(source, Gap(number, after - number, "corrupt", damage)))
        number = after


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = {name: _values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
    for place in range(batch.num_rows):
        yield {name: values[place] for name, values in columns.items()}


def _values(column: pa.Array) -> list[Any]:
    """Python values; text that is not UTF-8, which Parquet does not check, comes as bytes."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if not is_text(column.type):
            return [None] * len(column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return value.decode() if value is not None else None
    except UnicodeDecodeError:
        return value


def _unread_row(source: str, number: int) -> Row:
    return Row(document_id(f"{source}#{number}", b""), source, number, None, "row", 0)


def _row(source: str, number: int, fields: dict[str, Any], config: IngestConfig) -> Row:
    text = fields.get(config.text_key)
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text or b"")
    row = Row("", source, number, None, "row", size)
    if isinstance(text, bytes):
        row.id = document_id(f"{source}#{number}", text)
        return row.fail("invalid_utf8", "the text is not UTF-8")
    if size > config.extraction.max_record_mb << 20:
        row.id = document_id(f"{source}#{number}", b"")
        return row.fail("too_large", f"the text has {size} bytes, more than extraction.max_record_mb")
    return fill_row(row, fields, config)
