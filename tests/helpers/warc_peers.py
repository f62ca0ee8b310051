"""Compares how warcio and corpusmill read a WARC or ARC; for tests and for `make fuzz`."""

import io
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import brotli
from warcio.archiveiterator import ArchiveIterator
from warcio.bufferedreaders import ChunkedDataReader

from corpusmill.ingest.archive_walk import Gap, examine
from corpusmill.ingest.http import decode_payload
from corpusmill.ingest.warc import Record, read_records
from corpusmill.pipeline.files import file_ref
from corpusmill.pipeline.formats.detect import InputFile

LIMIT = 1 << 26


def real_files(folder: Path) -> list[Path]:
    """Returns every WARC, WET, WAT and ARC of the shared data; cc-mrjob's are lists of paths in spite of their names."""
    named = (p for p in sorted((folder / "warc").rglob("*")) if any(s in p.name for s in (".warc", ".wet", ".wat", ".arc")))
    return [path for path in named if "cc-mrjob" not in str(path)]


@dataclass
class Tally:
    """Counts of records by type, bytes of their blocks (as declared and present) and, for HTTP responses, of their payloads."""

    types: Counter[str] = field(default_factory=Counter)
    block_bytes: int = 0
    payload_bytes: int = 0

    def add(self, kind: str, block: int, payload: int = 0) -> None:
        self.types[kind] += 1
        self.block_bytes += block
        self.payload_bytes += payload


def ours(path: Path) -> tuple[Tally, list[Record | Gap]]:
    source = examine(file_ref(str(path)))
    assert isinstance(source, InputFile), source
    with open(path, "rb") as file:
        parts = list(read_records(file, source.format, source.layout, 0, path.stat().st_size, LIMIT))
    tally = Tally()
    for part in parts:
        if isinstance(part, Record):
            tally.add(part.type, part.size, len(part.body) if has_http(part.type, part.url) else 0)
    return tally, parts


def theirs(file: IO[bytes]) -> Tally:
    """Returns warcio's tally of the same file; raises warcio's exceptions."""
    logging.getLogger("warcio").setLevel(logging.CRITICAL)
    content = file.read()
    tally = Tally()
    for record in ArchiveIterator(io.BytesIO(content), no_record_parse=True):
        # for an ARC's version block, warcio takes the first lines as headers, and one byte too few from the length
        extra = (record.rec_headers.total_len or 0) - 1 if record.rec_type == "arc_header" else 0
        tally.add(record.rec_type, len(record.raw_stream.read()) + extra)
    for record in ArchiveIterator(io.BytesIO(content)):
        url = record.rec_headers.get_header("WARC-Target-URI") or record.rec_headers.get_header("uri")
        size = len(record.raw_stream.read())
        tally.payload_bytes += size if has_http(record.rec_type, url) else 0
    return tally


def has_http(kind: str, url: str | None) -> bool:
    return kind == "response" and (url or "").startswith("http")


def compare_bodies(path: Path, parts: list[Record | Gap]) -> int:
    """Compares decoded bodies of the responses with warcio's content streams; returns their number."""
    compared = 0
    records = [part for part in parts if isinstance(part, Record)]
    with open(path, "rb") as file:
        for record, peer in zip(records, ArchiveIterator(file), strict=True):
            if has_http(record.type, record.url) and record.status:
                body = decode_payload(record.body, record.http, LIMIT).body
                expected = peer_body(record, peer)
                # warcio leaves the size line of the last chunk in the content where trailers follow it
                assert body == expected or (expected.startswith(body) and b"0\r\n" in expected[len(body) :][:8]), (path, record)
                compared += 1
    return compared


def peer_body(record: Record, peer: object) -> bytes:
    if record.http.get("content-encoding") == "br":  # warcio 1.8 can't use brotli 1.2
        raw = peer.raw_stream  # type: ignore[attr-defined]
        return brotli.decompress((ChunkedDataReader(raw) if "transfer-encoding" in record.http else raw).read())
    content: bytes = peer.content_stream().read()  # type: ignore[attr-defined]
    return content
