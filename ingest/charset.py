"""Decodes the bytes of a page to text, by byte order mark, HTTP charset, meta charset and detection, in this order, as browsers do.

Labels, names and decoders are those of the Encoding standard (https://encoding.spec.whatwg.org/): `latin1` is windows-1252, and `gb2312` is
read as gb18030. Where a claimed encoding is wrong, a browser shows garbage, because it must show something before it has the whole page;
the author sees this and mends the claim. A crawl has whole bodies that nobody looks at, and servers often claim a wrong encoding (by a
default in their configuration, or because pages were moved between servers). So there are differences to a browser:

* If almost all bytes beyond ASCII are valid UTF-8, the page is UTF-8, whatever is claimed. Text in other encodings is valid UTF-8 by chance
  only if it has very few characters beyond ASCII.
* Detection replaces a claim of UTF-8 for invalid UTF-8, of UTF-16 for bytes without NUL, and of an encoding in which many of the bytes are
  undefined.
* Where bytes are C1 controls in the ISO encoding that is claimed or detected, they are read as its Windows sibling, in which they are
  quotation marks. The standard does the same for ISO-8859-1, -9 and -11.
* hz-gb-2312 and iso-2022-kr are read. Browsers refuse them because of attacks by scripts.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import webencodings

from corpusmill.text.damage import storable

#: The number of bytes at the beginning of a page that are searched for a claim.
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
    """Yields the labels that a page gives for its encoding, as they are written, in the order in which browsers try them."""
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
            end = head.find(b"-->", place + 2)  # in `<!-->` the same dashes begin and end the comment
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
    """Returns the attributes of a tag (names in lower case), and where the tag ends, or -1 where the bytes end within it."""
    values: dict[bytes, bytes] = {}
    while found := ATTRIBUTE.match(head, place):
        cut = (found[2] is not None and not found[3]) or (found[4] is not None and not found[5])
        if cut or found.end() == len(head):
            return {}, -1
        place = found.end()
        values.setdefault(found[1].lower(), found[2] or found[4] or found[6] or b"")  # the first of equal names counts
    return values, head.find(b">", place)


def _label(meta: dict[bytes, bytes]) -> str | None:
    """Returns the label in the attributes of a meta tag, or None."""
    if b"charset" in meta:
        return meta[b"charset"].decode("latin-1")
    if meta.get(b"http-equiv", b"").lower() == b"content-type":
        found = CONTENT.search(meta.get(b"content", b""))
        label = found and (found[1] or found[2] or found[3])
        return label.decode("latin-1") if label else None
    return None


BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16le"), (codecs.BOM_UTF16_BE, "utf-16be"))
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
LABEL = 64
FALLBACK = "windows-1252"  # the encoding that browsers use for a page without a claim
#: Labels whose pages browsers replace by one U+FFFD, or read as private characters, with the encoding that is used here.
REPLACED = {"hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr", "x-user-defined": FALLBACK}
#: Encodings for which Python's codec of the same name differs from the standard, with the codec to use.
CODECS = {"gbk": "gb18030"}
#: Parts of ISO 8859, with the windows-125x that has characters in place of ISO's C1 controls, and is otherwise nearly the same.
SIBLINGS = {"16": "1250", "15": "1252", "7": "1253", "8": "1255", "8-i": "1255", "13": "1257"}
#: What the detector finds in short Western texts; pages in Maltese and Esperanto are UTF-8, or name their encoding.
RARE = "iso-8859-3"
CONTROLS = re.compile(rb"[\x80-\x84\x86-\x9f]")
C1 = "corpusmill-c1"
#: An encoding is rejected if more than one in this many characters beyond ASCII are undefined in it.
FEW = 20
#: A page is UTF-8 if it has more than this many valid sequences for each broken one.
WHOLE = 4


@dataclass(frozen=True)
class DecodedText:
    text: str
    encoding: str  # the one that was used: its name in the Encoding standard, in lower case
    claimed: str | None = None  # the label that HTTP (or else the page) gives, as it is written (LABEL characters at most)
    utf8: bytes | None = None  # the text in UTF-8, if the page's bytes are exactly that


def _c1(error: UnicodeError) -> tuple[str, int]:
    """Decodes a byte that Python's windows-125x leave undefined: as in the standard, a C1 control for 0x80 to 0x9F, else U+FFFD."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    byte = error.object[error.start]
    return (chr(byte) if byte < 0xA0 else "\ufffd"), error.start + 1


codecs.register_error(C1, _c1)


def charset_of(content_type: str | None) -> str | None:
    """Returns the charset parameter of a Content-Type, as it is written (at most `LABEL` characters)."""
    found = CHARSET.search((content_type or "")[:1000])  # a very long header could make the pattern slow
    return storable(found.group(1))[:LABEL] if found else None


