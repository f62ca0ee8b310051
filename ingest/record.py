"""A record again, from where the documents and reports say that it lies."""

import io
from collections.abc import Iterator
from typing import IO

from corpusmill.ingest.fields import jsonable
from corpusmill.ingest.frames import FRAMED, examine
from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import file_ref, open_file
from corpusmill.pipeline.formats.compressed import CODECS, Inflating, codec_of, inflating
from corpusmill.pipeline.formats.detect import InputFile
from corpusmill.pipeline.formats.parquet import open_parquet
from corpusmill.pipeline.formats.streams import Window

#: Bytes that are read at a time.
CHUNK = 1 << 20


def read_record(source: str, offset: int | None, length: int | None, limit: int = 1 << 30) -> bytes:
    """The bytes of a record as the crawl has them, decompressed: a WARC or ARC record with its headers, a line of JSONL, a
    row of Parquet as JSON. Where several records lie in one compressed frame, all of them.

    Raises InputError where the file is gone, is not what it was, has no such place, or `limit` bytes are not enough.
    """
    found = examine(file_ref(source))
    if not isinstance(found, InputFile) or offset is None:
        raise InputError(f"{source}: it holds no record that could be shown again.")
    if found.format == "parquet":
        return _parquet_row(source, offset)
    if length is None:
        raise InputError(f"{source}: a record at byte {offset} needs its length to be shown again.")
    with open_file(source) as file:
        if found.layout in CODECS:
            window = Window(inflating(file, found.layout))
            window.skip(offset)
            content = window.take(length)
            complete = len(content) == length
        else:
            file.seek(offset)
            content = file.read(length)
            complete = len(content) == length
            if found.layout.endswith(FRAMED):
                codec = codec_of(file, found.layout.removesuffix(FRAMED))
                content = _up_to(Inflating(io.BytesIO(content), codec), limit + 1)
    if len(content) > limit:
        raise InputError(f"{source}: the record at byte {offset} has more than {limit} bytes, too many to be shown.")
    if not complete:
        raise InputError(f"{source}: it ends before byte {offset + length}; it is not the file that was ingested.")
    return content


def read_stretch(source: str, offset: int, length: int) -> Iterator[bytes]:
    """The bytes of a damaged stretch of a file, in chunks: as they lie there, or, where the file is one compressed stream,
    what it still gives. Raises InputError where the file is gone or has no such stretch."""
    found = examine(file_ref(source))
    if not isinstance(found, InputFile) or found.format == "parquet":
        raise InputError(f"{source}: what is damaged there can't be shown by itself.")
    with open_file(source) as file:
        if found.layout in CODECS:
            window = Window(inflating(file, found.layout))
            window.skip(offset)
        else:
            file.seek(offset)
            window = Window(file)
        while length and (chunk := window.take(min(length, CHUNK))):
            length -= len(chunk)
            yield chunk


def _up_to(stream: IO[bytes] | Inflating, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _parquet_row(source: str, number: int) -> bytes:
    with open_file(source) as file:
        parquet = open_parquet(source, file)
        first = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if number < first + rows:
                (row,) = parquet.read_row_group(group, use_threads=False).slice(number - first, 1).to_pylist()
                return canonical_json(jsonable(row)).encode("utf-8", "surrogatepass")
            first += rows
    raise InputError(f"{source}: it has no row {number}; it is not the file that was ingested.")
