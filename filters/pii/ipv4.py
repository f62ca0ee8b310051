"""Public IPv4 addresses. Version and section numbers look the same: the words before them tell, and that all parts are small."""

import ipaddress
import re
from collections.abc import Iterator

from corpusmill.filters.pii import scan
from corpusmill.filters.pii.spans import Spans, Texts

IPV4 = re.compile(rb"(?<![\w.\-+])(?:\d{1,3}\.){3}\d{1,3}(?![\w\-+])(?!\.\d)")
#: Before a dotted number these words say that it is a version or a section.
VERSION_BEFORE = re.compile(
    rb"(?:\b(?:v|ver|vers|version|versions|release|rev|revision|build|firmware|driver|update|patch|section|sections|sec|chapter|clause|"
    rb"article|figure|fig|table|rule|step)\b\.?|(?:\xc2\xa7)+|[A-Za-z0-9_]/)[\s:=#(]*$",
    re.IGNORECASE,
)
SMALL = 32  # parts of versions and sections are mostly below this
CONTEXT = 24  # bytes before a number in which such a word may stand


def is_public(address: str, before: bytes) -> bool:
    """Whether a dotted number is an address of somebody, given the text before it.

    Not so: what `ipaddress` calls multicast or not global, numbers with leading zeros, numbers after a word for a version or
    section or directly after `name/`, and four parts that are all small (12.6.2.1, 8.8.8.8), which are versions, sections or
    public resolvers: of all addresses 0.02% are so.
    """
    parts = address.split(".")
    if all(int(part) < SMALL for part in parts) or any(len(part) > 1 and part[0] == "0" for part in parts):
        return False
    try:
        number = ipaddress.IPv4Address(address)
    except ipaddress.AddressValueError:
        return False
    return number.is_global and not number.is_multicast and not VERSION_BEFORE.search(before)


def check(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    match = IPV4.match(document, start)
    if match and is_public(match[0].decode(), document[max(0, start - CONTEXT) : start]):
        yield match.span()


def find(texts: Texts) -> Spans:
    return texts.checked(texts.scan(scan.dotted_numbers), check)
