"""What a page says about its use: reservations of rights against mining and training, and licences, each with the place that says so.

The signals, from the record's HTTP header and the page's markup:

    noai, noimageai    `X-Robots-Tag` and robots metas (DeviantArt's, 2022); of a crawler for training also `noindex` and `none`
    tdm-reservation    1 or 0, `tdm-policy` an address: TDMRep (W3C Community Group report, 2024), in header or meta
    train-ai           y or n: `Content-Usage` (IETF draft-ietf-aipref-attach)
    license            the address of a licence: rel=license, `license` of schema.org and Dublin Core, Creative Commons' in a footer

What a site says for all its pages stands in files (`pipeline/formats/sites.py`), which `filters/rights.py` reads.
"""

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any, NamedTuple

import pyarrow as pa

from corpusmill.ingest.html.metadata import objects
from corpusmill.pipeline.formats.sites import AI_AGENTS
from corpusmill.text.damage import storable


class Signal(NamedTuple):
    """What a page says: the `signal` (see above), `where` it stands and what it `says`."""

    signal: str
    where: str
    says: str


#: Columns of the documents: the signals, and the licence in SPDX's words where the marks name one.
RIGHTS = (
    pa.field("rights", pa.list_(pa.struct([pa.field(name, pa.string()) for name in Signal._fields]))),
    pa.field("license", pa.string()),
)

#: The agents of robots metas and `X-Robots-Tag` to whom the words noai and noimageai are said, for all or for one.
ROBOTS = ("robots", "googlebot", *AI_AGENTS)
#: A page's licence stands in an element with one of these attributes, or in a meta of Dublin Core; its address in one of `ADDRESSES`.
STATED, ADDRESSES = ("rel", "itemprop", "property", "name"), ("href", "content", "resource")
FOOTER = re.compile(rb"<footer\b|\b(?:id|class)\s*=\s*[\"'][^\"'>]*footer", re.IGNORECASE)
#: Characters of a value that a signal keeps, signals of a page, and places of a page that are looked at.
LONGEST, MOST, PLACES = 200, 20, 400


def page_rights(http: Mapping[str, str], page: bytes) -> tuple[list[Signal], str | None]:
    """Returns the signals of a page, and its licence in SPDX's words; None where it has none, or several. `http`: the header, names in
    lower case, as `Record.http`; `page`: HTML in UTF-8."""
    found = [*_of_header(http), *_of_metas(page), *_licences(page)]
    found = list(dict.fromkeys(Signal(*(storable(value)[:LONGEST] for value in signal)) for signal in found))[:MOST]
    licences = [signal for signal in found if signal.signal == "license"]
    named = {spdx(signal.says) for signal in licences if signal.where != "footer"} or {spdx(signal.says) for signal in licences}
    return found, named.pop() if len(named) == 1 else None


def _of_header(http: Mapping[str, str]) -> Iterator[Signal]:
    for agent, directive in _directives(http.get("x-robots-tag", "")):
        yield from _reserved(agent, directive, f"X-Robots-Tag{f' for {agent}' if agent else ''}")
    for name in ("tdm-reservation", "tdm-policy"):
        if name in http:
            yield Signal(name, "header", http[name].strip())
    for usage in TRAIN_AI.findall(http.get("content-usage", "")):
        yield Signal("train-ai", "Content-Usage", usage.lower())


#: The preference for training in `Content-Usage: train-ai=n`, and in Cloudflare's form `Content-Signal: ai-train=no`.
TRAIN_AI = re.compile(r"(?:train-ai|ai-train)\s*=\s*(y|n)", re.IGNORECASE)


def _directives(value: str) -> Iterator[tuple[str, str]]:
    """Yields the directives of `X-Robots-Tag`, each with the agent to which it is addressed; empty for all."""
    for part in value.lower().split(","):
        before, colon, after = part.partition(":")
        agent = before.strip() if colon and before.strip() in ROBOTS else ""
        yield agent, (after if agent else part).strip()


def _reserved(agent: str, directive: str, where: str) -> Iterator[Signal]:
    if directive in ("noai", "noimageai"):
        yield Signal(directive, where, directive)
    elif agent in AI_AGENTS and directive in ("noindex", "none"):
        yield Signal("noai", where, directive)


