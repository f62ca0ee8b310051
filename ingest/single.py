"""Files that are one document each: pages (`.html`, `.htm`, `.xhtml`) and texts (`.txt`, `.text`, `.md`), as a record each.

They have no URL: where a file lies says nothing about where its content is from, and would make the same page in two
folders two documents. The file's path is the row's `source`.
"""

from typing import IO

from corpusmill.ingest.records import Fields, Record
from corpusmill.ingest.walk import Gap
from corpusmill.pipeline.formats.compressed import Inflating, inflating
from corpusmill.pipeline.formats.streams import Window

#: What the files of a format hold.
TYPES = {"html": "text/html", "text": "text/plain"}


def read_single(file: IO[bytes], format: str, layout: str, limit: int) -> Record | Gap:
    """The file as one record of type `html` or `text`, its body cut at `limit` bytes; a Gap where its compression breaks."""
    stream = file if layout == "plain" else inflating(file, layout)
    window = Window(stream)
    body = window.take(limit)
    size = len(body) + window.skip(1 << 62)
    if isinstance(stream, Inflating) and stream.fault:
        what = "ends before its time" if stream.fault == "truncated" else "is damaged"
        return Gap(0, size, stream.fault, f"the compressed stream {what} behind byte {size} of its content")
    return Record(0, size, format, size, body, size == len(body), Fields(type=TYPES[format]), None)
