"""Compares repetition of word n-grams and exact counts with plain Python."""

import re

import numpy as np
import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_top_duplicate, get_n_grams
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.text.hashing import table_size
from corpusmill.text.ngrams import (
    duplicate_candidates,
    duplicated_ngram_characters,
    top_ngram_characters,
)
from corpusmill.text.utf8 import character_classes
from corpusmill.text.words import base_powers, new_words, walk_words, word_rule_classes

TOP, DUPLICATED = (2, 3, 4), (5, 6, 7, 8, 9, 10)


def measured(text: str) -> tuple[list[int], list[int]]:
    data = np.frombuffer(text.encode(), np.uint8)
    powers, words = base_powers(), new_words(len(data) + 1)
    count = walk_words(data, 0, len(data), word_rule_classes("words", character_classes()), powers, words)
    repeats = np.empty(len(data) + 1, np.uint8)
    places, slots = np.empty(len(data) + 1, np.int64), np.empty(len(data) + 1, np.int64)
    table = np.empty(2 * table_size(len(data) + 2), np.uint64)
    top, repeating = [], 0
    for n in TOP:
        characters, repeating = top_ngram_characters(words, count, n, places, repeating, slots, table)
        top.append(characters)
    candidates = duplicate_candidates(words, count, DUPLICATED[0], powers, repeats, places, table)
    return top, [duplicated_ngram_characters(words, count, n, powers, places, candidates, table) for n in DUPLICATED]


def expected(text: str) -> tuple[list[int], list[int]]:
    words = re.findall(r"\w+|[^\w\s]", text)
    top = [find_top_duplicate(grams) if (grams := get_n_grams(words, n)) else 0 for n in TOP]
    return top, [find_all_duplicate(words, n) for n in DUPLICATED]


WORDS = st.sampled_from(["a", "b", "ab", "ba", ".", "é", "漢", "abcdefghijklmnopqr", "😀", "1", "12", "2"])


@given(st.lists(WORDS, min_size=1, max_size=25), st.lists(WORDS, max_size=25), st.integers(1, 6))
def test_repeated_blocks(block: list[str], between: list[str], times: int) -> None:
    text = " ".join((block + between) * times + block)
    assert measured(text) == expected(text)


@pytest.mark.parametrize(
    "text",
    [
        "12 3 4 5 6 7 1 23 4 5 6 7 12 3 4 5 67",  # equal when joined, but other words
        "1 2 3 4 5 67 12 3 4 5 6 7",
        "a b c d e fghij klmno pqrst uvwxy z abcd efgh ijkl mnop q r s t u vwxyz",  # five words are short here, long there
        "new line s of text in here newline s of text in here new lines of text in here",
        "ab c d e f ghijklmnopqrstuv abc d e f ghijklmnopqrstuv",
    ],
)
def test_ngrams_are_compared_without_spaces(text: str) -> None:
    assert measured(text) == expected(text)
