"""What a page says about itself in its head: title, author, date of publication, canonical address."""

import html
import json
import re
from collections.abc import Iterator
from typing import Any, AnyStr, NamedTuple
from urllib.parse import urljoin, urlsplit

import numpy as np
from numpy.typing import NDArray

from corpusmill.pipeline.ingest.page.tags import HINT_NAMES
from corpusmill.pipeline.ingest.page.walk import END, NODE, OWN, PARENT, START, Page
from corpusmill.pipeline.text.find import find

TITLES = ("og:title", "twitter:title", "dc.title", "dcterms.title")
AUTHORS = ("author", "article:author", "dc.creator", "dcterms.creator", "parsely-author", "sailthru.author", "byl", "citation_author")
DATES = (
    "article:published_time", "og:published_time", "datepublished", "parsely-pub-date", "sailthru.date", "citation_publication_date",
    "dc.date.issued", "dcterms.issued", "dcterms.created", "dc.date", "dcterms.date", "pubdate", "publishdate", "publish-date",
    "date", "article.published", "dc.date.created",
)  # fmt: skip
WANTED = {*TITLES, *AUTHORS, *DATES}
ISO = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)-(?P<month>0?[1-9]|1[0-2])-(?P<day>0?[1-9]|[12]\d|3[01])(?!\d)")
COMPACT = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])(?!\d)")
IN_URL = re.compile(r"/(?P<year>(?:19|20)\d\d)[/-](?P<month>0?[1-9]|1[0-2])[/-](?P<day>0?[1-9]|[12]\d|3[01])(?!\d)")
DOTTED = re.compile(r"(?<!\d)(?P<day>0?[1-9]|[12]\d|3[01])\.\s?(?P<month>0?[1-9]|1[0-2])\.\s?(?P<year>(?:19|20)\d\d)(?!\d)")
#: Where JSON-LD begins, and what it lies between, in a string and in bytes.
IN_TEXT = ('type="application/ld+json"', ">", "</script>")
IN_BYTES = (b'type="application/ld+json"', b">", b"</script>")
#: A tag of serialised HTML, where all values are quoted, and what is asked of it. Values are still escaped.
META = re.compile(r'<meta ([^">]*(?:"[^"]*"[^">]*)*)>')
PROPERTY = re.compile(r'(?:property|name|itemprop)="([^"]+)"')
CONTENT = re.compile(r'content="([^"]*)"')
CANONICAL = 'rel="canonical"'
HREF = re.compile(r'<link [^>]*?href="([^"]*)"')
TIME = re.compile(rb'<time [^>]*?datetime="([^"]*)"')
#: Elements that are marked as the author, and words one of which is then in the page.
AUTHOR_MARKS = '[itemprop~="author"], [rel~="author"], .author, .byline'
AUTHOR_WORDS = tuple(np.frombuffer(word, np.uint8) for word in (b"author", b"byline"))
TIME_TAG = np.frombuffer(b"<time ", np.uint8)
DATE = 1 << HINT_NAMES.index("date")
#: So many blocks are looked at for a date, and so many bytes of each.
DATED_BLOCKS, DATED_BYTES = 20, 200
#: Longer values are no names or titles.
LONGEST = 500
#: JSON-LD in more scripts, or in larger ones, is not looked at.
SCRIPTS, SCRIPT_CHARS = 10, 200_000


class Metadata(NamedTuple):
    title: str | None
    author: str | None
    date: str | None  # YYYY-MM-DD
    canonical_url: str | None  # absolute


def read_metadata(tree: Any, body: bytes, page: Page, url: str | None) -> Metadata:
    """What a parsed page (resiliparse's `HTMLTree`) says of itself; `body` is its body serialised, `page` that in blocks, `url`
    where it was found.

    What is meant for machines goes first: Open Graph and Dublin Core metas, then JSON-LD; then elements marked as author or date.
    """
    head = tree.head.html if tree.head else ""
    html = np.frombuffer(body, np.uint8)
    metas = _metas(head)
    title = _first(metas, TITLES) or _text(tree.title)
    author = _person(_first(metas, AUTHORS))
    date = next(filter(None, (day(metas[name]) for name in DATES if name in metas)), None)
    if not (author and date):
        linked = [*_linked_data(head, *IN_TEXT), *_linked_data(body, *IN_BYTES)]
        author = author or next(filter(None, map(_author_of, linked)), None) or _person(_marked_author(tree, html))
        date = date or next(filter(None, (day(item.get("datePublished")) for item in linked)), None) or day(url, IN_URL)
        date = date or _time(body, html) or _dated_block(page)
    return Metadata(title, author, date, _canonical(head, url))


