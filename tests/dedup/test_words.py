import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.words import read_only, shingle_hashes, word_codes, word_hashes

MASK = (1 << 64) - 1
BASE = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    value ^= value >> 32
    value = value * 0xFF51AFD7ED558CCD & MASK
    return value ^ value >> 29


def lower(word: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in word)


def polynomial(values: list[int]) -> int:
    total = 0
    for value in values:
        total = (total * BASE + value) & MASK
    return mix(total)


def slow_words(text: str) -> list[int]:
    return [polynomial([ord(c) + 1 for c in lower(word)]) for word in re.findall(r"\w+", text)]


def fast_words(content: bytes, start: int = 0) -> np.ndarray:
    out = np.zeros(len(content) // 2 + 1, np.uint64)
    data = read_only(np.frombuffer(content, np.uint8))
    count = word_hashes(data, start, len(content), word_codes(), out)
    return out[:count]


@settings(deadline=None)
@given(st.text(), st.text())
def test_words_are_runs_of_word_characters_in_lower_case(before: str, text: str) -> None:
    start = len(before.encode())
    assert fast_words((before + text).encode(), start).tolist() == slow_words(text)


@settings(deadline=None)
@given(st.binary())
def test_bytes_that_are_no_utf8_end_words_and_nothing_else(content: bytes) -> None:
    fast_words(content)
    assert fast_words(b"one \xff\xfe two \xf0\x9f").tolist() == slow_words("one two")


@settings(deadline=None)
@given(st.lists(st.integers(0, MASK), max_size=30), st.integers(1, 8))
def test_shingles_are_ngrams_of_word_hashes(words: list[int], ngram: int) -> None:
    scratch = np.array(words, np.uint64)
    count = shingle_hashes(scratch, len(words), ngram)
    assert scratch[:count].tolist() == [polynomial(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
