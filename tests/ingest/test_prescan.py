"""Compares the encoding that a page declares with html5lib's prescan, and where the standard has changed since."""

import re

import pytest
from html5lib._inputstream import EncodingBytes, EncodingParser
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.charset import canonical, claimed_by, claims


@pytest.mark.parametrize(
    ("head", "labels"),
    [
        (b"<meta charset=koi8-r>", ["koi8-r"]),
        (b"<meta/charset=big5>", ["big5"]),
        (b"<meta content='text/html; charset=\"gbk\"' http-equiv=content-type>", ["gbk"]),
        (b"<meta http-equiv=refresh content='0; url=/?charset=gbk'>", []),
        (b"<!--><meta charset=koi8-r>", ["koi8-r"]),
        (b"<a title='<meta charset=koi8-r>'><meta charset=big5>", ["big5"]),
        (b"<meta charset=koi8-r charset=big5>", ["koi8-r"]),
        (b"<meta charset=x-sjis http-equiv=content-type content='a; charset=gbk'>", ["x-sjis"]),
        (b"<meta name='a>b' charset=koi8-r>", ["koi8-r"]),
        (b'<?xml version="1.0" encoding="ISO-8859-5"?><html>', ["ISO-8859-5"]),
        (b"<?xml version='1.0' encoding='ISO-8859-5'?><meta charset=big5>", ["big5", "ISO-8859-5"]),
        ("<?xml version='1.0'?>".encode("utf-16-be"), ["utf-16be"]),
        (b" " * 1010 + b"<meta charset=koi8-r>", []),
    ],
)
def test_labels_in_the_order_of_browsers(head: bytes, labels: list[str]) -> None:
    assert list(claims(head)) == labels


PIECES = [
    b"<meta ", b"charset", b"=", b"utf-8", b"koi8-r", b"utf-16", b"nonsense", b'"', b"'", b">", b" ", b"\t", b"http-equiv", b"content-type",
    b"content", b"text/html;", b"<!--", b"-->", b"<!doctype html>", b"</p>", b"<p ", b"<br/>", b"a", b"/", b"\n", b"<?php ?>",
    b"<meta charset=", b'<meta http-equiv="Content-Type" content="text/html; charset=big5">', b"<meta charset='shift_jis'>", b"</", b"\xff",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_pages_of_rubbish_give_what_html5lib_finds(head: bytes) -> None:
    head += b"  <p>text</p>"
    if any(newer in head for newer in (b"<!-->", b"<meta/", b"<!--->")) or _repeats(head) or _is_lenient(head):
        return  # the standard has changed here since html5lib; the table above has these cases
    theirs = EncodingParser(EncodingBytes(head)).getEncoding()
    name, _ = claimed_by(head, None, html=True)
    expected = theirs.name if theirs else None
    assert name == ("utf-8" if expected and expected.startswith("utf-16") else expected), head


def _repeats(head: bytes) -> bool:
    """Whether attributes repeat: html5lib uses a later attribute of the same name, and a `charset` next to a pragma's."""
    return any(tag.lower().count(name) > 1 for tag in head.split(b"<meta")[1:] for name in (b"charset", b"content", b"http-equiv"))


def _is_lenient(head: bytes) -> bool:
    """Whether names or values contain `<`, at which html5lib ends them."""
    return re.search(rb"<[^!>][^>]*<", head) is not None


def test_what_a_tag_can_not_mean() -> None:
    assert claimed_by(b"<meta charset=utf-16le>", None, True) == ("utf-8", "utf-16le")
    assert claimed_by(b"<meta charset=x-user-defined>", None, True) == ("windows-1252", "x-user-defined")
    assert claimed_by(b"<meta charset=nonsense><meta charset=big5>", None, True) == ("big5", "big5")
    assert claimed_by(b"<meta charset=nonsense>", None, True) == (None, "nonsense")
    assert claimed_by(b"<meta charset=big5>", "nonsense", True) == ("big5", "big5")
    assert claimed_by(b"<meta charset=big5>", "gbk", True) == ("gbk", "gbk")
    assert claimed_by(b"<meta charset=big5>", None, False) == (None, None)
    assert canonical("\tUTF8 ") == "utf-8"
