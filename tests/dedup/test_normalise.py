import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.normalise import exact_hashes, normalised
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
@given(texts=st.lists(st.text(), max_size=5))
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
