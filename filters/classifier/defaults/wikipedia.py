"""Articles out of a dump of Wikipedia (MediaWiki's XML export), as plain paragraphs."""

import bz2
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from io import BytesIO
from typing import Any

#: Sections that hold no prose.
APPENDICES = {"see also", "references", "notes", "external links", "further reading", "bibliography", "sources", "footnotes", "citations"}
MEDIA = re.compile(r"\s*(file|image|category|media|[a-z]{2,3}(-[a-z-]+)?)\s*:", re.IGNORECASE)
NOT_PROSE = ("ref", "table", "gallery", "math", "timeline", "imagemap", "references", "code", "pre", "source", "syntaxhighlight", "div")
#: A paragraph shorter than this is a caption, an item or what is left of a template, characters.
SHORTEST = 80


def articles(dump: bytes) -> Iterator[tuple[str, str]]:
    """`(title, text)` of the articles of a dump (bz2): no redirects, no pages of other name spaces, nothing without a paragraph."""
    title, space, redirect = "", "", False
    for _, element in ElementTree.iterparse(BytesIO(bz2.decompress(dump))):
        tag = element.tag.rpartition("}")[2]
        if tag == "title":
            title, redirect = element.text or "", False
        elif tag == "ns":
            space = element.text or ""
        elif tag == "redirect":
            redirect = True
        elif tag == "text" and space == "0" and not redirect and (text := article_text(element.text or "")):
            yield title, text
        if tag == "page":
            element.clear()


def article_text(wikitext: str) -> str:
    """The paragraphs of an article's wikitext, one line each with an empty line between: no templates, tables, notes, media or lists."""
    import mwparserfromhell

    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    parts = []
    for section in code.get_sections(flat=True, include_lead=True):
        headings = section.filter_headings()
        if headings and str(headings[0].title).strip().lower() in APPENDICES:
            continue
        parts.append("".join(_plain(node) for node in section.nodes))
    lines = (re.sub(r"'{2,}", "", line).strip() for line in "".join(parts).splitlines())
    return "\n\n".join(line for line in lines if len(line) >= SHORTEST and line[0] not in "*#:;|!{")


def _plain(node: Any) -> str:
    from mwparserfromhell import nodes

    if isinstance(node, nodes.Text | nodes.HTMLEntity):
        return str(node.value) if isinstance(node, nodes.Text) else str(node.normalize())
    if isinstance(node, nodes.Wikilink):
        shown = node.title if node.text is None else node.text
        return "" if MEDIA.match(str(node.title)) else "".join(map(_plain, shown.nodes))
    if isinstance(node, nodes.ExternalLink):
        return "".join(map(_plain, node.title.nodes)) if node.title is not None else ""
    if isinstance(node, nodes.Tag):
        name = str(node.tag).strip().lower()
        return "" if name in NOT_PROSE or node.contents is None else "".join(map(_plain, node.contents.nodes))
    return "\n" if isinstance(node, nodes.Heading) else ""
