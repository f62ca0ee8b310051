"""Tests encodings in the order of the browsers, wrong claims, and text that every later stage can hold."""

import codecs
from collections import Counter
from pathlib import Path

import pytest
import webencodings
from html5lib._inputstream import HTMLBinaryInputStream
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.encoding import map_encoding_to_html5
from warcio.archiveiterator import ArchiveIterator

from corpusmill.ingest.charset import LABEL, canonical, charset_of, decode, decode_text
from corpusmill.text.damage import storable

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
GERMAN = "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. " * 20
#: Historic encodings of each language's pages: their names in the Encoding standard, and Python's codec.
LEGACY = {
    "ru": {"windows-1251": "cp1251", "koi8-r": "koi8_r", "x-mac-cyrillic": "mac_cyrillic"},
    "ja": {"shift_jis": "cp932", "iso-2022-jp": "iso2022_jp"},
    "zh": {"gb18030": "gb18030", "big5": "big5"},
    "ko": {"euc-kr": "cp949"},
    "de": {"windows-1252": "cp1252"},
    "el": {"windows-1253": "cp1253", "iso-8859-7": "iso8859_7"},
    "th": {"windows-874": "cp874"},
}


@pytest.mark.parametrize(
    ("text", "encoding", "charset", "used"),
    [
        ("Grüße", "utf-8", "utf-8", "utf-8"),
        ("Grüße", "latin-1", "ISO-8859-1", "windows-1252"),
        ("中文", "gb2312", "gb2312", "gbk"),
        ("ก“ข”", "cp874", "tis-620", "windows-874"),
        (RUSSIAN, "mac_cyrillic", "x-mac-cyrillic", "x-mac-cyrillic"),
        ("中文中文", "hz", "hz-gb-2312", "hz"),
        ("한국어", "iso2022_kr", "ISO-2022-KR", "iso2022_kr"),
        ("Grüße", "cp1252", "x-user-defined", "windows-1252"),
        (f"<p>{RUSSIAN}", "utf-16-le", "utf-16", "utf-16le"),
    ],
)
def test_http_charset_is_used(text: str, encoding: str, charset: str | None, used: str) -> None:
    found = decode_text(text.encode(encoding), charset)
    assert (found.text, found.encoding, found.claimed) == (text, used, charset)


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_beats_the_header(mark: str) -> None:
    found = decode_text(f"<p>{RUSSIAN}".encode(mark), "windows-1251")
    assert (found.text, found.claimed) == (f"<p>{RUSSIAN}", "windows-1251")


def test_the_meta_tag_counts_where_http_says_nothing() -> None:
    for tag in ('<meta charset="Windows-1251">', "<META http-equiv=Content-Type content='text/html; charset=Windows-1251'>"):
        page = f"<html><head>{tag}</head><body>{RUSSIAN}".encode("cp1251")
        found = decode_text(page)
        assert (found.text, found.encoding, found.claimed) == (page.decode("cp1251"), "windows-1251", "Windows-1251")
        assert decode_text(page, "koi8-r").encoding == "koi8-r"
        assert decode_text(page, html=False).claimed is None


def test_wrong_claims_are_repaired() -> None:
    assert decode_text(RUSSIAN.encode(), "iso-8859-1").text == RUSSIAN
    found = decode_text(RUSSIAN.encode("cp1251"), "utf-8")
    assert (found.text, found.encoding) == (RUSSIAN, "windows-1251")
    assert decode_text(RUSSIAN.encode("cp1251"), "no-such-charset").text == RUSSIAN
    assert decode_text(RUSSIAN.encode("cp1251")).text == RUSSIAN
    assert decode_text(RUSSIAN.encode("cp1251"), "utf-16").text == RUSSIAN
    assert decode_text(RUSSIAN.encode("cp1251"), "gbk").encoding in ("windows-1251", "gbk")
    assert decode_text("Ką „rašė“, „Žemė“ ir „ąžuolas“".encode("cp1257"), "iso-8859-13").encoding == "windows-1257"


@pytest.mark.parametrize("claim", [None, "utf-8", "shift_jis"])
def test_utf8_with_a_broken_place_stays_utf8(claim: str | None) -> None:
    """Tests one byte of another encoding, and a page that its crawler cut within a character."""
    body = RUSSIAN.encode() + b" caf\xe9 " + RUSSIAN.encode()[:-3]
    found = decode_text(body, claim)
    assert found.encoding == "utf-8" and found.text.startswith(RUSSIAN + " caf\ufffd ") and found.text.count("\ufffd") == 2
    cut = (GERMAN + "ü").encode()[:-1]
    assert decode_text(cut, claim).text == GERMAN + "\ufffd"


