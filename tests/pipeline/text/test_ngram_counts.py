"""Counts of n-grams and of copies against Counter, on sequences of few words."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.text.hashing import table_size
from corpusmill.pipeline.text.lines import cleared_copies, count_copy
from corpusmill.pipeline.text.ngrams import count_ngrams, count_words, covered_characters, most_frequent, new_ngram_counts
from corpusmill.pipeline.text.utf8 import character_classes
from corpusmill.pipeline.text.words import hash_chunks

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "ba", ".", "é", "漢漢", "😀", "\0", "abcdefghijklm"]), max_size=100)


@given(WORDS)
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
