"""The two tables that every data stage writes: documents that go on, and one report row for each that came in."""

import json
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

#: The key of a report's schema metadata that holds a JSON object: for each rule, the reason for which documents fail it, in words.
MEANINGS_KEY = b"corpusmill.meanings"

#: What kind of page a document was.
PageType = Literal["article", "documentation", "service", "forum", "collection", "listing", "product"]

#: The documents that `ingest` writes. Later stages append columns and remove none.
DOCUMENTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # from content and origin, see document_id
        pa.field("url", pa.string()),
        pa.field("timestamp", pa.string()),  # ISO 8601, copied from the crawl
        pa.field("source", pa.string(), nullable=False),  # the crawl file, as it was given
        pa.field("offset", pa.int64()),  # of the record in `source`: bytes (WARC, JSONL, CSV) or row (Parquet)
        pa.field("length", pa.int64()),  # bytes of the record in `source`; null where the format has none
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("author", pa.string()),  # as the page states it
        pa.field("date", pa.string()),  # of publication, YYYY-MM-DD
        pa.field("canonical_url", pa.string()),
        pa.field("metadata", pa.string()),  # JSON object with all other fields of the input row
    ]
)

#: A column that documents have where their texts are Markdown: the text without marks, which filters and classifiers measure; null where
#: the two are the same. The filter stage takes it away.
PLAIN = pa.field("plain", pa.large_string())

#: The columns that every report begins with; a stage appends one column for each value it measures.
REPORT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("failed", pa.list_(pa.string()), nullable=False),  # every rule that failed; empty where kept
        pa.field("chars_in", pa.int64(), nullable=False),  # Unicode characters of the text that came in
        pa.field("chars_out", pa.int64(), nullable=False),  # of the text that goes on; 0 where dropped
    ]
)


def meanings_metadata(meanings: Mapping[str, str]) -> dict[bytes, bytes]:
    """Returns the meanings of rules as schema metadata of a report table."""
    return {MEANINGS_KEY: json.dumps(meanings, ensure_ascii=False).encode()}


def document_id(origin: str | None, content: bytes) -> str:
    """Returns the id of a document: 32 hex digits, the XXH3-128 hash of its origin and content.

    `origin` is its URL, or the identifier that its source gave it; `content` is the record's payload before
    extraction. The position does not count: the same page in another file, or on another line, keeps its id.
    """
    hasher = xxhash.xxh3_128()
    hasher.update((origin or "").encode("utf-8", "surrogatepass"))
    hasher.update(b"\0")
    hasher.update(content)
    return hasher.hexdigest()


def with_columns(schema: pa.Schema, fields: list[pa.Field]) -> pa.Schema:
    """Returns `schema` with `fields` appended. A field replaces one of the same name, in its place."""
    for field in fields:
        place = schema.get_field_index(field.name)
        schema = schema.append(field) if place < 0 else schema.set(place, field)
    return schema


_URL = r"^[a-z][a-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:]*)"


def hosts(urls: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Returns the host of each URL of a column, in lower case, without user and port; null if there is no valid URL."""
    return pc.struct_field(pc.extract_regex(pc.utf8_lower(urls), _URL), "host")
