"""A record again, from where the documents and reports say that it lies."""

from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.ingest.fields import jsonable
from corpusmill.pipeline.ingest.files import file_ref, open_file
from corpusmill.pipeline.ingest.formats import Source, examine
from corpusmill.pipeline.ingest.inflate import GzipStream, inflating
from corpusmill.pipeline.ingest.parquet import open_groups
from corpusmill.pipeline.ingest.window import Window


def read_record(source: str, offset: int | None, length: int | None) -> bytes:
    """The bytes of a record as the crawl has them, decompressed: a WARC record with its headers, a line of JSONL, a
    row of Parquet as JSON.

    Raises InputError where the file is gone, is not what it was, or has no such place.
    """
    found = examine(file_ref(source))
    if not isinstance(found, Source) or offset is None:
        raise InputError(f"{source}: it holds no record that could be shown again.")
    if found.format == "parquet":
        return _parquet_row(source, offset)
    if length is None:
        raise InputError(f"{source}: a record at byte {offset} needs its length to be shown again.")
    with open_file(source) as file:
        if found.layout in ("gzip", "zstd"):
            window = Window(inflating(file, found.layout))
            window.skip(offset)
            content = window.take(length)
            complete = len(content) == length
        else:
            file.seek(offset)
            content = file.read(length)
            complete = len(content) == length
            if found.layout == "members":
                content = GzipStream(_Part(content)).read()  # type: ignore[arg-type]
    if not complete:
        raise InputError(f"{source}: it ends before byte {offset + length}; it is not the file that was ingested.")
    return content


class _Part:
    def __init__(self, content: bytes):
        self.content = content

    def read(self, size: int, /) -> bytes:
        part, self.content = self.content[:size], self.content[size:]
        return part


def _parquet_row(source: str, number: int) -> bytes:
    with open_file(source) as file:
        parquet = open_groups(source, file)
        first = 0
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if number < first + rows:
                (row,) = parquet.read_row_group(group, use_threads=False).slice(number - first, 1).to_pylist()
                return canonical_json(jsonable(row)).encode("utf-8", "surrogatepass")
            first += rows
    raise InputError(f"{source}: it has no row {number}; it is not the file that was ingested.")