def canonical(label: str | None) -> str | None:
    """Returns the name in the Encoding standard of the encoding that a label means; None for an unknown label."""
    found = webencodings.lookup(label.encode("ascii", "replace").decode()) if label else None
    if found is None or label is None:
        return None
    if found.name in ("replacement", "x-user-defined"):
        return REPLACED.get(label.strip("\t\n\f\r ").lower())
    return str(found.name)


@cache
def _names_of_codecs() -> dict[str, str]:
    encodings = {webencodings.lookup(label) for label in webencodings.LABELS}
    return {encoding.codec_info.name: encoding.name for encoding in encodings}


def decode(body: bytes, name: str) -> str:
    """Returns `body` decoded by the encoding `name` (as `canonical` returns it); undefined bytes become U+FFFD."""
    known = webencodings.lookup(name)
    codec = CODECS.get(name) or (known.codec_info.name if known else name)
    return body.decode(codec, C1 if name.startswith("windows-") else "replace")


def claimed_by(body: bytes, charset: str | None, html: bool) -> tuple[str | None, str | None]:
    """Returns the encoding that HTTP (or else the page) claims, and its label as it is written.

    If a page itself claims UTF-16, this is a mistake for UTF-8, since its tag could be read as ASCII.
    """
    name = canonical(charset)
    if name is None and html:
        for label in claims(body):
            found = canonical(label)
            if found is not None:
                mistaken = found.startswith("utf-16") and not body.startswith((b"<\0", b"\0<"))
                return ("utf-8" if mistaken else found), label
            charset = charset or label
    return name, charset


def decode_text(body: bytes, charset: str | None = None, html: bool = True) -> DecodedText:
    """Decodes `body`; the text is always valid Unicode without NUL characters. `charset`: the label that HTTP gives."""
    name, label = claimed_by(body, charset, html)
    label = storable(label)[:LABEL] if label else None
    for mark, marked in BOMS:
        if body.startswith(mark):
            return DecodedText(storable(decode(body[len(mark) :], marked)), marked, label)
    text, used = _read(body, name)
    if used == "utf-8":  # its decoder lets no surrogates through, and it is faster to look for NULs in the bytes
        if b"\0" in body:
            return DecodedText(text.replace("\0", ""), used, label)
        return DecodedText(text, used, label, body if "\ufffd" not in text else None)
    return DecodedText(storable(text), used, label)


def _read(body: bytes, claimed: str | None) -> tuple[str, str]:
    """Returns the text, and the encoding that fits the claim, the bytes and the detection best."""
    if claimed is not None and claimed.startswith("utf-16"):
        if body.count(0) * FEW >= len(body):
            return decode(body, claimed), claimed
        claimed = None  # in real UTF-16, half of the markup's bytes are NULs
    if body.isascii() and claimed in (None, "utf-8"):
        used = _detected(body, "utf-8") if b"\x1b$" in body else "utf-8"
        return decode(body, used), used
    if body.isascii():
        return decode(body, str(claimed)), str(claimed)
    text, odd = _utf8(body)
    if not odd or _beyond_ascii(text) - odd > WHOLE * odd:
        return text, "utf-8"
    if claimed in (None, "utf-8"):
        detected = _detected(body, FALLBACK)
        return decode(body, detected), detected
    return _claimed_or_detected(body, _sibling(str(claimed), body))


def _utf8(body: bytes) -> tuple[str, int]:
    """Returns `body` decoded as UTF-8, and the number of broken places in it."""
    try:
        return body.decode("utf-8"), 0
    except UnicodeDecodeError:
        text = body.decode("utf-8", "replace")
        return text, text.count("\ufffd")


def _claimed_or_detected(body: bytes, claimed: str) -> tuple[str, str]:
    text = decode(body, claimed)
    odd = text.count("\ufffd")
    if odd * FEW > _beyond_ascii(text):
        detected = _detected(body, FALLBACK)
        other = decode(body, detected)
        if other.count("\ufffd") < odd:
            return other, detected
    return text, claimed


def _detected(body: bytes, otherwise: str) -> str:
    """Returns the encoding that Mozilla's detector finds for bytes that are not UTF-8, or `otherwise` where it finds none."""
    from resiliparse.parse.encoding import detect_encoding

    name = detect_encoding(body, html5_compatible=False) or otherwise
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        return otherwise
    found = canonical(name) or _names_of_codecs().get(codec, codec)
    if found == "koi8-r":
        return "koi8-u"  # the same except for eight letters, which are box-drawing characters in KOI8-R and rare in pages
    return otherwise if found in ("utf-8", "ascii", RARE) else _sibling(found, body)


def _sibling(name: str, body: bytes) -> str:
    windows = SIBLINGS.get(name.removeprefix("iso-8859-"))
    return f"windows-{windows}" if windows and CONTROLS.search(body) else name


def _beyond_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))
