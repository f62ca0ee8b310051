"""What a host is, the same in Python and in SQL: what stands in a URL for it, without user and port, A to Z as small letters (RFC 4343)."""

import re
import string

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: What stands for documents without a host, language or crawl file.
NONE = "(none)"
PATTERN = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?([^/?#:]+)"
_PATTERN = re.compile(PATTERN)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def lower(host: str) -> str:
    """A host that somebody has typed, as it is counted."""
    return host.translate(_LOWER)


def lowered(value: str) -> str:
    """SQL: a text with A to Z as small letters; of other letters the versions of Unicode differ."""
    return f"translate({value}, '{string.ascii_uppercase}', '{string.ascii_lowercase}')"


#: SQL: the host of the column `url` as it stands there, empty where it has none; and as it is counted, NULL where it has none.
RAW = f"regexp_extract(url, '{PATTERN}', 1)"
SQL = f"nullif({lowered(RAW)}, '')"


def hosts(urls: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The host of each URL; null where it has none. Hosts are found once for each different beginning of a URL (scheme and authority)."""
    urls = urls.cast(pa.string())
    urls = urls.combine_chunks() if isinstance(urls, pa.ChunkedArray) else urls
    pieces = pc.split_pattern(urls, "/", max_splits=3)
    sizes = np.asarray(pieces.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    starts = np.cumsum(sizes) - sizes
    flat = pieces.flatten()
    first = pa.array(np.where(sizes > 2, starts, 0), mask=sizes < 3)  # scheme, "", authority
    parts = [flat.take(pc.add(first, place)) for place in range(3)]
    beginnings = pc.binary_join_element_wise(*parts, "/").dictionary_encode()
    found = [match[1] if (match := _PATTERN.match(text)) else None for text in beginnings.dictionary.to_pylist()]
    return pc.ascii_lower(pa.array(found, pa.string())).take(beginnings.indices)
