"""Extracts texts from mails, from Wikipedia's dumps and from the Brown Corpus.

The text of a mail is what its writer wrote: without headers (which reveal the mailing list), quoted mails and signature.
"""

import bz2
import email
import email.message
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import webencodings
from selectolax.lexbor import LexborHTMLParser

from corpusmill.text.damage import storable

#: The most characters of a line that counts as broken by a mail program.
WIDTH = 80
#: Lines that the mail's writer did not write: quotations, their announcements, marks of PGP.
FOREIGN = re.compile(r"\s*[>|].*|.{0,200}\bw(rote|rites):\s*|-{3,}\s*(BEGIN|END) PGP .*|Hash: SHA1\s*")
SIGNATURE = re.compile(r"--\s?|_{20,}|-{20,}BEGIN PGP SIGNATURE.*")
#: Beginnings of lines that do not continue the line before: an item, a mark, an indent.
OPENS = re.compile(r"\s|[-*•o+=_#~|]\s|[-*=_#~]{2}|\(?\d{1,3}[.)]\s")
#: Elements of HTML that are not shown, and elements that stand on lines of their own.
UNSEEN = ["head", "script", "style", "iframe", "noscript", "textarea", "select"]
BLOCKS = "p, div, br, hr, li, dt, dd, tr, td, th, table, ul, ol, h1, h2, h3, h4, h5, h6, blockquote, pre, center, form, address"


def mail_text(raw: bytes) -> str:
    """Returns the text of a mail (RFC 5322 and MIME); "" if there is none. Of alternatives, the first that has a text counts."""
    message = email.message_from_bytes(re.sub(rb"\AFrom .*\n", b"", raw))
    return "\n\n".join(text for text in _texts(message) if text)


def _texts(part: email.message.Message) -> Iterator[str]:
    kind = part.get_content_type()
    if part.is_multipart():
        inner = [child for child in part.get_payload() if isinstance(child, email.message.Message)]
        if kind == "multipart/alternative":
            texts = [" ".join(_texts(child)) for child in inner]
            yield next((text for text in texts if text.strip()), "")
        elif kind != "message/rfc822":  # a forwarded mail has another writer
            for child in inner:
                yield from _texts(child)
    elif kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment":
        content = part.get_payload(decode=True)
        yield _text(content if isinstance(content, bytes) else b"", part.get_content_charset(), kind == "text/html")


def _text(content: bytes, charset: str | None, html: bool) -> str:
    text = storable(_decoded(content, charset))
    if html or re.match(r"\s*<(!doctype|html|head|body|table)\b", text, re.IGNORECASE):
        return page_text(text)
    return unwrapped(author_lines(text.splitlines()))


def _decoded(content: bytes, charset: str | None) -> str:
    """Decodes a mail's bytes: as UTF-8 if they are valid, else by the charset that the mail names, else as windows-1252."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return webencodings.decode(content, webencodings.lookup(charset or "") or "windows-1252")[0]


def page_text(html: str) -> str:
    """Returns the text of all visible elements of a page, with an empty line between blocks."""
    tree = LexborHTMLParser(html)
    tree.strip_tags(UNSEEN)
    for block in tree.css(BLOCKS):
        block.insert_before("\0")
        block.insert_after("\0")
    parts = (tree.body.text() if tree.body else "").split("\0")
    return "\n\n".join(words for part in parts if (words := " ".join(part.split())))


def author_lines(lines: list[str]) -> list[str]:
    """Returns a mail's lines up to its signature, without quotations."""
    end = next((place for place, line in enumerate(lines) if SIGNATURE.fullmatch(line)), len(lines))
    return [line.rstrip() for line in lines[:end] if not FOREIGN.fullmatch(line)]


def unwrapped(lines: list[str]) -> str:
    """Joins lines that a mail program broke: those where the next line's first word would not have fitted into the mail's width."""
    width = max((len(line) for line in lines if len(line) <= WIDTH), default=0)
    out: list[str] = []
    for place, line in enumerate(lines):
        before = lines[place - 1] if place else ""
        first = line.split(maxsplit=1)[:1]
        broken = bool(first and before and not OPENS.match(line)) and width - 8 < len(before) + 1 + len(first[0]) and len(before) <= WIDTH
        if broken and width >= 50:
            out[-1] += " " + line
        else:
            out.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


# ---- Articles from a dump of Wikipedia (MediaWiki's XML export), as plain paragraphs.

#: Titles of sections without prose.
APPENDICES = {"see also", "references", "notes", "external links", "further reading", "bibliography", "sources", "footnotes", "citations"}
MEDIA = re.compile(r"\s*(file|image|category|media|[a-z]{2,3}(-[a-z-]+)?)\s*:", re.IGNORECASE)
NOT_PROSE = ("ref", "table", "gallery", "math", "timeline", "imagemap", "references", "code", "pre", "source", "syntaxhighlight", "div")
#: A paragraph with fewer characters is a caption, an item or the rest of a template, and is left out.
SHORTEST = 80


def articles(dump: bytes) -> Iterator[tuple[str, str]]:
    """Yields `(title, text)` of the articles in a dump (bz2).

    Leaves out redirects, pages of other name spaces, and pages without a paragraph.
    """
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
    """Returns the paragraphs of an article's wikitext, one line each, with an empty line between.

    Leaves out templates, tables, notes, media and lists.
    """
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


# ---- Texts of the Brown Corpus (Francis & Kučera 1961), whose words carry tags: `The/at jury/nn said/vbd ./.`

#: Spaces before or after a mark that the original text does not have.
TIGHT = re.compile(r" ([.,;:!?)\]])|([(\[]) ")


def brown_text(tagged: str) -> str:
    """Returns a text without its tags, one paragraph a line; marks are joined to the words that they belong to."""
    paragraphs = re.split(r"\n\s*\n(?=\t)", tagged.strip("\n"))
    return "\n\n".join(text for paragraph in paragraphs if (text := _joined(paragraph.split())))


def _joined(tokens: list[str]) -> str:
    text = " ".join(token.rpartition("/")[0] for token in tokens if "/" in token)
    return TIGHT.sub(lambda match: match[1] or match[2], text.replace("`` ", '"').replace(" ''", '"'))
