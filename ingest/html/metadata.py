"""Reads the metadata of a page: title, author, date of publication, canonical URL."""

import html
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import numpy as np

from corpusmill.ingest.html import walk as marks
from corpusmill.ingest.html.tags import HINT_NAMES, NAME
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import END, NODE, OWN_HINTS, PARENT, START, TAG, Page
from corpusmill.pipeline.config import parse_json

TITLES = ("og:title", "twitter:title", "dc.title", "dcterms.title")
AUTHORS = ("author", "article:author", "dc.creator", "dcterms.creator", "parsely-author", "sailthru.author", "byl", "citation_author")
DATES = (
    "article:published_time", "og:published_time", "datepublished", "parsely-pub-date", "sailthru.date", "citation_publication_date",
    "dc.date.issued", "dcterms.issued", "dcterms.created", "dc.date", "dcterms.date", "pubdate", "publishdate", "publish-date",
    "date", "article.published", "dc.date.created",
)  # fmt: skip
#: What `page_type` and `data_text` read.
KINDS = ("og:type", "generator", "og:description", "description")
SITE = "og:site_name"
WANTED = {*TITLES, *AUTHORS, *DATES, *KINDS, SITE}
ISO = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)-(?P<month>0?[1-9]|1[0-2])-(?P<day>0?[1-9]|[12]\d|3[01])(?!\d)")
COMPACT = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])(?!\d)")
IN_URL = re.compile(r"/(?P<year>(?:19|20)\d\d)[/-](?P<month>0?[1-9]|1[0-2])[/-](?P<day>0?[1-9]|[12]\d|3[01])(?!\d)")
DOTTED = re.compile(r"(?<!\d)(?P<day>0?[1-9]|[12]\d|3[01])\.\s?(?P<month>0?[1-9]|1[0-2])\.\s?(?P<year>(?:19|20)\d\d)(?!\d)")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(MONTHS)})[a-z]{{0,6}}\.?"
IN_WORDS = tuple(
    re.compile(rf"(?<!\w){pattern},?\s+(?P<year>(?:19|20)\d\d)(?!\d)", re.IGNORECASE)
    for pattern in (
        rf"{_MONTH}\s+(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?",
        rf"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\s+{_MONTH}",
    )
)
#: The attribute of a script of JSON-LD.
LINKED_DATA = b'type="application/ld+json"'
#: A meta tag in serialised HTML (all values are quoted, and still escaped), and its attributes.
META = re.compile(rb'<meta ([^">]*(?:"[^"]*"[^">]*)*)>')
PROPERTY = re.compile(rb'(?:property|name|itemprop)="([^"]+)"')
CONTENT = re.compile(rb'content="([^"]*)"')
CANONICAL = b'rel="canonical"'
HREF = re.compile(rb'<link [^>]*?href="([^"]*)"')
DATE = 1 << HINT_NAMES.index("date")
H1 = NAME["h1"]
#: Bylines and dates without a mark are searched in short blocks (at most SHORT bytes) around the page's heading: (before, after).
SHORT, AROUND_HEADING = 120, (6, 20)
#: A byline: a name after "by", "written by: " or the like, up to a separator, a date or what else is said of it.
_SAID = "written|posted|published|updated|reviewed|edited|text|words|story|article|authored"
_AFTER_NAME = rf"(?:$|[\n|•·⋅∙—–/(),:\d]| (?:on|in|at|for|view|published|updated|posted|last)\b|\b(?:{'|'.join(MONTHS)}))"
BYLINE = re.compile(
    rf"(?:(?:[a-z]+ )?(?:{_SAID})\b[^.!?]{{0,30}}? )?by\b:?\s*(?P<name>[^\n|•·⋅∙—–/(),:\d]{{2,60}}?)\s*{_AFTER_NAME}", re.IGNORECASE
)
#: A text, or a part of one, that is nothing but two to four words with capitals: a name, if it stands beside a date.
PARTS, NAME_ALONE = re.compile(r"\s*[\n|•·⋅∙—–]\s*"), re.compile(r"[^\W\d_][\w.'’-]*(?: [^\W\d_][\w.'’-]*){1,3}")
#: Who began a thread, as XenForo says it.
STARTER = re.compile(r"Thread starter:?\s+(?P<name>\S.{0,40}?)\s*$", re.MULTILINE)
#: What stands where a name is expected, and is none.
NO_NAMES = {
    "by", "author", "authors", "name", "admin", "administrator", "editor", "via", "staff", "written by", "posted by", "editorial team",
}  # fmt: skip
EMAIL = re.compile(r"\S+@\S+\.\S+")
#: A date is searched in DATED_BLOCKS blocks at most, and in DATED_BYTES bytes of each.
DATED_BLOCKS, DATED_BYTES = 20, 200
#: A longer value is not a name or title.
LONGEST = 500
#: Of a longer text in an element that is marked as an author's name, the first line is the name.
LONGEST_NAME = 60
#: At most SCRIPTS scripts of JSON-LD are read; a script of more than SCRIPT_CHARS characters is skipped.
SCRIPTS, SCRIPT_CHARS = 10, 200_000


