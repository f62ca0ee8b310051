"""Files in which a site says what others may do with its pages, as a table: `ingest` writes it, the step `rights` of `filter` reads it."""

from typing import NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa

#: The files by their path: RFC 9309, TDMRep (W3C Community Group report, 2024), Spawning's ai.txt (2023).
SITE_FILES = {"/robots.txt": "robots.txt", "/.well-known/tdmrep.json": "tdmrep.json", "/ai.txt": "ai.txt"}
#: Where the stage `ingest` writes the tables.
FOLDER = "sites/"
#: A row for each answer to a request for such a file.
SITES = pa.schema(
    [
        pa.field("host", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("status", pa.int32()),
        pa.field("timestamp", pa.string()),
        pa.field("target", pa.string()),
        pa.field("body", pa.large_string()),
    ]
)
#: Product tokens of crawlers whose pages train language models, as their operators publish them (2026-11), in lower case.
AI_AGENTS = (
    "ai2bot", "amazonbot", "anthropic-ai", "applebot-extended", "bytespider", "ccbot", "claudebot", "cohere-training-data-crawler",
    "diffbot", "facebookbot", "google-extended", "gptbot", "meta-externalagent", "omgili", "pangubot", "timpibot",
)  # fmt: skip


class SiteFile(NamedTuple):
    """A row of SITES. `target`: the URL to which a redirect leads. `body`: the content of an answer of status 200."""

    host: str
    file: str
    status: int | None
    timestamp: str | None
    target: str | None
    body: str | None


def site_of(url: str | None) -> str | None:
    """Returns host and port of a URL in lower case, without the ports 80 and 443; None if it is no URL of a web server."""
    try:
        parts = urlsplit(url or "")
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts.hostname if port in (None, 80, 443) else f"{parts.hostname}:{port}"


def site_file(url: str | None) -> str | None:
    """Returns which of SITE_FILES a URL is of, or None."""
    try:
        return SITE_FILES.get(urlsplit(url or "").path)
    except ValueError:
        return None
