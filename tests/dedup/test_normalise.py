import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.normalise import _forms, _write, exact_hashes, normalised
from corpusmill.pipeline.text.buffers import text_buffers


def lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def slow(text: str, how: str) -> str:
    if how == "none":
        return text
    spaced = " ".join(text.split())
    if how == "whitespace":
        return spaced
    return lower(" ".join(re.findall(r"\w+", text))) if how == "words" and re.search(r"\w", text) else lower(spaced)


@pytest.mark.parametrize("how", ["none", "whitespace", "lowercase", "words"])
@settings(deadline=None)
@given(texts=st.lists(st.text() | st.text(alphabet="aBZ@[`{ \n\t\x1c\x85 éÉİ\u2028"), max_size=5))
def test_normal_forms(how, texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    column = pa.array(["padding", *texts], pa.large_string()).slice(1)
    data, places = normalised(*text_buffers(column), how)
    forms = [bytes(data[a:b]).decode() for a, b in pairwise(places)]
    assert forms == [slow(text, how) for text in texts]
    hashes = exact_hashes(*text_buffers(column), how)
    assert hashes == b"".join(xxhash.xxh3_128_digest(form.encode()) for form in forms)


@pytest.mark.parametrize("how", ["whitespace", "lowercase"])
@settings(deadline=None)
@given(
    content=st.binary(max_size=150)
    | st.lists(
        st.sampled_from(
            [b"Ab", b"cdEfg", b" ", b"  ", b"\n", b"\xc3\x89", b"\xff", b"abcdefghij KLMNOPQ rs", "привет".encode(), b"\xc2\xa0"]
        ),
        max_size=30,
    ).map(b"".join)
)
def test_eight_bytes_at_a_time_give_what_one_gives(how, content: bytes) -> None:  # type: ignore[no-untyped-def]
    data, offsets = np.frombuffer(b"#" + content, np.uint8), np.array([1, 1 + len(content)])
    found, places = normalised(data, offsets, how)
    expected = np.empty(3 * len(content) + 8, np.uint8)
    forms = _forms(how, False)
    end = _write(data, 1, 1 + len(content), forms, expected, 0)
    assert found[places[0] : places[1]].tobytes() == expected[:end].tobytes()


def test_texts_of_symbols_are_not_equal_for_having_no_words() -> None:
    column = pa.array(["😀 😀", "🙂", "C++", "C#", "c + +"], pa.large_string())
    hashes = np.frombuffer(exact_hashes(*text_buffers(column), "words"), "V16").tolist()
    assert len(set(hashes)) == 3 and hashes[2] == hashes[3] == hashes[4]
    assert len(set(np.frombuffer(exact_hashes(*text_buffers(column), "lowercase"), "V16").tolist())) == 5
