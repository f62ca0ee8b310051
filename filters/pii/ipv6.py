"""Public IPv6 addresses: global unicast as far as it is given out (2000::/4 of RFC 4291's 2000::/3), written with at least three groups.

Times (12:30:15), hardware addresses, ratios and names as in C++ (`std::add`) are no such addresses.
"""

import ipaddress
import re
from collections.abc import Iterator

from corpusmill.filters.pii import scan
from corpusmill.filters.pii.spans import Spans, Texts

IPV6 = re.compile(rb"(?<![\w:.])2[0-9a-fA-F]{3}(?::{1,2}[0-9a-fA-F]{1,4}){1,7}(?:::)?(?![\w:]|\.\d)")
FEWEST_GROUPS = 3


def check(document: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    match = IPV6.match(document, start)
    if not match or len([group for group in match[0].split(b":") if group]) < FEWEST_GROUPS:
        return
    try:
        address = ipaddress.IPv6Address(match[0].decode())
    except ipaddress.AddressValueError:
        return
    if address.is_global and not address.is_multicast:
        yield match.span()


def find(texts: Texts) -> Spans:
    return texts.checked(texts.scan(scan.colon_groups), check)
