"""What the segments of a piece hold, record by record: each is read first, and looked into as a step of its own."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from corpusmill.pipeline.ingest.config import IngestConfig
from corpusmill.pipeline.ingest.files import open_file
from corpusmill.pipeline.ingest.jsonl import read_jsonl
from corpusmill.pipeline.ingest.pages import MIB, gap_row, record_row, unread_row
from corpusmill.pipeline.ingest.parquet import read_groups
from corpusmill.pipeline.ingest.rows import Row, Work
from corpusmill.pipeline.ingest.splitting import Segment
from corpusmill.pipeline.ingest.walk import Gap
from corpusmill.pipeline.ingest.warc import read_records
from corpusmill.pipeline.schemas import document_id


class SegmentReader:
    """Reads segments; it lives in the process that may be killed (`reader.py`). `params` are the worker's."""

    def __init__(self, config: IngestConfig, params: dict[str, Any]):
        self.config = config
        self.params = params

    def setup(self) -> None:
        """Loads what all segments need: called once a process."""

    def works(self, path: str, size: int, segment: Segment, by_hand: bool) -> Iterator[Work]:
        """The records of a segment of a file of `size` bytes, in order. `by_hand`: without the native code that usually finds them."""
        if segment.format == "refused":
            row = Row(document_id(path, b""), path, None, None, "file", size)
            yield Work.of(row.fail(segment.rule, segment.reason))
            return
        with open_file(path) as file:
            if segment.format == "jsonl":
                yield from read_jsonl(path, file, segment.layout, segment.start, segment.end, self.config)
            elif segment.format == "parquet":
                yield from read_groups(path, file, segment.start, segment.end, self.config)
            else:
                limit = self.config.extraction.max_record_mb * MIB
                for part in read_records(file, segment.layout, segment.start, segment.end, limit, by_hand):
                    if isinstance(part, Gap):
                        yield Work.of(gap_row(path, part))
                    else:
                        yield Work(partial(record_row, path, part, self.config), partial(unread_row, path, part))


def rest_row(path: str, segment: Segment, last: Row | None) -> Row:
    """What of a segment can't be read, behind the `last` record that could."""
    offset = length = None
    if last is not None and last.offset is not None:
        offset = last.offset + (last.length or 1)
    elif segment.format != "parquet":
        offset = segment.start
    if segment.layout in ("plain", "members") and segment.format != "parquet" and offset is not None:
        length = segment.end - offset
    return Row(document_id(f"{path}#{offset}", b""), path, offset, length, "damage", length or 0)