class Metadata(NamedTuple):
    title: str | None
    author: str | None
    date: str | None  # YYYY-MM-DD
    canonical_url: str | None  # absolute


class Head(NamedTuple):
    """What a page holds for machines. `html`: its head in serialised HTML. `linked_data`: its scripts of JSON-LD."""

    html: bytes
    metas: dict[str, str]
    title: str | None
    linked_data: list[bytes]


def read_head(tree: Tree, page: Page) -> Head:
    html = tree.serialised(tree.head)
    in_body = [(tree.text(script) or "").encode() for script in marked(page, marks.SCRIPTS)[:SCRIPTS]]
    return Head(html, _metas(html), _text(tree.title), [*_scripts(html), *in_body])


def read_metadata(tree: Tree, page: Page, head: Head, url: str | None) -> Metadata:
    """Returns the metadata of a page. `page`: its body in blocks. `url`: the URL of the page.

    Data for machines comes first: metas of Open Graph and Dublin Core, then JSON-LD. Next come elements that are marked as author or date,
    and last what short texts around the heading say: "By Jane Doe", a date, a name beside it. A name of the site counts as an author's only
    where there is no other.
    """
    metas = head.metas
    author = _person(_first(metas, AUTHORS))
    date = next(filter(None, (day(metas[name]) for name in DATES if name in metas)), None)
    site = metas.get(SITE, "").lower()
    named = author is not None and author.lower() != site
    if not (named and date):
        linked, shown = [item for script in head.linked_data for item in objects(script)], _around_heading(page)
        if not named:
            given = [name for name in (author, *map(_author_of, linked), _person(_marked_author(tree, page))) if name]
            own = (name for name in given if name.lower() != site)
            author = _started(shown) or next(own, None) or _byline(shown) or _beside_date(shown) or next(iter(given), None)
        date = date or next(filter(None, (day(item.get("datePublished")) for item in linked)), None) or day(url, IN_URL)
        times = (tree.attribute(time, b"datetime") for time in marked(page, marks.TIMES))
        date = date or next(filter(None, map(day, times)), None) or _dated_block(page) or _date_of(shown)
    return Metadata(_first(metas, TITLES) or head.title, author, date, _canonical(head.html, url))


def marked(page: Page, kind: int) -> list[int]:
    """Returns the addresses of the elements of one kind that the walk has noted (`walk.AUTHORS`, `SCRIPTS`, `TIMES`)."""
    return [element for element in page.marks[kind].tolist() if element]


def day(value: Any, *patterns: re.Pattern[str]) -> str | None:
    """Returns the first date in a text as YYYY-MM-DD, or None. Without `patterns`, looks for ISO 8601 with or without dashes."""
    for pattern in patterns or (ISO, COMPACT):
        if isinstance(value, str) and (found := pattern.search(value[:LONGEST])):
            month = found["month"].lower()
            number = MONTHS.index(month) + 1 if month in MONTHS else int(month)
            return f"{found['year']}-{number:02}-{int(found['day']):02}"
    return None


def _metas(head: bytes) -> dict[str, str]:
    """Returns the contents of the metas in WANTED, by their names in lower case; if several have one name, the first that is not empty."""
    metas: dict[str, str] = {}
    for attributes in META.findall(head):
        named = PROPERTY.search(attributes)
        name = named.group(1).decode().strip().lower() if named else ""
        if name in WANTED and name not in metas and (content := CONTENT.search(attributes)) and (text := _text(content.group(1).decode())):
            metas[name] = text
    return metas


def _text(value: Any) -> str | None:
    text = " ".join(html.unescape(value).split()) if isinstance(value, str) else ""
    return text if 0 < len(text) <= LONGEST else None


