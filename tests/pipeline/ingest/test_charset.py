"""Encodings in the order of the browsers, wrong claims, and text that every later stage can hold."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.ingest.charset import canonical, charset_of, decode_text, fit, meta_charset

RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20


@pytest.mark.parametrize(
    ("text", "encoding", "charset", "used"),
    [
        ("Grüße", "utf-8", "utf-8", "utf-8"),
        ("Grüße", "latin-1", "ISO-8859-1", "cp1252"),
        ("“quoted”", "cp1252", "latin1", "cp1252"),
        ("日本語", "shift_jis", "Shift_JIS", "shift_jis"),
        ("中文", "gb2312", "gb2312", "gbk"),
        ("한국어", "euc_kr", "EUC-KR", "euc_kr"),
        (RUSSIAN, "koi8_r", "koi8-r", "koi8-r"),
        ("plain", "ascii", None, "utf-8"),
    ],
)
def test_http_charset_is_used(text: str, encoding: str, charset: str | None, used: str) -> None:
    found = decode_text(text.encode(encoding), charset)
    assert (found.text, found.encoding) == (text, used)


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_beats_the_header(mark: str) -> None:
    assert decode_text(f"<p>{RUSSIAN}".encode(mark), "windows-1251").text == f"<p>{RUSSIAN}"


def test_the_meta_tag_counts_where_http_says_nothing() -> None:
    for tag in ('<meta charset="windows-1251">', "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>"):
        page = f"<html><head>{tag}</head><body>{RUSSIAN}".encode("cp1251")
        assert decode_text(page).text == page.decode("cp1251")
        assert decode_text(page, "koi8-r").encoding == "koi8-r"
    assert meta_charset(b"<meta charset=utf-16>") == "utf-8"
    assert meta_charset(b" " * 1024 + b"<meta charset=big5>") is None


def test_wrong_claims_are_repaired() -> None:
    assert decode_text(RUSSIAN.encode(), "iso-8859-1").text == RUSSIAN
    found = decode_text(RUSSIAN.encode("cp1251"), "utf-8")
    assert (found.text, found.encoding) == (RUSSIAN, "cp1251")
    assert decode_text(RUSSIAN.encode("cp1251"), "no-such-charset").text == RUSSIAN
    assert decode_text(RUSSIAN.encode("cp1251")).text == RUSSIAN


def test_charset_parameters() -> None:
    assert charset_of('text/html; Charset="UTF-8"; x=y') == "UTF-8"
    assert charset_of("text/html;charset = koi8-r") == "koi8-r"
    assert charset_of("text/html") is charset_of(None) is None
    assert canonical("x-unknown") is canonical(None) is canonical("\0") is None


@given(st.binary(max_size=300), st.sampled_from([None, "utf-8", "utf-16", "big5", "iso-2022-jp", "windows-1252", "nonsense"]))
def test_whatever_comes_in_valid_text_goes_out(body: bytes, charset: str | None) -> None:
    text = decode_text(body, charset).text
    assert text.encode().decode() == text and "\0" not in text


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=50))
def test_fit_drops_nothing_but_what_does_not_fit(text: str) -> None:
    assert fit(text) == "".join(c for c in text if c != "\0" and not 0xD800 <= ord(c) < 0xE000)


def test_hostile_headers_take_no_time() -> None:
    started = time.perf_counter()
    assert charset_of("text/html; charset=" + " " * 1_000_000) is None
    assert time.perf_counter() - started < 1
