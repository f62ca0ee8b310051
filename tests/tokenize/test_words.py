"""Word counts, against those that `tokenizers` takes when it trains on the text."""

import json

import pyarrow as pa
import pytest

from corpusmill.pipeline.byte_alphabet import to_characters
from corpusmill.tokenize import words
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.words import COUNTS, LONGEST_WORD, WordCounter, merge_counts, splitter


def counted_by_tokenizers(texts, pattern):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [splitter(pattern), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=1, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(trainer.__getstate__())["BpeTrainer"]["words"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_counts_are_those_of_tokenizers(pattern, english, foreign):
    texts = english[::20] + foreign
    counter = WordCounter(pattern)
    counter.add(texts, ["en"] * len(texts))
    assert {to_characters(word): count for word, count in counter.counts["en"].items()} == counted_by_tokenizers(texts, pattern)


def test_words_of_absurd_length_are_left_out():
    counter = WordCounter("gpt2")
    counter.add(["a " + "b" * (LONGEST_WORD + 1) + " c" + "d" * (LONGEST_WORD - 2)], [None])
    assert counter.left_out == 1  # " bbb..."; " cdd..." has just the length that is allowed
    assert sum(counter.counts[None].values()) == 2


def test_table_is_sorted_by_language_and_word():
    counter = WordCounter("gpt2")
    counter.add(["b a", "c", "a"], ["en", None, "de"])
    table = counter.table()
    assert table.schema.equals(COUNTS)
    assert table.to_pylist() == [
        {"language": language, "word": word, "count": 1} for language, word in [(None, "c"), ("de", "a"), ("en", " a"), ("en", "b")]
    ]
    assert WordCounter("gpt2").table().equals(COUNTS.empty_table())


@pytest.mark.parametrize("rows", [1, 1_000_000])
def test_merging_adds_up_in_64_bit_whatever_the_order(monkeypatch, rows):
    monkeypatch.setattr(words, "MERGE_ROWS", rows)
    one = pa.Table.from_pylist([{"language": None, "word": "x", "count": 1}, {"language": "en", "word": "x", "count": 2**40}], COUNTS)
    two = pa.Table.from_pylist([{"language": "en", "word": "x", "count": 2**40}, {"language": "en", "word": "a", "count": 3}], COUNTS)
    merged = merge_counts([one, two, one])
    assert merged.equals(merge_counts([two, one, one]))
    assert sorted(merged.to_pylist(), key=str) == sorted(
        [
            {"language": None, "word": "x", "count": 2},
            {"language": "en", "word": "a", "count": 3},
            {"language": "en", "word": "x", "count": 3 * 2**40},
        ],
        key=str,
    )
