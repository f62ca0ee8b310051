"""Opens Parquet files of users, and checks their text column."""

from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.errors import InputError

#: Bytes of a column that are read at a time. Without this limit Arrow reads the whole column of a row group into memory.
BUFFER = 1 << 20


def open_parquet(path: str, file: IO[bytes]) -> pq.ParquetFile:
    """Opens a Parquet file. Raises InputError if its footer can't be read."""
    try:
        return pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0].rstrip('.')}).") from error


def text_fault(path: str, parquet: pq.ParquetFile, key: str) -> str:
    """Returns a sentence where the text column `key` is missing or holds no text; else an empty string."""
    schema = parquet.schema_arrow
    if key not in schema.names:
        return f"{path}: no column {key!r} (ingest.text_key); it has {', '.join(schema.names) or 'none'}; --set ingest.text_key=NAME."
    if not is_text(schema.field(key).type):
        return f"{path}: column {key!r} (ingest.text_key) holds {schema.field(key).type}, not text."
    return ""


def is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def group_bytes(parquet: pq.ParquetFile) -> list[int]:
    """Returns the compressed bytes of each row group."""
    metadata = parquet.metadata
    return [
        sum(metadata.row_group(group).column(column).total_compressed_size for column in range(metadata.num_columns))
        for group in range(metadata.num_row_groups)
    ]
