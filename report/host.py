"""What a host is, in SQL: what stands in a URL for it, without user and port, A to Z as small letters (RFC 4343)."""

import string

#: What stands for documents without a host, language or crawl file.
NONE = "(none)"
PATTERN = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?([^/?#:]+)"
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