def _first(values: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((values[name] for name in names if name in values), None)


def _person(name: Any) -> str | None:
    """Returns a name of a person, or None if it is the name of an account, a page or a URL."""
    text = _text(name)
    if not text or text.startswith(("@", "http://", "https://", "/")) or not any(c.isalpha() for c in text) or len(text) > 150:
        return None
    return None if text.lower() in NO_NAMES or day(text, ISO, DOTTED, *IN_WORDS) or EMAIL.fullmatch(text) else text


def _scripts(head: bytes) -> Iterator[bytes]:
    """Yields the scripts of JSON-LD in a serialised head."""
    place = 0
    for _ in range(SCRIPTS):
        place = head.find(LINKED_DATA, place)
        start = head.find(b">", place) + 1 if place >= 0 else 0
        end = head.find(b"</script>", start) if start else -1
        if end < 0:
            return
        yield head[start:end]
        place = end


def objects(script: bytes, most: int = SCRIPT_CHARS) -> Iterator[dict[str, Any]]:
    """Yields the objects in a script of JSON-LD, including those in `@graph` and in lists."""
    try:
        waiting = [parse_json(script, strict=False)] if len(script) <= most else []
    except ValueError:
        return
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


def _marked_author(tree: Tree, page: Page) -> str | None:
    for element in marked(page, marks.AUTHORS) if tree.body else ():
        name = tree.attribute(element, b"content") or (tree.text(element) or "")[:LONGEST].strip()
        name = _text(name if len(name) <= LONGEST_NAME else name.partition("\n")[0]) or ""
        found = BYLINE.match(name)
        return found["name"] if found else name
    return None


def _around_heading(page: Page) -> list[str]:
    """Returns the short texts around the page's heading: those after it, then those before it, the nearest first."""
    headings = np.flatnonzero(page.nodes[page.blocks[:, NODE], TAG] == H1)
    sizes = page.blocks[:, END] - page.blocks[:, START]
    heading = next((block for block in headings if sizes[block] > 15), headings[0] if len(headings) else -1)
    before, after = AROUND_HEADING
    near = [*range(heading + 1, min(heading + after + 1, len(sizes))), *range(heading - 1, max(heading - before, 0) - 1, -1)]
    chosen = [page.blocks[block] for block in near if sizes[block] <= SHORT]
    return [page.text[block[START] : block[END]].tobytes().decode("utf-8", "ignore") for block in chosen]


def _byline(texts: list[str]) -> str | None:
    """Returns the name in the first byline: a text that begins with "by" or "written by"."""
    names = (_person(found["name"]) for text in texts if (found := BYLINE.match(text)))
    return next((name for name in names if name and (name[0].isupper() or " " not in name)), None)


def _beside_date(texts: list[str]) -> str | None:
    """Returns a name that stands alone beside the first date, in the same text or one of the four around it."""
    dated = next((number for number, text in enumerate(texts) if _date_of([text])), None)
    if dated is None:
        return None
    near = (texts[number] for number in (dated, dated - 1, dated + 1, dated - 2, dated + 2) if 0 <= number < len(texts))
    parts = (part for text in near for part in PARTS.split(text) if NAME_ALONE.fullmatch(part))
    return next((part for part in parts if _person(part) and all(word[0].isupper() for word in part.split())), None)


def _started(texts: list[str]) -> str | None:
    return next((found["name"] for text in texts if (found := STARTER.search(text))), None)


def _date_of(texts: list[str]) -> str | None:
    return next(filter(None, (day(text, ISO, DOTTED, *IN_WORDS) for text in texts)), None)


def _dated_block(page: Page) -> str | None:
    """Returns the first date in a block with a hint of a date (`tags.HINTS`) in the names of its node or of the node's parent."""
    own_hints = page.nodes[:, OWN_HINTS]
    near = own_hints | own_hints[page.nodes[:, PARENT]] * (page.nodes[:, PARENT] > 0)
    for block in np.flatnonzero(near[page.blocks[:, NODE]] & DATE)[:DATED_BLOCKS]:
        start, end = page.blocks[block, START], page.blocks[block, END]
        text = page.text[start : min(end, start + DATED_BYTES)].tobytes().decode("utf-8", "ignore")
        if found := day(text, ISO, DOTTED, *IN_WORDS):
            return found
    return None


def _canonical(head: bytes, url: str | None) -> str | None:
    """Returns the canonical URL that the page gives, as an absolute URL, or None."""
    place = head.find(CANONICAL)
    link = HREF.match(head, head.rfind(b"<link ", 0, place)) if place >= 0 else None
    try:
        address = urljoin(url or "", html.unescape(link.group(1).decode()).strip()) if link and link.group(1) else ""
        return address if urlsplit(address).scheme in ("http", "https") and urlsplit(address).hostname else None
    except ValueError:
        return None
