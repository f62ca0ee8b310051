"""Joins the descriptions of pages in Common Crawl's WAT files to the documents of its WET files, which hold the texts of the pages.

A WAT record describes a record of the crawl: its HTTP header, and for a page the title, links and metas of its head. A WET record names the
same record of the crawl (WARC-Refers-To), or has the same URL and date. Files are paired by name, as Common Crawl names them
(`NAME.warc.wat.gz` and `NAME.warc.wet.gz`, in any folders), so a process holds the descriptions of one WAT file at a time.
"""

import io
import json
import re
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.ingest.archive_walk import Gap
from corpusmill.ingest.rows import IngestRow
from corpusmill.ingest.warc import Record
from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.formats.detect import InputFile
from corpusmill.pipeline.text.damage import storable

NAME = re.compile(r"(?P<stem>.+?)(?:\.warc)?\.(?P<kind>wat|wet)(?:\.gz|\.zst|\.lz4)?", re.IGNORECASE)
#: The descriptions in a WAT file: a row for each HTTP response of the crawl.
DESCRIPTIONS = pa.schema(
    [
        pa.field("record", pa.string()),  # WARC-Record-ID of the record of the crawl
        pa.field("url", pa.string()),
        pa.field("date", pa.string()),  # WARC-Date of that record
        pa.field("status", pa.int32()),
        pa.field("title", pa.string()),
        pa.field("metadata", pa.string()),  # JSON: canonical, http_status, content_type, metas
    ]
)


def pairs_of(sources: list[InputFile]) -> dict[str, InputFile]:
    """Returns the WAT file for each WET file (by path) that has one with the same name anywhere in the input."""
    found: dict[str, dict[str, list[InputFile]]] = {"wat": {}, "wet": {}}
    for source in sources:
        name = NAME.fullmatch(PurePosixPath(source.ref.path).name) if source.format == "warc" else None
        if name:
            found[name["kind"].lower()].setdefault(name["stem"], []).append(source)
    return {wet.ref.path: found["wat"][stem][0] for stem, wets in found["wet"].items() if stem in found["wat"] for wet in wets}


def described(record: Record | Gap) -> dict[str, Any] | None:
    """Returns the description in a record of a WAT file, a row of DESCRIPTIONS; None where it is cut or not about an HTTP response."""
    if not isinstance(record, Record) or record.type != "metadata" or not record.whole:
        return None
    try:
        envelope = _of(json.loads(record.body), "Envelope")
    except (ValueError, RecursionError):
        return None
    header = _of(envelope, "WARC-Header-Metadata")
    response = _of(_of(envelope, "Payload-Metadata"), "HTTP-Response-Metadata")
    if not response:
        return None
    head = _of(_of(response, "HTML-Metadata"), "Head")
    types = [value for name, value in _of(response, "Headers").items() if name.lower() == "content-type" and isinstance(value, str)]
    status = _of(response, "Response-Message").get("Status")
    description = {
        "canonical": next((_text(link, "url") for link in _list(head, "Link") if (_text(link, "rel") or "").lower() == "canonical"), None),
        "http_status": int(status) if isinstance(status, str) and re.fullmatch(r"[0-9]{3}", status) else None,
        "content_type": storable(types[0]) if types else None,
        "metas": _metas(head) or None,
    }
    return {
        "record": record.refers_to or _text(header, "WARC-Record-ID"),
        "url": (_text(header, "WARC-Target-URI") or record.url or "").strip("<> ") or None,
        "date": _text(header, "WARC-Date"),
        "status": description["http_status"],
        "title": " ".join((_text(head, "Title") or "").split()) or None,
        "metadata": canonical_json({name: value for name, value in description.items() if value is not None}),
    }


def _metas(head: dict[str, Any]) -> dict[str, str]:
    """Returns the content of each meta by its name (or property); if several have one name, that of the first."""
    metas: dict[str, str] = {}
    for meta in _list(head, "Metas"):
        name = next((text for key in ("name", "property", "http-equiv") if (text := _text(meta, key))), None)
        if name and (content := _text(meta, "content")):
            metas.setdefault(name.lower(), content)
    return metas


def _of(value: Any, key: str) -> dict[str, Any]:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _list(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    inner = value.get(key)
    return [item for item in inner if isinstance(item, dict)] if isinstance(inner, list) else []


def _text(value: dict[str, Any], key: str) -> str | None:
    text = value.get(key)
    return storable(text) or None if isinstance(text, str) else None


class WatIndex:
    """The descriptions in one WAT file, by record of the crawl."""

    def __init__(self, content: bytes):
        self.table = pq.read_table(io.BytesIO(content))
        self.places: dict[Any, int] = {}
        names, urls, dates = (self.table.column(name).to_pylist() for name in ("record", "url", "date"))
        for place, (name, url, date) in enumerate(zip(names, urls, dates)):
            for key in (name, (url, date)):
                self.places.setdefault(key, place)

    def join(self, row: IngestRow, record: Record) -> IngestRow:
        """Adds the description of its page to the row of a WET record."""
        if record.type != "conversion":
            return row
        place = self.places.get(record.refers_to) if record.refers_to else None
        place = self.places.get((record.url, record.timestamp)) if place is None else place
        if place is not None:
            (description,) = self.table.slice(place, 1).to_pylist()
            row.title, row.metadata, row.http_status = row.title or description["title"], description["metadata"], description["status"]
        return row
