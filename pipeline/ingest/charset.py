"""Bytes of a page to text: byte order mark, HTTP charset, meta charset, detection, in the order of the browsers."""

import codecs
import re
from dataclasses import dataclass

BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
META = re.compile(rb"<meta\b[^>]{0,500}?charset\s*=\s*[\"']?\s*([a-zA-Z0-9_.:-]{2,40})", re.IGNORECASE)
#: Where browsers look for the meta tag, bytes.
META_WITHIN = 1024
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Text:
    text: str
    encoding: str  # that was used: the name that Python knows


def charset_of(content_type: str | None) -> str | None:
    """The charset parameter of a Content-Type, as it is written."""
    found = CHARSET.search((content_type or "")[:1000])  # a longer one is an attack on the pattern
    return found.group(1) if found else None


def canonical(label: str | None) -> str | None:
    """The codec that a browser takes for an encoding's label; None for a label that is unknown."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    name = map_encoding_to_html5(label, False) if label else None
    try:
        return codecs.lookup(name).name if name else None
    except LookupError:
        return None


def meta_charset(body: bytes) -> str | None:
    """The codec that a page's meta tag names; one that could not be read as ASCII is a mistake for UTF-8."""
    found = META.search(body, 0, META_WITHIN)
    name = canonical(found.group(1).decode("ascii")) if found else None
    return "utf-8" if name and name.startswith("utf-16") else name


def decode_text(body: bytes, charset: str | None = None, html: bool = True) -> Text:
    """`body` as text under the charset that HTTP gave; always valid Unicode without NUL characters.

    A claim is tried strictly. Where the bytes are valid UTF-8 beyond ASCII, they are UTF-8 whatever else was
    claimed; where a claim of UTF-8 does not hold, the encoding is detected; else faulty bytes become U+FFFD.
    """
    for mark, name in BOMS:
        if body.startswith(mark):
            return _text(body[len(mark) :], name)
    claimed = canonical(charset) or (meta_charset(body) if html else None)
    if claimed == "utf-8" or not body.isascii():
        try:
            return Text(fit(body.decode("utf-8")), "utf-8")
        except UnicodeDecodeError:
            pass  # not UTF-8: the claim or the detection decides
    if claimed is None or claimed == "utf-8":
        from resiliparse.parse.encoding import detect_encoding

        claimed = (canonical(detect_encoding(body)) if not body.isascii() else None) or "utf-8"
    return _text(body, claimed)


def _text(body: bytes, encoding: str) -> Text:
    return Text(fit(body.decode(encoding, "replace")), encoding)


def fit(text: str) -> str:
    """`text` without NUL characters and lone surrogates, which neither Parquet nor a tokenizer can hold."""
    if "\0" in text:
        text = text.replace("\0", "")
    try:
        text.encode()
    except UnicodeEncodeError:
        return SURROGATES.sub("", text)
    return text
