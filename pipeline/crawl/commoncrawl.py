"""The beginning of a WARC file of a recent Common Crawl, by an HTTP range request."""

import http.client
import json
import re
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from corpusmill.pipeline.crawl.crawler import AGENT
from corpusmill.pipeline.redirects import opener
from corpusmill.pipeline.web import gunzip

INDEX = "https://index.commoncrawl.org"
DATA = "https://data.commoncrawl.org"
#: The crawl that is taken where the index can't be read.
KNOWN_ID = "CC-MAIN-2026-04"
BYTES = 32 * 1024 * 1024
#: A download that breaks off is kept from this size on: the last record is cut in any case.
ENOUGH = 4 * 1024 * 1024
CONNECT_SECONDS = 5.0
DOWNLOAD_SECONDS = 120.0


def fetch(folder: Path, index: str = INDEX, data: str = DATA) -> str:
    """Writes the first `BYTES` of a crawl's first WARC file into `folder`; says in a phrase what it is.

    Raises OSError where Common Crawl can't be reached or gives no such file.
    """
    crawl = newest_id(index)
    with get(f"{data}/crawl-data/{crawl}/warc.paths.gz") as answer:
        try:
            path = gunzip(answer.read(BYTES)).decode("ascii").split()[0]
        except (OSError, ValueError, IndexError) as error:
            raise OSError(f"{crawl}: its list of files can't be read") from error
    target = folder / path.rpartition("/")[2]
    size = download(f"{data}/{path}", target)
    return f"the first {size / 2**20:.0f} MB of {path} (Common Crawl {crawl})"


def newest_id(index: str) -> str:
    """The id of the newest crawl, or of a known one where the index, which is often busy, does not answer as expected."""
    try:
        with get(f"{index}/collinfo.json") as answer:
            ids = [entry["id"] for entry in json.loads(answer.read(BYTES))]
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            raise  # no network at all: asking for the data would only take more time
        return KNOWN_ID
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError):
        return KNOWN_ID
    return max((i for i in ids if re.fullmatch(r"CC-MAIN-\d{4}-\d\d", i)), default=KNOWN_ID)


def download(url: str, target: Path) -> int:
    """The first `BYTES` of a file; returns how many came."""
    end = time.monotonic() + DOWNLOAD_SECONDS
    size = 0
    with get(url, {"Range": f"bytes=0-{BYTES - 1}"}) as answer, open(target, "wb") as file:
        try:
            while size < BYTES and time.monotonic() < end and (chunk := answer.read(min(1 << 18, BYTES - size))):
                size += file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            if size < ENOUGH:
                raise OSError(f"{url}: the download broke off after {size:,} bytes") from error
    if time.monotonic() >= end and size < ENOUGH:
        raise OSError(f"{url}: only {size:,} bytes came in {DOWNLOAD_SECONDS:.0f} seconds")
    return size


def get(url: str, headers: dict[str, str] | None = None) -> Any:
    """An open answer. Every wait for the server is bounded, so a machine without a network moves on in seconds."""
    request = urllib.request.Request(url, headers={"User-Agent": AGENT.replace("loopback crawl", "demo"), **(headers or {})})
    return opener().open(request, timeout=CONNECT_SECONDS)
