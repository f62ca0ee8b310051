"""The host of a URL and the domain that somebody registered, and forms of both that can be compared."""

import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from corpusmill.ingest.urls.words import SEPARATORS

#: Characters of the longest host name that there can be (RFC 1035, section 2.3.4); longer ones are attacks.
LONGEST = 255
#: A URL whose authority is a plain host with or without a port: nothing about it is open to interpretation.
PLAIN = re.compile(rf"(?s)https?://([a-zA-Z0-9._-]{{1,{LONGEST}}})(?::[0-9]*)?([/?#].*)?\Z")
SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
TAIL = re.compile(r"[/?#]")


class Host(NamedTuple):
    """A host by the rules of tldextract; case and encoding are as they were given."""

    name: str  # the fully qualified domain name; empty where there is no public suffix
    domain: str  # the domain under the public suffix; empty where there is none
    rest: str  # what stands for the host where it is no name under a public suffix: an IP address, `box.internal`


class HostReader:
    """Splits hosts with the public suffix list that ships with tldextract; never fetches another one.

    Suffixes that companies registered (`blogspot.com`) are not public ones here, as in datatrove.
    """

    def __init__(self) -> None:
        from tldextract import TLDExtract

        self._extract: Any = TLDExtract(cache_dir=None, suffix_list_urls=())

    def read(self, url_or_host: str) -> Host:
        found = self._extract(url_or_host)
        rest = "" if found.suffix else f"{found.subdomain}.{found.domain}".lstrip(".")
        return Host(found.fqdn, found.top_domain_under_public_suffix, rest)


def same_host(host: str) -> str:
    """A host in the form in which hosts are equal: lower case, no dot at its end, other alphabets in Punycode."""
    host = host.strip().lower().rstrip(".")
    if host.isascii() or len(host) > LONGEST:
        return host
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        return host


def split_url(url: str) -> tuple[str, str]:
    """Host and what follows it (path, query, fragment), of anything that may stand in a list or a crawl."""
    url = url.lstrip()
    scheme = SCHEME.match(url)
    rest = url[scheme.end() :] if scheme else url.removeprefix("//")
    found = TAIL.search(rest)
    place = found.start() if found else len(rest)
    host = rest[:place].rpartition("@")[2]
    end = host.find(":", host.find("]") + 1)  # the colons of an IPv6 address stand in brackets
    return (host if end < 0 else host[:end]), rest[place:]


def same_address(host: str, tail: str) -> str:
    """A URL in the form that lists of URLs have: `host/path?query`, without a fragment or a slash at its end.

    `host` is in the form of `same_host`, and loses its `www.`.
    """
    return host.removeprefix("www.") + tail.partition("#")[0].rstrip("/")


def address_prefixes(address: str, depth: int) -> list[str]:
    """What a list may hold of an address: itself, and what it begins with, cut at slashes, of at most `depth` of them."""
    path = address.partition("?")[0].rstrip("/")
    parts = path.split("/", depth + 1)
    prefixes = ["/".join(parts[: count + 1]) for count in range(1, min(depth, len(parts) - 1) + 1)]
    return prefixes if address in prefixes else [*prefixes, address]


def readable(url: str) -> str:
    """A URL with its percent-encoding undone and its words in lower case."""
    text = unquote(url, errors="replace") if "%" in url else url
    if not text.isascii():
        text = SEPARATORS.sub(" ", text)  # `İ` would become `i` and something
    return text.lower()
