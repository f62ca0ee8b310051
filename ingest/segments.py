"""What the segments of a piece hold, record by record: each is read first, and looked into as a step of its own."""

from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.extraction import warm_up
from corpusmill.ingest.jsonl import read_jsonl
from corpusmill.ingest.pages import MIB, gap_row, record_row, unread_row
from corpusmill.ingest.parquet import read_groups
from corpusmill.ingest.records import Record
from corpusmill.ingest.rows import GivenUp, Row, Work
from corpusmill.ingest.single import TYPES, read_single
from corpusmill.ingest.splitting import Segment
from corpusmill.ingest.url_filter import UrlFilter, check_url, make_url_filter
from corpusmill.ingest.walk import Gap
from corpusmill.ingest.warc import CUTTABLE, read_records
from corpusmill.ingest.wat import WatIndex
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.schemas import document_id
from corpusmill.pipeline.storage import Storage


class SegmentReader:
    """Reads segments; it lives in the process that may be killed (`reader.py`). `params` are the worker's."""

    def __init__(self, config: IngestConfig, params: dict[str, Any]):
        self.config = config
        self.params = params
        self.urls: UrlFilter | None = None
        self.wat: tuple[str, WatIndex] | None = None

    def setup(self) -> None:
        """Loads what all segments need: called once a process, so that no page is charged with it."""
        if self.params.get("pages", True):
            warm_up(self.config.extraction)
        if self.config.url_filter is not None:
            self.urls = make_url_filter(self.config.url_filter)
            self.urls.setup(self.params["url_filter"]["lists"])

    def works(self, path: str, size: int, segment: Segment, by_hand: bool = False, given_up: GivenUp = lambda: None) -> Iterator[Work]:
        """The records of a segment of a file of `size` bytes, in order. `by_hand`: without the native code that usually
        finds them. What can't be read is a row: the rest of a row group of Parquet, and of anything else the rest of the segment."""
        works = self._works(path, size, segment, by_hand, given_up)
        last: Work | None = None
        while segment.format == "parquet" or not (reason := given_up()):
            if (work := next(works, None)) is None:
                return
            yield work
            last = work
        yield Work.of(rest_row(path, segment, last and last.unread()).fail(*reason))

    def _works(self, path: str, size: int, segment: Segment, by_hand: bool, given_up: GivenUp) -> Iterator[Work]:
        if segment.format == "refused":
            row = Row(document_id(path, b""), path, None, None, "file", size)
            yield Work.of(row.fail(segment.rule, segment.reason))
            return
        with open_file(path) as file:
            if segment.format == "jsonl":
                for work in read_jsonl(path, file, segment.layout, segment.start, segment.end, self.config):
                    yield self._checked(work)
            elif segment.format == "parquet":
                for work in read_groups(path, file, segment.start, segment.end, self.config, given_up):
                    yield self._checked(work)
            else:
                for part in self._parts(file, segment, by_hand):
                    if isinstance(part, Gap):
                        yield Work.of(gap_row(path, part))
                    else:
                        yield Work(partial(self._row, path, part, segment.wat), partial(unread_row, path, part))

    def _parts(self, file: IO[bytes], segment: Segment, by_hand: bool) -> Iterator[Record | Gap]:
        limit = self.config.extraction.max_record_mb * MIB
        if segment.format in TYPES:
            yield read_single(file, segment.format, segment.layout, limit)
        else:
            yield from read_records(file, segment.format, segment.layout, segment.start, segment.end, limit, by_hand)

    def _row(self, path: str, record: Record, wat: str) -> Row:
        row = record_row(path, record, self.config, self.urls)
        return self._said(wat).join(row, record) if wat else row

    def _said(self, wat: str) -> WatIndex:
        """What a WAT file says; that of the last one is kept."""
        if self.wat is None or self.wat[0] != wat:
            self.wat = None  # not two of them at a time
            self.wat = (wat, WatIndex(Storage(self.params["run"]).read_bytes(wat)))
        return self.wat[1]

    def _checked(self, work: Work) -> Work:
        """The rows of collections have their text already, so their URLs are asked after it."""
        return Work(lambda: check_url(work.row(), self.urls), work.unread) if self.urls else work


def rest_row(path: str, segment: Segment, last: Row | None) -> Row:
    """What of a segment can't be read, behind the `last` record that could."""
    offset = segment.start if last is None or last.offset is None else last.offset + (last.length or 0)
    length = segment.end - offset if segment.layout in CUTTABLE else None  # of a stream nobody knows
    return Row(document_id(f"{path}#{offset}", b""), path, offset, length, "damage", length or 0)
