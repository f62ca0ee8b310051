"""Email addresses. Those in domains that RFC 2606 reserves for examples belong to nobody."""

import re
from collections.abc import Iterator

from corpusmill.filters.pii import scan
from corpusmill.filters.pii.spans import Spans, Texts

# Lengths are bounded (RFC 5321: 64 for the local part, 63 a label) so that no text takes quadratic time.
_ATOM = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
EMAIL = re.compile(
    rb"(?<![A-Za-z0-9._%+-])" + _ATOM + rb"{1,64}(?:\." + _ATOM + rb"{1,64}){0,8}@"
    rb"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,63})(?![A-Za-z0-9-])"
)
EXAMPLE_DOMAINS = re.compile(rb"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)
LONGEST = 9 * 65 + 9 * 64 + 1


def check(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = document.index(b"@", start, end)
    match = EMAIL.search(document, max(start, at - LONGEST), min(end, at + LONGEST))
    if match and not EXAMPLE_DOMAINS.search(match[1]):
        yield match.span()


def find(texts: Texts) -> Spans:
    return texts.checked(texts.scan(scan.addresses), check)
