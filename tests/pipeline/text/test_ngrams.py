"""Compares repetition of word n-grams and exact counts with plain Python."""

import re
from collections import Counter

import numpy as np
import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_top_duplicate, get_n_grams
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.text.hashing import table_size
from corpusmill.pipeline.text.lines import cleared_copies, count_copy
from corpusmill.pipeline.text.ngrams import (
    count_ngrams,
    count_words,
    covered_characters,
    duplicate_candidates,
    duplicated_ngram_characters,
    most_frequent,
    new_ngram_counts,
    top_ngram_characters,
)
from corpusmill.pipeline.text.utf8 import character_classes
from corpusmill.pipeline.text.words import base_powers, hash_chunks, new_words, walk_words, word_rule_classes

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


@given(st.lists(WORDS, max_size=120))
def test_random_sequences_of_few_words(words: list[str]) -> None:
    assert measured(" ".join(words)) == expected(" ".join(words))


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


def test_golden_values() -> None:
    eight_words = "abcd efghi jklm nopq rstu vwxy zabc defgij"  # the most frequent 2-gram counts although it occurs once
    assert measured(eight_words)[0][0] / len(eight_words) == pytest.approx(0.238, abs=1e-3)
    words = [f"w{n:06d}" + "x" * (n % 4 == 0) for n in range(88)]
    text = " ".join(words[:40] + words[10:22] + words[40:])  # 100 words, in which a block of 12 occurs twice
    duplicated = measured(text)[1]
    assert duplicated[0] / len(text) == duplicated[5] / len(text) == pytest.approx(0.088, abs=1e-3)
    assert measured("") == ([0, 0, 0], [0] * 6)


TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "ba", ".", "é", "漢漢", "😀", "\0", "abcdefghijklm"]), max_size=100)


@given(TEXTS)
def test_every_count_of_every_length(words: list[str]) -> None:
    data = np.frombuffer(" ".join(words).encode(), np.uint8)
    limit = len(words) + 1
    hashes, ends, kinds = np.empty(limit, np.uint64), np.empty(limit + 1, np.int64), np.empty(limit, np.uint8)
    assert hash_chunks(data, 0, data.size, character_classes(), hashes, ends, kinds) == len(words)
    counts = new_ngram_counts(limit)
    assert count_words(hashes, len(words), counts) == len(set(words))
    for n in range(2, 11):
        ngrams = list(zip(*[words[place:] for place in range(n)]))
        times = Counter(ngrams)
        repeats = count_ngrams(len(words), n, counts)
        assert repeats == sum(count for count in times.values() if count > 1)
        expected = [ngrams.index(ngram) if times[ngram] > 1 else -1 for ngram in ngrams]
        assert counts.first[: len(ngrams)].tolist() == expected
        assert all(counts.times[first] == times[ngrams[first]] for first in expected if first >= 0)
        covered = {at + place for at, first in enumerate(expected) if first >= 0 for place in range(n)}
        assert covered_characters(len(words), n, ends, counts) == sum(len(words[place]) for place in covered)
        if ngrams:
            ngram, count = times.most_common(1)[0]
            assert most_frequent(len(words), n, ends, counts) == (ngrams.index(ngram), count, len("".join(ngram)))
        else:
            assert most_frequent(len(words), n, ends, counts) == (-1, 0, 0)


@given(st.lists(st.integers(0, 5), max_size=60))
def test_copies(keys: list[int]) -> None:
    table = np.empty(2 * table_size(len(keys)), np.uint64)
    mask = cleared_copies(table, len(keys))
    copies = sum(count_copy(table, mask, np.uint64(key)) for key in keys)
    assert copies == sum(count for count in Counter(keys).values() if count > 1)
