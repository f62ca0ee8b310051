"""Compares word counts with those that `tokenizers` uses when it trains on the text."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.token_bytes import to_characters
from corpusmill.tokenize.patterns import PATTERNS, regex_of
from corpusmill.tokenize.words import COUNTS, LONGEST_WORD, WordCounts, splitter

#: No kernel knows this pattern, so `tokenizers` cuts.
OWN = r"\p{L}+|[^\p{L}]"


def counted_by_tokenizers(texts, regex):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter(regex), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=1, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(trainer.__getstate__())["BpeTrainer"]["words"]


def texts_array(texts):
    return pa.array(texts, pa.large_string())


def count(texts, regex=PATTERNS["gpt2"], languages=None):
    counts = WordCounts()
    counts.add_texts(texts_array(texts), None if languages is None else pa.array(languages), regex)
    return counts


def rows(tables):
    return Counter({(row["language"], row["word"]): row["count"] for table in tables for row in table.to_pylist()})


@pytest.mark.parametrize("regex", [regex_of("gpt2", 2), PATTERNS["o200k"], OWN])
def test_counts_are_those_of_tokenizers(regex, english, foreign):
    texts = english[::20] + foreign
    found = count(texts, regex).tables()
    assert {to_characters(word): number for (_, word), number in rows(found).items()} == counted_by_tokenizers(texts, regex)
    assert sum(len(word.encode()) * number for (_, word), number in rows(found).items()) == sum(len(text.encode()) for text in texts)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(), st.sampled_from(["en", "de", None]), st.integers(1, 2**40)), max_size=30), st.integers(1, 5))
def test_random_words_add_up(found, ranges):
    words, languages, numbers = (list(column) for column in zip(*found)) if found else ([], [], [])
    counts = WordCounts()
    for _ in range(2):
        counts.add_words(texts_array(words), pa.array(languages, pa.string()), np.array(numbers, np.int64))
    wanted = Counter()
    for word, language, number in found:
        wanted[language, word] += 2 * number
    tables = counts.tables(ranges)
    assert len(tables) == ranges and all(table.schema.equals(COUNTS) for table in tables)
    assert rows(tables) == wanted and sum(table.num_rows for table in tables) == len(wanted) == len(counts)


def test_many_words_of_all_lengths():
    """Counts more words than the table first has room for, with lengths around those that it treats specially."""
    words = [f"{number:x}" + "abcdefghijklmnopqrstuvwxyz"[: number % 27] for number in range(60_000)]
    counts = WordCounts()
    for start in range(0, 60_000, 7_000):
        counts.add_words(texts_array(words[start : start + 7_000]), None, np.full(len(words[start : start + 7_000]), 3))
    counts.add_words(texts_array(words[::2]), None, np.full(30_000, 2**33))
    wanted = Counter(dict.fromkeys(words, 3))
    wanted.update(dict.fromkeys(words[::2], 2**33))
    assert {word: number for (_, word), number in rows(counts.tables(3)).items()} == wanted


def test_words_of_absurd_length_are_left_out_and_counted():
    counts = count(["b" * (LONGEST_WORD + 1) + "." + "é" * LONGEST_WORD])
    assert counts.left_out == 1
    assert rows(counts.tables()) == {(None, "."): 1, (None, "é" * LONGEST_WORD): 1}


@pytest.mark.parametrize("regex", [PATTERNS["gpt2"], OWN])
def test_languages_are_counted_apart(regex):
    counts = count(["b a", "c", "a", "a"], regex, ["en", None, "de", "de"])
    assert rows(counts.tables())[("de", "a")] == 2
    assert {language for language, _ in rows(counts.tables())} == {"en", None, "de"}
    assert WordCounts().tables(2) == [COUNTS.empty_table()] * 2
