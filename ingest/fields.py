"""Rows of JSONL and Parquet: which fields make a document, and the rest as its metadata."""

import base64
import datetime
import math
from decimal import Decimal
from typing import Any

from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.pages import check_text
from corpusmill.ingest.rows import Row
from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.schemas import document_id
from corpusmill.pipeline.text.damage import storable


def fill_row(row: Row, fields: dict[str, Any], config: IngestConfig) -> Row:
    """Takes text, address, date and title out of `fields` into `row`; what is left becomes metadata.

    Address, date and title may also lie in a `metadata` object, where datatrove and dolma write them.
    """
    text = fields.get(config.text_key)
    inner = fields.get("metadata")
    nested: dict[str, Any] = inner if isinstance(inner, dict) else {}
    taken = {config.text_key}

    def string(key: str) -> str | None:
        if isinstance(fields.get(key), str):
            taken.add(key)
            return storable(fields[key])
        return storable(nested[key]) if isinstance(nested.get(key), str) else None

    row.url, row.title, row.timestamp = string(config.url_key), string(config.title_key), string(config.timestamp_key)
    given = fields.get(config.id_key)
    origin = row.url if row.url is not None or given is None else str(given)
    rest = {key: value for key, value in fields.items() if key not in taken and value is not None}
    row.metadata = storable(canonical_json(jsonable(rest))) if rest else None
    if not isinstance(text, str):
        row.id = document_id(origin, b"")
        what = f"its {config.text_key} is no text" if text is not None else f"it has no {config.text_key}"
        return row.fail("no_text", what)
    row.id = document_id(origin, text.encode("utf-8", "surrogatepass"))
    row.chars_in, row.text, row.encoding = len(text), storable(text), "utf-8"
    check_text(row, config.extraction.minimum_chars)
    return row


def jsonable(value: Any) -> Any:
    """`value` with everything that JSON can't hold replaced: dates as ISO 8601, bytes as base64, NaN as null."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | Decimal):
        return str(value)
    return value
