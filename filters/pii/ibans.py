"""International bank account numbers (ISO 13616): length and structure by country and the check by 97, as python-stdnum knows them."""

import re
from collections.abc import Iterator
from functools import cache

from corpusmill.filters.pii import scan
from corpusmill.filters.pii.spans import Spans, Texts

WORD = re.compile(rb"\w")
SEPARATOR = re.compile(rb"[ -]")


@cache
def length_of(country: bytes) -> int:
    """Letters and digits of a country's numbers, from the register that python-stdnum ships; 0 for a country without them."""
    from stdnum import numdb

    structure = numdb.get("iban").info(country.decode())[0][1].get("bban", "")
    return sum(map(int, re.findall(r"(\d+)!", structure))) + 4 if structure else 0


def check(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The number has its country's length; what follows in capitals (`BIC ...`) is another word."""
    from stdnum import iban

    length, last, seen = length_of(document[start : start + 2]), start, 0
    if not length:
        return
    while last < end and seen < length:
        seen += not SEPARATOR.match(document, last)
        last += 1
    if seen == length and not WORD.match(document, last) and iban.is_valid(document[start:last].decode(), check_country=False):
        yield start, last


def find(texts: Texts) -> Spans:
    return texts.checked(texts.scan(scan.account_numbers), check)
