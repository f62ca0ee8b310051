"""Reads the text of a page whose markup holds none: from templates, JSON-LD, the data of a JavaScript program, or the description.

A program in the browser makes the text of such pages. What it makes it from often stands in the page.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from corpusmill.ingest.html.metadata import Head, objects
from corpusmill.pipeline.config import parse_json

#: At most SCRIPTS scripts are read, of at most SCRIPT_BYTES each, ITEMS values of them, and values nested up to DEPTH.
SCRIPTS, SCRIPT_BYTES, ITEMS, DEPTH = 20, 4 << 20, 20_000, 40
#: Next.js, Gatsby and others put their data into scripts of this type.
DATA = re.compile(rb"<script\b[^>]{0,300}type=[\"']?application/json\b[^>]{0,300}>(.*?)</script", re.DOTALL | re.IGNORECASE)
TEMPLATE = re.compile(rb"<(/?)template\b", re.IGNORECASE)
#: The properties of schema.org that hold text, and those that hold further posts, answers and reviews, in the order of a thread.
BODIES = ("articleBody", "text", "reviewBody", "description")
PARTS = ("mainEntity", "acceptedAnswer", "suggestedAnswer", "comment", "review", "hasPart", "itemListElement", "item")
#: A string in the data of a program is text if it has this many words and an end mark.
PROSE_WORDS = 12
END_MARKS = re.compile(r"[.!?…。！？][\"'”’)\]]?(\s|<|$)")


def from_data(html: bytes, head: Head, description: str | None, text_of: Callable[[bytes], str]) -> tuple[str, str]:
    """Returns the text that a page's data hold, and what it was taken from; two empty strings if there is none.

    `text_of` returns the text of a fragment of HTML.
    """
    if TEMPLATE.search(html) and (text := text_of(TEMPLATE.sub(rb"<\1div", html))):
        return text, "templates"
    linked = [part for script in head.linked_data[:SCRIPTS] for item in objects(script, SCRIPT_BYTES) for part in _posts(item, DEPTH)]
    if linked:
        return "\n\n".join(filter(None, (text_of(part.encode()) for part in linked[:ITEMS]))), "JSON-LD"
    found: dict[str, None] = {}
    for match in list(DATA.finditer(html))[:SCRIPTS]:
        if len(match.group(1)) <= SCRIPT_BYTES:
            found |= dict.fromkeys(_prose(match.group(1)))
    if found:
        return "\n\n".join(filter(None, (text_of(part.encode()) for part in found))), "the data of its program"
    return (description, "its description") if description else ("", "")


def _posts(item: Any, depth: int) -> Iterator[str]:
    """Yields title and text of an object of schema.org, with a line of author and date, then those of its parts."""
    for part in item[:ITEMS] if isinstance(item, list) else ():
        yield from _posts(part, depth - 1) if depth else ()
    if not isinstance(item, dict) or not depth:
        return
    body = next((item[name] for name in BODIES if isinstance(item.get(name), str) and item[name].strip()), None)
    if body:
        author = item.get("author")
        name = author.get("name") if isinstance(author, dict) else author
        date = item.get("datePublished") or item.get("dateCreated")
        yield from filter(None, [next((item[key] for key in ("headline", "name") if isinstance(item.get(key), str)), None)])
        yield from filter(None, [", ".join(part for part in (name, date) if isinstance(part, str))])
        yield body
    for key in PARTS:
        yield from _posts(item.get(key), depth - 1)


def _prose(script: bytes) -> Iterator[str]:
    """Yields the strings of a JSON text that are prose, in order."""
    try:
        waiting = [parse_json(script, strict=False)]
    except ValueError:
        return
    for _ in range(ITEMS * 10):
        if not waiting:
            return
        item = waiting.pop()
        if isinstance(item, dict | list):
            waiting += reversed(list(item.values()) if isinstance(item, dict) else item)
        elif isinstance(item, str) and item.count(" ") >= PROSE_WORDS and END_MARKS.search(item):
            yield item