class _Attributes(HTMLParser):
    """Reads the attributes of one tag."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag, self.found = tag, {name: (value or "").strip() for name, value in reversed(attrs)}


def _tag(page: bytes, at: int) -> tuple[str, dict[str, str]] | None:
    """Returns the name and the attributes of the tag around a place of a page; None where it is in no tag, in a comment or a script."""
    start, end = page.rfind(b"<", max(0, at - 2000), at + 1), page.find(b">", at, at + 2000)
    if start < 0 or end < 0 or page.find(b">", start, at) >= 0:
        return None
    if page.rfind(b"<!--", 0, start) > page.rfind(b"-->", 0, start) or page.rfind(b"<script", 0, start) > page.rfind(b"</script", 0, start):
        return None
    parser = _Attributes()
    parser.feed(page[start : end + 1].decode("utf-8", "replace"))
    return (parser.tag, parser.found) if hasattr(parser, "tag") else None


def _places(page: bytes, word: bytes) -> Iterator[int]:
    """Yields the first PLACES places of a word."""
    at = page.find(word)
    for _ in range(PLACES):
        if at < 0:
            return
        yield at
        at = page.find(word, at + 1)


def _of_metas(page: bytes) -> Iterator[Signal]:
    for word in (b"<meta", b"<META"):
        for at in _places(page, word):
            tag = page[at : at + 600].partition(b">")[0].lower()
            if (b"noai" in tag or b"noimageai" in tag or b"tdm-" in tag or b"noindex" in tag or b"none" in tag) and (
                read := _tag(page, at)
            ):
                name, content = read[1].get("name", "").lower(), read[1].get("content", "")
                if name in ("tdm-reservation", "tdm-policy"):
                    yield Signal(name, "meta", content)
                elif name in ROBOTS:
                    for directive in re.split(r"[\s,]+", content.lower()):
                        yield from _reserved(name, directive, f"meta {name}")


def _licences(page: bytes) -> Iterator[Signal]:
    """Yields what the page says of its licence. Links to Creative Commons in a footer come last."""
    seen, known = set[int](), set[str]()
    for at in _places(page, b"license"):
        if read := _tag(page, at):
            tag, given = read
            stated = any(re.search(r"(?:^|[\s:.])license$", word) for key in STATED for word in given.get(key, "").lower().split())
            if stated and (address := next((given[key] for key in ADDRESSES if given.get(key)), "")):
                known.add(address)
                yield Signal("license", tag, address)
        elif page[at - 1 : at] == b'"' and (begin := page.rfind(b"<script", 0, at)) >= 0 and begin not in seen:
            seen.add(begin)
            opening, _, script = page[begin : page.find(b"</script", at)].partition(b">")
            if b"ld+json" in opening:
                yield from (
                    Signal("license", "JSON-LD", address) for item in objects(script) for address in _addresses(item.get("license"))
                )
    for at in _places(page, b"creativecommons.org/"):
        address = read[1].get("href", "") if (read := _tag(page, at)) else ""
        if address not in known and CREATIVE_COMMONS.search(address) and FOOTER.search(page, 0, at):
            yield Signal("license", "footer", address)


def _addresses(given: Any) -> Iterator[str]:
    """Yields the addresses in a value of JSON-LD: a text, an object with an address, or a list of these."""
    for one in given if isinstance(given, list) else [given]:
        address = one.get("url") or one.get("@id") if isinstance(one, dict) else one
        if isinstance(address, str):
            yield address


# ---- licences ----------------------------------------------------------------------------------------------

CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<kind>by(?:-nc)?(?:-nd|-sa)?)/(?P<version>\d\.\d)(?:/(?P<country>[a-z]{2,3})(?![a-z-]))?"
    r"|publicdomain/(?P<public>zero|mark)/)",
    re.IGNORECASE,
)
#: Licences by a part of their address, in lower case.
OTHER_LICENCES = {
    "gnu.org/licenses/fdl": "GFDL-1.3-or-later", "gnu.org/copyleft/fdl": "GFDL-1.3-or-later",
    "apache.org/licenses/license-2.0": "Apache-2.0", "opensource.org/licenses/mit": "MIT", "opensource.org/license/mit": "MIT",
    "opendatacommons.org/licenses/odbl": "ODbL-1.0", "opendatacommons.org/licenses/by": "ODC-By-1.0",
    "opendatacommons.org/licenses/pddl": "PDDL-1.0", "nationalarchives.gov.uk/doc/open-government-licence/version/3": "OGL-UK-3.0",
}  # fmt: skip


def spdx(address: str) -> str | None:
    """Returns the licence that an address stands for, in SPDX's words (https://spdx.org/licenses), or None. Names are taken as they are."""
    if found := CREATIVE_COMMONS.search(address):
        if found["public"]:
            return "CC0-1.0" if found["public"].lower() == "zero" else "CC-PDM-1.0"
        return "-".join(filter(None, ("CC", found["kind"].upper(), found["version"], (found["country"] or "").upper())))
    known = next((name for part, name in OTHER_LICENCES.items() if part in address.lower()), None)
    return known or (address if re.fullmatch(r"CC0-1\.0|CC-BY(-NC)?(-ND|-SA)?-\d\.\d|MIT|Apache-2\.0", address) else None)