def test_a_few_undefined_bytes_leave_a_claim_as_it_is() -> None:
    body = RUSSIAN.encode("cp932") + b"\x81"
    found = decode_text(body, "shift_jis")
    assert (found.encoding, found.text.count("\ufffd")) == ("shift_jis", 1)
    body = RUSSIAN.encode("koi8_r")
    assert decode(body, "euc-jp").count("\ufffd") * 20 > len(RUSSIAN)
    assert decode_text(body, "euc-jp").text == RUSSIAN


def test_the_controls_of_windows_encodings_are_the_standards() -> None:
    """Encoding standard, index windows-1252: 0x81 is U+0081, where Microsoft and Python have no character."""
    assert decode(b"\x81\x8d\x8f\x90\x9d\x80", "windows-1252") == "\x81\x8d\x8f\x90\x9d€"
    assert decode(b"\xaa\xd2\xff", "windows-1253") == "\ufffd\ufffd\ufffd"


def test_labels_are_those_of_the_standard() -> None:
    """webencodings has the standard's table; resiliparse's own table differs from it in known places."""
    odd = {label for label in webencodings.LABELS if canonical(label) is None}
    assert odd == {"replacement", "iso-2022-cn", "iso-2022-cn-ext"}
    departs = {"x-mac-cyrillic", "x-user-defined", "hz", "iso2022_kr", "windows-874", "iso-8859-8-i"}
    compared = 0
    for label in set(webencodings.LABELS) - odd:
        name, theirs = canonical(label), map_encoding_to_html5(label, False)
        if theirs is not None and name not in departs:
            assert codecs.lookup(theirs).name == codecs.lookup(str(name)).name, label
            compared += 1
    assert compared > 190
    assert canonical("x-unknown") is canonical(None) is canonical("\0") is canonical("ütf-8") is None


@pytest.mark.parametrize(("language", "name", "codec"), [(lang, n, c) for lang, names in LEGACY.items() for n, c in names.items()])
def test_real_text_without_a_claim_is_detected(shared_data: Path, language: str, name: str, codec: str) -> None:
    """Tests pages of 20 sentences in historic encodings: nine of ten are right, whether they claim nothing or UTF-8."""
    lines = (shared_data / "lid" / f"{language}.txt").read_text("utf-8").splitlines()
    right: Counter[str | None] = Counter()
    pages = 0
    for first in range(0, len(lines) - 20, 20):
        body = " ".join(lines[first : first + 20]).encode(codec, "ignore")
        pages += 1
        for claim in (None, "utf-8", name):
            found = decode_text(b"<html><body><p>" + body, claim)
            right[claim] += found.text == "<html><body><p>" + body.decode(codec)
    least = 0.75 if name == "iso-8859-7" else 0.9  # without Ά in the page, nobody can distinguish windows-1253 from it
    assert min(right[None], right["utf-8"]) >= least * pages, (right, pages)
    assert right[name] >= 0.95 * pages, (right, pages)


@pytest.mark.parametrize("claim", ["windows-1252", "gbk", "iso-8859-2"])
def test_real_utf8_is_utf8_whatever_is_claimed(shared_data: Path, claim: str) -> None:
    for path in sorted((shared_data / "lid").glob("*.txt")):
        body = path.read_bytes()
        if not body.isascii():
            assert decode_text(body, claim).encoding == "utf-8", path.name
            assert decode_text(body[1:-1], claim).encoding == "utf-8", path.name


def test_real_pages_are_read_as_html5lib_reads_them(shared_data: Path) -> None:
    """Tests 793 pages: each claimed encoding gives the same result, except for a page of UTF-8 that claims gb2312, and two whose claim
    is an XML declaration, which html5lib does not know.
    """
    differ: Counter[str | None] = Counter()
    claimed = 0
    for path in sorted((shared_data / "realweb").glob("*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type == "response":
                    body = record.content_stream().read()
                    charset = charset_of(record.http_headers.get_header("Content-Type"))
                    stream = HTMLBinaryInputStream(body, transport_encoding=charset, useChardet=False, default_encoding="windows-1252")
                    theirs, certainty = stream.charEncoding
                    found = decode_text(body, charset)
                    claimed += found.claimed is not None
                    if found.encoding != theirs.name and (found.claimed or certainty == "certain"):
                        differ[found.claimed] += 1
    assert claimed > 500 and differ == {"gb2312": 1, "UTF-8": 2}


def test_charset_parameters() -> None:
    assert charset_of('text/html; Charset="UTF-8"; x=y') == "UTF-8"
    assert charset_of("text/html;charset = koi8-r") == "koi8-r"
    assert charset_of("text/html") is charset_of(None) is None
    assert charset_of("text/html; charset=" + "x" * 900) == "x" * LABEL
    assert charset_of("text/html; charset=" + " " * 1_000_000) is None
    assert charset_of("text/html; charset=a\udc80\0b") == "ab"


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=50))
def test_fit_drops_nothing_but_what_does_not_fit(text: str) -> None:
    assert storable(text) == "".join(c for c in text if c != "\0" and not 0xD800 <= ord(c) < 0xE000)
