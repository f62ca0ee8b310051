"""Compares the forms of a text with the Python functions that they replace, including datatrove's own."""

import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from datatrove.utils.text import simplify_text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpusmill.dedup.normalise import (
    KNOWN,
    SIMPLIFICATIONS,
    exact_hashes,
    normalised,
    redpajama,
    reference,
    refinedweb,
    simplified,
    texts_of,
)
from corpusmill.text.buffers import text_buffers


def lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def slow(text: str, how: str) -> str:
    if how == "none":
        return text
    spaced = " ".join(text.split())
    if how == "whitespace":
        return spaced
    return lower(" ".join(re.findall(r"\w+", text))) if how == "words" and re.search(r"\w", text) else lower(spaced)


#: Texts with stretches that are written eight bytes at a time.
BLOCKS = st.lists(st.sampled_from(["Ab", "cdEfg", " ", "  ", "\n", "É", "abcdefghij KLMNOPQ rs", "привет", "\xa0"]), max_size=30).map(
    "".join
)


@pytest.mark.parametrize("how", ["none", "whitespace", "lowercase", "words"])
@settings(deadline=None)
@given(texts=st.lists(st.text() | st.text(alphabet="aBZ@[`{ \n\t\x1c\x85 éÉİ\u2028") | BLOCKS.map("".join), max_size=5))
def test_normal_forms(how, texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    column = pa.array(["padding", *texts], pa.large_string()).slice(1)
    data, places = normalised(*text_buffers(column), how)
    forms = [bytes(data[a:b]).decode() for a, b in pairwise(places)]
    assert forms == [slow(text, how) for text in texts]
    hashes = exact_hashes(*text_buffers(column), how)
    assert hashes == b"".join(xxhash.xxh3_128_digest(form.encode()) for form in forms)


def test_texts_of_symbols_are_not_equal_for_having_no_words() -> None:
    column = pa.array(["😀 😀", "🙂", "C++", "C#", "c + +"], pa.large_string())
    hashes = np.frombuffer(exact_hashes(*text_buffers(column), "words"), "V16").tolist()
    assert len(set(hashes)) == 3 and hashes[2] == hashes[3] == hashes[4]
    assert len(set(np.frombuffer(exact_hashes(*text_buffers(column), "lowercase"), "V16").tolist())) == 5


#: Characters whose form depends on neighbours: digits and separators, sigma and what is skipped around it, marks, spaces, jamo.
TRICKY = (
    "Σσς.ΑaА'’­ 12٣,،⎖\u0301\u0323\u0327\u05b7\u05bc\u302e\u302f\u1b44\u2000\u3000İIé한ǆ;\u037e\u1fef\x00\x1c\x85_$€𝟙𝅘𝅥\U0001d165\U0001d166"
)


def through_kernel(texts: list[str], how: str) -> list[str]:
    column = pa.array(["padding", *texts], pa.large_string()).slice(1)
    return texts_of(*simplified(*text_buffers(column), how))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", SIMPLIFICATIONS)
@given(texts=st.lists(st.text() | st.text(alphabet=TRICKY), max_size=4))
@example(texts=["ΑΣ ΑΣΑ Σ ΑΣ. ΑΣ.Α ΑΣ-Α 1Σ", "1.2.3 1,, 2.a ٣٫٤", "a \u0301 b", " \u0301 a \u0301 ", "\u302e\u1b44", "İ", ""])
def test_any_text(how: str, texts: list[str]) -> None:
    assert through_kernel(texts, how) == [reference(how)(text) for text in texts]  # type: ignore[arg-type]


@pytest.mark.parametrize("how", SIMPLIFICATIONS)
def test_every_character_alone_and_between_letters(how: str) -> None:
    """Of letters without case and of what is no character, every 31st is tested."""
    points = [point for point in KNOWN if unicodedata.category(chr(point)) not in ("Lo", "Cn", "Co") or point % 31 == 0]
    assert len(points) > 10_000
    texts = [
        form for point in [*points, 0x10FFFF, 0xF0000, 0x32000] for form in (chr(point), f"aΣ{chr(point)}Σ{chr(point)}b 1{chr(point)}2")
    ]
    for found, text in zip(through_kernel(texts, how), texts, strict=True):
        assert found == reference(how)(text), ascii(text)  # type: ignore[arg-type]


def test_datatroves_form_is_datatroves() -> None:
    assert reference("datatrove") is simplify_text
    assert through_kernel(["Ça coûte 1.234,50 €, n'est-ce pas?"], "datatrove") == ["ca coute 0 0 € n est ce pas"]


def test_the_others() -> None:
    assert redpajama("It's  an É-mail") == "its an e\u0301mail"
    assert refinedweb("It's «an»\u3000É—mail") == "its an email"


@pytest.mark.parametrize("how", SIMPLIFICATIONS)
def test_texts_in_many_languages(how: str, shared_data: Path) -> None:
    texts = ["\n".join(path.read_text().splitlines()[:20]) for path in sorted((shared_data / "lid").glob("*.txt"))]
    assert len(texts) >= 75
    assert through_kernel(texts, how) == [reference(how)(text) for text in texts]  # type: ignore[arg-type]


def test_bytes_that_are_no_utf8_count_as_replacement_characters() -> None:
    content = np.frombuffer(b"One \xff TWO \xf0\x9f", np.uint8)
    for how in SIMPLIFICATIONS:
        assert texts_of(*simplified(content, np.array([0, len(content)]), how))[0].startswith("one \ufffd two \ufffd")  # type: ignore[arg-type]
