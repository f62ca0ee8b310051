"""Makes a row of a WARC record: decides whether the record is a page, and extracts its text."""

import codecs
import re
from urllib.parse import urljoin

from corpusmill.ingest.archive_walk import Gap
from corpusmill.ingest.charset import charset_of, decode_text
from corpusmill.ingest.config import ExtractionConfig, IngestConfig
from corpusmill.ingest.html import Extracted, TooDeep
from corpusmill.ingest.http import Payload, TooLarge, decode_payload
from corpusmill.ingest.rights import page_rights
from corpusmill.ingest.rows import IngestRow
from corpusmill.ingest.urls.filter import UrlFilter, check_url
from corpusmill.ingest.warc import Record
from corpusmill.pipeline.formats.sites import SiteFile, site_file, site_of
from corpusmill.pipeline.schemas import document_id
from corpusmill.pipeline.stage import load_object
from corpusmill.text.damage import mojibake_rate, storable

#: The module of each extractor. It is part of the code of those tasks whose configuration names it (`pipeline/code.py`).
EXTRACTORS = {
    "lexbor": "corpusmill.ingest.html.main_text",
    "trafilatura": "corpusmill.ingest.html.trafilatura",
}


def extract_page(html: str, url: str | None, config: ExtractionConfig, utf8: bytes | None = None) -> Extracted:
    """Returns the text of a page, with blank lines between its blocks, and its title, author, date and canonical URL.

    `utf8` is `html` in UTF-8, if the caller has it already. Raises TooDeep if elements are nested more deeply than `config.max_nesting`,
    and InputError if the extractor is not installed.
    """
    page = html if config.extractor == "trafilatura" else html.encode() if utf8 is None else utf8
    found: Extracted = load_object(f"{EXTRACTORS[config.extractor]}:extract")(page, url, config)
    return found


def warm_up(config: ExtractionConfig) -> None:
    """Loads the extractor and its kernels, so that no page is charged for it. The parser gets the page in pieces."""
    extract_page("<p>Some text." + " " * MIB, None, config)


MIB = 1 << 20
#: Content types that say nothing about the content: the body decides.
UNSPECIFIC = (None, "", "application/octet-stream", "application/unknown", "unknown/unknown", "*/*")
#: The number of bytes of such a body that are searched for HTML.
SNIFFED = 1445
#: Bytes of robots.txt and the like that are read: RFC 9309 asks for 500 KiB at least.
SITE_BYTES = 500 << 10
#: The beginnings of HTML (WHATWG MIME Sniffing, section 7.1), after a byte order mark, spaces and an XML declaration.
HTML = re.compile(
    rb"(?:<\?xml[^>]{0,200}>\s*)?"
    rb"<(?:!doctype\s+html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|!--)[\s>-]",
    re.IGNORECASE,
)


def gap_row(source: str, gap: Gap) -> IngestRow:
    """Returns the row for a stretch of a file that is not a whole record."""
    row = IngestRow(document_id(f"{source}#{gap.offset}", b""), source, gap.offset, gap.length, "damage", gap.length)
    return row.fail(gap.kind, gap.reason)


def unread_row(source: str, record: Record) -> IngestRow:
    """Returns the row of a record with the values that are known without its body."""
    return IngestRow(
        document_id(record.url, record.body), source, record.offset, record.length, record.type, record.size,
        url=record.url, timestamp=record.timestamp, http_status=record.status,
        content_type=_mime(record.http.get("content-type") or record.block_type),
    )  # fmt: skip


def record_row(source: str, record: Record, config: IngestConfig, urls: UrlFilter | None = None) -> IngestRow:
    """Returns the row of a record, with all rules that it fails on its headers, its size and its URL.

    The body is only decoded and extracted if it fails none of these.
    """
    row = IngestRow(
        "", source, record.offset, record.length, record.type, record.size,
        url=record.url, timestamp=record.timestamp, http_status=record.status,
    )  # fmt: skip
    body = record.body
    if record.type in ("conversion", "text"):
        row.content_type = _mime(record.block_type)
        check_url(row, urls)
        if _fits(row, record) and row.kept:
            _plain(row, record, config)
    elif record.type == "response":
        _check_response(row, record, config)
        check_url(row, urls)
        row.site = _site(record, config)
        if row.kept:
            body = _page(row, record, config)
    elif record.type == "html":
        row.content_type = _mime(record.block_type)
        if _fits(row, record):
            body = _page(row, record, config)
    else:
        row.content_type = _mime(record.block_type)
        row.fail("record_type", f"a {storable(record.type)} record holds no page")
    row.id = document_id(row.url, body)
    return row


def _mime(content_type: str | None) -> str | None:
    return storable(content_type.split(";")[0].split(",")[0].strip().lower()) if content_type else None