def day(value: Any, *patterns: re.Pattern[str]) -> str | None:
    """The first date in a text as YYYY-MM-DD; ISO 8601 by default, with or without dashes."""
    for pattern in patterns or (ISO, COMPACT):
        if isinstance(value, str) and (found := pattern.search(value[:LONGEST])):
            return f"{found['year']}-{int(found['month']):02}-{int(found['day']):02}"
    return None


def _metas(head: str) -> dict[str, str]:
    """The contents of the metas that are wanted, by their names in lower case; of several the first that is not empty."""
    metas: dict[str, str] = {}
    for attributes in META.findall(head):
        named = PROPERTY.search(attributes)
        name = named.group(1).strip().lower() if named else ""
        if name in WANTED and name not in metas and (content := CONTENT.search(attributes)) and (text := _text(content.group(1))):
            metas[name] = text
    return metas


def _text(value: Any) -> str | None:
    text = " ".join(html.unescape(value).split()) if isinstance(value, str) else ""
    return text if 0 < len(text) <= LONGEST else None


def _first(values: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((values[name] for name in names if name in values), None)


def _person(name: Any) -> str | None:
    """A name that is none of an account, a page or an address."""
    text = _text(name)
    if not text or text.startswith(("@", "http://", "https://", "/")) or not any(c.isalpha() for c in text) or len(text) > 150:
        return None
    return text


def _linked_data(serialised: AnyStr, mark: AnyStr, opened: AnyStr, ended: AnyStr) -> Iterator[dict[str, Any]]:
    """The objects of the JSON-LD in serialised HTML, those inside `@graph` and lists too."""
    place = 0
    for _ in range(SCRIPTS):
        place = serialised.find(mark, place)
        if place < 0:
            return
        start = serialised.find(opened, place) + 1
        end = serialised.find(ended, start)
        if not start or end < 0:
            return
        place = end
        try:
            waiting = [json.loads(serialised[start:end], strict=False)] if end - start <= SCRIPT_CHARS else []
        except (ValueError, RecursionError):
            continue
        while waiting:
            item = waiting.pop(0)
            if isinstance(item, list):
                waiting = item[:50] + waiting
            elif isinstance(item, dict):
                yield item
                waiting += [item["@graph"]] if isinstance(item.get("@graph"), list) else []


def _author_of(item: dict[str, Any]) -> str | None:
    given = item.get("author")
    authors = given if isinstance(given, list) else [given]
    names = [_person(author.get("name") if isinstance(author, dict) else author) for author in authors[:10]]
    return ", ".join(name for name in names if name) or None


def _time(body: bytes, html: NDArray[np.uint8]) -> str | None:
    """The date of the first <time> that has one."""
    place = find(html, TIME_TAG, 0)
    return next(filter(None, (day(found[1].decode()) for found in TIME.finditer(body, place))), None) if place >= 0 else None


def _marked_author(tree: Any, html: NDArray[np.uint8]) -> str | None:
    marked = tree.body and any(find(html, word, 0) >= 0 for word in AUTHOR_WORDS)
    element = tree.body.query_selector(AUTHOR_MARKS) if marked else None
    return _text(element.getattr("content") or element.text[:LONGEST]) if element is not None else None


def _dated_block(page: Page) -> str | None:
    """The first date in a block whose node, or the node around it, is named like one."""
    own = page.nodes[:, OWN]
    near = own | own[page.nodes[:, PARENT]] * (page.nodes[:, PARENT] > 0)
    for block in np.flatnonzero(near[page.blocks[:, NODE]] & DATE)[:DATED_BLOCKS]:
        start, end = page.blocks[block, START], page.blocks[block, END]
        text = page.text[start : min(end, start + DATED_BYTES)].tobytes().decode("utf-8", "ignore")
        if found := day(text, ISO, DOTTED):
            return found
    return None


def _canonical(head: str, url: str | None) -> str | None:
    """The address that the page gives as its own, as an absolute one."""
    place = head.find(CANONICAL)
    link = HREF.match(head, head.rfind("<link ", 0, place)) if place >= 0 else None
    try:
        address = urljoin(url or "", html.unescape(link.group(1)).strip()) if link and link.group(1) else ""
        return address if urlsplit(address).scheme in ("http", "https") and urlsplit(address).hostname else None
    except ValueError:
        return None
