"""Fuzzes bytes to text: always valid Unicode without NUL, in a named encoding; UTF-8 comes back unchanged."""

from fuzzing import choose, choosing

from corpusmill.ingest.charset import charset_of, decode_text

TYPES = [
    "",
    "text/html",
    "text/html; charset=utf-8",
    "text/html;charset='shift_jis'",
    "text/html; charset=utf-16",
    "x; charset=iso-2022-kr",
]
TEXT = "Grüße,日本語 и мир: <p>"


def seeds() -> list[bytes]:
    meta = '<meta charset="windows-1251"><meta http-equiv=content-type content="text/html; charset=big5">'
    texts = [TEXT.encode(), TEXT.encode("utf-16"), "日本語の文".encode("shift_jis"), "мир".encode("cp1251") * 9, b"\x1b$B%F%9%H\x1b(B"]
    declared = [meta.encode() + text for text in texts] + [b"<?xml version='1.0' encoding='koi8-r'?>" + "мир".encode("koi8-r")]
    return [choosing(place % len(TYPES), text) for place, text in enumerate([*texts, *declared])]


def fuzz(data: bytes) -> None:
    header, body = choose(data, TYPES)
    found = decode_text(body, charset_of(header), html=bool(header))
    assert "\0" not in found.text
    found.text.encode()  # no lone surrogates
    assert found.encoding and (found.claimed or "x").encode()
    if found.utf8 is not None:
        assert found.utf8.decode() == found.text
