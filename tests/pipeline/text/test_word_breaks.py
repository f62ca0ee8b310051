"""Compares properties and words with uniseg 0.8.0."""

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from uniseg.db import word_break
from uniseg.wordbreak import words as uniseg_words

from corpusmill.pipeline.text.hashing import hash_span
from corpusmill.pipeline.text.word_breaks import OTHER, PROPERTIES, PROPERTY, hash_unicode_words, word_break_table

SAMPLES = [chr(int(np.flatnonzero(word_break_table() & PROPERTY == value)[0])) for value in PROPERTIES.values()]


def test_properties_of_all_assigned_characters() -> None:
    names = {name.upper().replace("_", ""): value for name, value in PROPERTIES.items()}
    table = word_break_table() & PROPERTY
    for point in [*range(0xD800), *range(0xE000, 0x110000)]:
        if unicodedata.category(chr(point)) != "Cn":
            assert table[point] == names.get(word_break(chr(point)).upper().replace("_", ""), OTHER), hex(point)


@given(st.lists(st.one_of(st.sampled_from([*SAMPLES, *SAMPLES, *"ab1' \u200d\u05d0\""]), st.characters(exclude_categories=["Cs", "Cn"]))))
def test_words(characters: list[str]) -> None:
    text = "".join(characters)
    data = np.frombuffer(text.encode(), np.uint8)
    hashes, ends = np.empty(data.size + 1, np.uint64), np.empty(data.size + 2, np.int64)
    count = hash_unicode_words(data, 0, data.size, word_break_table(), hashes, ends)
    expected = [word for word in uniseg_words(text) if word[0].isalnum()]
    assert np.diff(ends[: count + 1]).tolist() == [len(word) for word in expected]
    spans = [np.frombuffer(word.encode(), np.uint8) for word in expected]
    assert hashes[:count].tolist() == [hash_span(span, 0, span.size) for span in spans]