def _fits(row: IngestRow, record: Record) -> bool:
    if not record.whole:
        row.fail("too_large", f"the record has {record.size} bytes, more than extraction.max_record_mb")
    return record.whole


def _check_response(row: IngestRow, record: Record, config: IngestConfig) -> None:
    row.content_type = _mime(record.http.get("content-type"))
    row.encoding_claimed = charset_of(record.http.get("content-type"))
    if record.status is None:
        row.fail("status", "the response has no HTTP status line")
    elif record.status not in config.statuses:
        row.fail("status", f"HTTP status {record.status}")
    if row.content_type not in UNSPECIFIC and row.content_type not in config.content_types:
        row.fail("content_type", f"content type {row.content_type}")
    _fits(row, record)


def payload_of(record: Record, config: IngestConfig) -> Payload:
    """Returns the body of a response, with its HTTP encodings undone. Raises TooLarge, with the limit that it exceeds."""
    limits = config.extraction
    limit = min(limits.max_decoded_mb * MIB, max(MIB, limits.max_expansion * len(record.body)))
    try:
        return decode_payload(record.body, record.http, limit)
    except TooLarge as error:
        raise TooLarge(limit) from error


def _site(record: Record, config: IngestConfig) -> SiteFile | None:
    """Returns what the record says of a site, if it is the answer to a request for one of its files."""
    file, host = site_file(record.url), site_of(record.url)
    if file is None or host is None:
        return None
    status, body = record.status, None
    if status == 200:
        try:
            body = storable(payload_of(record, config).body[:SITE_BYTES].removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace"))
        except TooLarge:
            return None
    target = urljoin(record.url or "", record.http.get("location", "")) if status and 300 <= status < 400 else None
    return SiteFile(host, file, status, record.timestamp, target, body)


def _page(row: IngestRow, record: Record, config: IngestConfig) -> bytes:
    """Decodes and extracts a page into its row; returns the body from which its id is made."""
    limits = config.extraction
    try:
        payload = payload_of(record, config)
    except TooLarge as error:
        row.fail("too_large", f"its {len(record.body)} bytes decompress to more than {error}")
        return record.body
    body = payload.body
    row.reasons.extend(payload.remarks)
    if row.content_type in UNSPECIFIC:
        if not HTML.match(body[:SNIFFED].removeprefix(codecs.BOM_UTF8).lstrip()):
            row.fail("content_type", "no content type, and it does not begin like HTML")
            return body
        row.content_type = "text/html"
        row.reasons.append("content type sniffed")
    if payload.remarks and b"\0" in body[:1024]:
        row.fail("undecodable", "what is left is no text")
        return body
    text = decode_text(body, charset_of(record.http.get("content-type")))
    row.encoding, row.encoding_claimed, row.chars_in = text.encoding, text.claimed, len(text.text)
    try:
        page = extract_page(text.text, row.url, limits, text.utf8)
    except TooDeep:
        row.fail("too_deep", f"its elements nest deeper than {limits.max_nesting}")
        return body
    row.text, row.plain, row.title = page.text, page.plain, page.title
    row.rights, row.license = page_rights(record.http, text.text.encode() if text.utf8 is None else text.utf8)
    row.author, row.date, row.canonical_url = page.author, page.date, page.canonical_url
    row.page_type, row.page_type_score = page.page_type, page.page_type_score
    if page.origin:
        row.reasons.append(f"its text is from {page.origin}")
    check_text(row, limits.minimum_chars, page.empty_by)
    if (
        page.page_type
        and config.page_types
        and (page.page_type not in config.page_types or (page.page_type_score or 0) < config.page_type_score)
    ):
        row.fail("page_type", f"its page type is {page.page_type} ({page.page_type_score:.2f})")
    return body


def _plain(row: IngestRow, record: Record, config: IngestConfig) -> None:
    text = decode_text(record.body, charset_of(record.block_type), html=False)
    row.encoding, row.encoding_claimed, row.chars_in = text.encoding, text.claimed, len(text.text)
    row.text = text.text.strip() if config.trim else text.text
    check_text(row, config.extraction.minimum_chars)


#: The reasons of the rules that a page without main text fails.
EMPTY = {"only_scripts": "its markup holds scripts, but no text", "no_main_text": "no main text in the text of its markup"}


def check_text(row: IngestRow, minimum: int, empty_by: str | None = None) -> None:
    """Applies the rules on the text (without the marks of Markdown), and measures how much of it was read in a wrong encoding. `empty_by`:
    one of EMPTY, or None."""
    text = row.text if row.plain is None else row.plain
    row.mojibake = mojibake_rate(text)
    if not text.strip():
        row.fail(empty_by or "empty_text", EMPTY.get(empty_by or "", "no text is left"))
    elif len(text) < minimum:
        row.fail("too_short", f"{len(text)} characters, fewer than extraction.minimum_chars")
