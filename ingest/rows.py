"""The row of a record, and the two tables (documents and report) that are made from a task's rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import pyarrow as pa

from corpusmill.ingest.rights import RIGHTS, Signal
from corpusmill.pipeline.formats.sites import SITES, SiteFile
from corpusmill.pipeline.schemas import DOCUMENTS, REPORT, meanings_metadata, with_columns

#: The rule of documents that are on a list of takedowns (takedown.py).
TAKEDOWN = "takedown"
#: The reason for which each rule drops a record, including the rules on URLs (ingest/urls).
MEANINGS = {
    "record_type": "it is a record of the archive itself, such as a request, and not a page from a server",
    "status": "the server's answer has no HTTP status, or one that the recipe does not take, such as 404",
    "content_type": "its content type is not that of a page but, for example, that of an image or a script",
    "empty_text": "it holds no text",
    "only_scripts": "its markup holds no text, but scripts that would make it in a browser",
    "no_main_text": "its markup holds text, but nothing is left of it without menus, notices and other extras",
    "page_type": "its page type is not among ingest.page_types, or not with ingest.page_type_score",
    "too_short": "fewer characters of text than extraction.minimum_chars",
    "too_large": "more bytes than extraction.max_record_mb, or unpacked than extraction.max_decoded_mb and extraction.max_expansion allow",
    "too_deep": "its elements nest deeper than extraction.max_nesting",
    "undecodable": "its bytes are no text in any encoding that it may have",
    "invalid_utf8": "its bytes are no UTF-8",
    "not_json": "the line is no JSON object",
    "not_csv": "a quote of the row is not closed, or it has more or fewer fields than the first line of its file",
    "no_text": "it has no field with a text",
    "corrupt": "the file is damaged at this place",
    TAKEDOWN: "somebody with a right to it asked for its removal (ingest.takedown)",
    "truncated": "the file ends within the record",
    "timeout": "it took longer than extraction.max_page_seconds",
    "out_of_memory": "it took more memory than extraction.max_memory_mb",
    "crashed": "the process that read it ended, twice",
    "empty_file": "there is nothing in the file",
    "unreadable": "the file can't be read",
    "wrong_format": "the file's format does not match its name",
    "url_domain": "its domain is on a list of blocked ones",
    "url_subdomain": "its host is on a list of blocked ones",
    "url_exact": "its URL is on a list of blocked ones",
    "url_hard_word": "its URL has a word that blocks it by itself",
    "url_soft_words": "its URL has several words that are suspicious together",
    "url_subword": "its URL has a blocked word within its words, or across them",
}

#: What kind of page a document is, of `html.page_type.TYPES`, and the probability that it is; null if it was no page.
PAGE_TYPE = (pa.field("page_type", pa.string()), pa.field("page_type_score", pa.float32()))
INGEST_DOCUMENTS = with_columns(DOCUMENTS, [*PAGE_TYPE, *RIGHTS])

#: The report of the stage. `reason` explains in words the rules in `failed`; a row that is kept may have a remark there.
INGEST_REPORT = with_columns(
    REPORT,
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("record_type", pa.string(), nullable=False),  # of WARC, or `line`, `row`, `html`, `text`, `damage`, `file`
        pa.field("http_status", pa.int32()),
        pa.field("content_type", pa.string()),
        pa.field("encoding_claimed", pa.string()),  # the label that HTTP or the page gives, as it is written
        pa.field("encoding", pa.string()),  # the encoding with which the bytes were read
        pa.field("mojibake", pa.float64()),  # share of the text's characters that a wrong encoding made (`mojibake_rate`)
        *PAGE_TYPE,
        pa.field("bytes_in", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),
    ],
).with_metadata(meanings_metadata(MEANINGS))


@dataclass
class IngestRow:
    """A record, line or row of a file; it becomes a document if `failed` is empty."""

    id: str
    source: str
    offset: int | None
    length: int | None
    record_type: str
    bytes_in: int
    url: str | None = None
    failed: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    chars_in: int = 0
    text: str = ""
    plain: str | None = None
    title: str | None = None
    author: str | None = None
    date: str | None = None
    canonical_url: str | None = None
    timestamp: str | None = None
    metadata: str | None = None
    http_status: int | None = None
    content_type: str | None = None
    encoding_claimed: str | None = None
    encoding: str | None = None
    mojibake: float | None = None
    page_type: str | None = None
    page_type_score: float | None = None
    rights: list[Signal] | None = None
    license: str | None = None
    site: SiteFile | None = None  # where the record is a file about the use of all pages of a site

    def fail(self, rule: str, reason: str) -> "IngestRow":
        self.failed.append(rule)
        self.reasons.append(reason)
        return self

    @property
    def kept(self) -> bool:
        return not self.failed

    @property
    def chars_out(self) -> int:
        return len(self.text) if self.kept else 0

    @property
    def reason(self) -> str | None:
        return "; ".join(self.reasons) or None


class PendingRow(NamedTuple):
    """A record that is found but not extracted yet. Extraction may take too long or too much memory, or may kill the process."""

    row: Callable[[], IngestRow]  # extracts it
    unread: Callable[[], IngestRow]  # returns the row with the values that are known without extraction

    @classmethod
    def of(cls, row: IngestRow) -> "PendingRow":
        """Wraps a row that is complete already."""
        return cls(lambda: row, lambda: row)


#: A function that is called before a record is read. It returns rule and reason if reading that record has killed several processes.
SkipReason: TypeAlias = Callable[[], list[str] | None]


class RowTables:
    """Collects the rows of a task, column by column. `schema`: of the documents."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._data: dict[str, list[object]] = {name: [] for name in schema.names}
        self._report: dict[str, list[object]] = {name: [] for name in INGEST_REPORT.names}
        self._sites: list[SiteFile] = []

    def add(self, row: IngestRow) -> None:
        for name, values in self._report.items():
            values.append(getattr(row, name))
        if row.site:
            self._sites.append(row.site)
        if row.kept:
            for name, values in self._data.items():
                values.append(getattr(row, name))

    def documents(self) -> pa.Table:
        return pa.table(self._data, schema=self._schema)

    def report(self) -> pa.Table:
        return pa.table(self._report, schema=INGEST_REPORT)

    def sites(self) -> pa.Table:
        return pa.Table.from_pylist([site._asdict() for site in self._sites], schema=SITES)
