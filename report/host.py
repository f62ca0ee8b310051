"""The host of a URL, in SQL: without user and port, with A to Z in lower case (RFC 4343)."""

import string

#: The name shown for documents without a host, language or crawl file.
NONE = "(none)"
PATTERN = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?([^/?#:]+)"
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def lower(host: str) -> str:
    """Returns a typed host in the lower case in which hosts are counted."""
    return host.translate(_LOWER)


def lowered(value: str) -> str:
    """SQL: a text with A to Z in lower case. Other letters stay, since their lower case depends on the version of Unicode."""
    return f"translate({value}, '{string.ascii_uppercase}', '{string.ascii_lowercase}')"


#: SQL: the host in the column `url` as written, empty where there is none; then in lower case, NULL where there is none.
RAW = f"regexp_extract(url, '{PATTERN}', 1)"
SQL = f"nullif({lowered(RAW)}, '')"
