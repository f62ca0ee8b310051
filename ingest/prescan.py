"""What a page says about its own encoding: the prescan of browsers over its first 1024 bytes, and the XML declaration.

HTML standard, section 13.2.3.2, "prescan a byte stream to determine its encoding"
(https://html.spec.whatwg.org/multipage/parsing.html#prescan-a-byte-stream-to-determine-its-encoding).
"""

import re
from collections.abc import Iterator

#: Bytes that are looked at.
WITHIN = 1024
COMMENT = b"<!--"
META = re.compile(rb"<meta(?=[\t\n\f\r /])", re.IGNORECASE)
TAG = re.compile(rb"</?[a-zA-Z][^\t\n\f\r >]*")
#: One attribute: a name, and a value that is quoted (perhaps without an end) or not.
ATTRIBUTE = re.compile(
    rb"[\t\n\f\r /]*([^\t\n\f\r />][^\t\n\f\r />=]*)"
    rb"(?:[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)(\"?)|'([^']*)('?)|([^\t\n\f\r >\"'][^\t\n\f\r >]*)|(?=>)))?"
)
CONTENT = re.compile(rb"charset[\t\n\f\r ]*=[\t\n\f\r ]*(?:\"([^\"]*)\"|'([^']*)'|([^\t\n\f\r ;\"'][^\t\n\f\r ;]*)|[\"'])", re.IGNORECASE)
XML = re.compile(rb"<\?xml[^>]*?encoding[\0- ]*=[\0- ]*(?:\"([^\"> ]*)\"|'([^'> ]*)')")
UTF16_XML = {b"<\0?\0x\0": "utf-16le", b"\0<\0?\0x": "utf-16be"}


def claims(body: bytes) -> Iterator[str]:
    """The labels that a page gives for its encoding, as they are written, in the order in which browsers try them."""
    head = body[:WITHIN]
    if head[:6] in UTF16_XML:
        yield UTF16_XML[head[:6]]
    if b"charset" in head.lower():
        yield from _metas(head)
    declared = XML.match(head)
    if declared:
        yield (declared[1] or declared[2] or b"").decode("latin-1")


def _metas(head: bytes) -> Iterator[str]:
    place = head.find(b"<")
    while 0 <= place < len(head):
        if head.startswith(COMMENT, place):
            end = head.find(b"-->", place + 2)  # the dashes of `<!-->` may be those of its beginning
            place = end + 3 if end >= 0 else -1
        elif META.match(head, place):
            attributes, place = _attributes(head, place + len(b"<meta"))
            label = _label(attributes) if place >= 0 else None
            if label is not None:
                yield label
        elif tag := TAG.match(head, place):
            _, place = _attributes(head, tag.end())
        elif head[place + 1 : place + 2] in (b"!", b"/", b"?"):
            place = head.find(b">", place)
        else:
            place += 1
        place = head.find(b"<", place) if place >= 0 else -1


def _attributes(head: bytes, place: int) -> tuple[dict[bytes, bytes], int]:
    """A tag's attributes (names in lower case), and where it ends: -1 where the bytes end within it."""
    values: dict[bytes, bytes] = {}
    while found := ATTRIBUTE.match(head, place):
        cut = (found[2] is not None and not found[3]) or (found[4] is not None and not found[5])
        if cut or found.end() == len(head):
            return {}, -1
        place = found.end()
        values.setdefault(found[1].lower(), found[2] or found[4] or found[6] or b"")  # of equal names the first counts
    return values, head.find(b">", place)


def _label(meta: dict[bytes, bytes]) -> str | None:
    """The label that a meta tag's attributes give."""
    if b"charset" in meta:
        return meta[b"charset"].decode("latin-1")
    if meta.get(b"http-equiv", b"").lower() == b"content-type":
        found = CONTENT.search(meta.get(b"content", b""))
        label = found and (found[1] or found[2] or found[3])
        return label.decode("latin-1") if label else None
    return None
